"""Convolutions and gated delta nets against NumPy, in whatever pieces their tokens come."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu.kernels import states
from lcpu.kernels.simd import LANES

from .running import int64, padded, run, same_bits, vectors_of

TOKENS, HEAD, KEY_HEADS, VALUE_HEADS, SLOTS = 11, 96, 2, 4, 16
CHANNELS = (2 * KEY_HEADS + VALUE_HEADS) * HEAD
PIECES = [[11], [1] * 11, [4, 1, 6]]


def spans_and_saves(sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each piece its span and saves: each token's state goes to the slot of its number."""
    starts = np.cumsum([0, *sizes])
    return [(int64(start, size, start - 1), np.arange(TOKENS, dtype=np.int64)) for start, size in
            zip(starts[:-1], sizes, strict=True)]


def convolved(x: np.ndarray, weight: np.ndarray, sizes: list[int], threads: int,
              silu: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rows, out, kept = padded(x), np.zeros_like(padded(x)), np.full((SLOTS, 3, CHANNELS), np.nan, np.float32)
    for span, saves in spans_and_saves(sizes):
        run(states.convolve, threads=threads, count=int64(1), spans=span, saves=saves, x=rows, out=out,
            stride=rows.strides[0], vectors=vectors_of(rows), weight=weight, taps=4, silu=silu, states=kept,
            state_bytes=kept.strides[0])
    return out[:TOKENS, :CHANNELS].copy(), kept[:TOKENS]


@pytest.mark.parametrize("silu", [True, False])
def test_convolve(silu):
    random = np.random.default_rng(1)
    x, weight = (random.standard_normal((rows, CHANNELS), np.float32) for rows in (TOKENS, 4))
    before = np.concatenate([np.zeros((3, CHANNELS)), x.astype(np.float64)])
    sums = sum(before[j : j + TOKENS] * weight[j] for j in range(4))
    wanted = sums / (1 + np.exp(-sums)) if silu else sums
    found = [convolved(x, weight, sizes, threads, silu) for sizes in PIECES for threads in (1, 3)]
    np.testing.assert_allclose(found[0][0], wanted, rtol=1e-5, atol=1e-5)
    assert (found[0][1] == [before[t + 1 : t + 4] for t in range(TOKENS)]).all()
    for out, kept in found:
        assert same_bits(out, found[0][0])
        assert same_bits(kept, found[0][1])


def delta_reference(q, k, v, decay, beta):
    state, out, kept = np.zeros((VALUE_HEADS, HEAD, HEAD)), [], []
    for t in range(len(q)):
        heads = np.arange(VALUE_HEADS) % KEY_HEADS
        state = state * decay[t][:, None, None]
        delta = (v[t] - np.einsum("hkv,hk->hv", state, k[t][heads])) * beta[t][:, None]
        state = state + k[t][heads][:, :, None] * delta[:, None, :]
        out.append(np.einsum("hkv,hk->hv", state, q[t][heads]))
        kept.append(state)
    return np.array(out), np.array(kept)


def test_delta_net():
    random = np.random.default_rng(2)
    qkv = random.standard_normal((TOKENS, 2 * KEY_HEADS + VALUE_HEADS, HEAD)).astype(np.float32)
    qkv[:, : 2 * KEY_HEADS] /= np.linalg.norm(qkv[:, : 2 * KEY_HEADS], axis=-1, keepdims=True)
    decay, beta = random.uniform(0.1, 1, (2, TOKENS, VALUE_HEADS)).astype(np.float32)
    parts = np.split(qkv.astype(np.float64), [KEY_HEADS, 2 * KEY_HEADS], axis=1)
    wanted = delta_reference(*parts, decay.astype(np.float64), beta.astype(np.float64))
    found, rows = [], padded(qkv.reshape(TOKENS, -1))
    gates = [padded(decay), padded(beta)]
    for sizes, threads in ((sizes, threads) for sizes in PIECES for threads in (1, 3)):
        kept = np.full((SLOTS, VALUE_HEADS, HEAD, HEAD), np.nan, np.float32)
        out = padded(np.zeros((TOKENS, VALUE_HEADS * HEAD), np.float32))
        scratch = np.zeros((threads, states.delta_scratch_bytes(HEAD)), np.uint8)
        for span, saves in spans_and_saves(sizes):
            run(states.delta_net, threads=threads, count=int64(1), spans=span, saves=saves, qkv=rows,
                qkv_stride=rows.strides[0], decay=gates[0], beta=gates[1], gate_stride=gates[0].strides[0], out=out,
                out_stride=out.strides[0], key_heads=KEY_HEADS, value_heads=VALUE_HEADS, head_dim=HEAD, states=kept,
                state_bytes=kept.strides[0], scratch=scratch, scratch_bytes=scratch.shape[1])
        found.append((out[:TOKENS].copy(), kept[:TOKENS].copy()))
    np.testing.assert_allclose(found[0][0].reshape(wanted[0].shape), wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0][1], wanted[1], rtol=1e-4, atol=1e-5)
    for out, kept in found:
        assert same_bits(out, found[0][0])
        assert same_bits(kept, found[0][1])


def test_a_state_is_replaced_where_it_is():
    random = np.random.default_rng(3)
    x, weight = (random.standard_normal((rows, CHANNELS), np.float32) for rows in (TOKENS, 4))
    wanted, _ = convolved(x, weight, [TOKENS], 1)
    rows, out, kept = padded(x), np.zeros_like(padded(x)), np.zeros((1, 3, CHANNELS), np.float32)
    for start, size in ((0, 2), (2, 1), (3, 1), (4, 7)):
        saves = np.full(TOKENS, -1)
        saves[start + size - 1] = 0
        run(states.convolve, count=int64(1), spans=int64(start, size, 0 if start else -1), saves=saves, x=rows, out=out,
            stride=rows.strides[0], vectors=vectors_of(rows), weight=weight, taps=4, silu=True, states=kept,
            state_bytes=kept.strides[0])
    assert same_bits(out[:TOKENS, :CHANNELS].copy(), wanted)


@pytest.mark.parametrize("threads", [1, 3])
def test_unit_heads_and_decays(threads):
    random = np.random.default_rng(4)
    x = random.standard_normal((TOKENS, 2 * HEAD), np.float32)
    rows = padded(x)
    run(states.unit_heads, threads=threads, count=int64(TOKENS), x=rows, stride=rows.strides[0], heads=2, head_dim=HEAD,
        epsilon=1e-6, factor=0.25)
    heads = x.reshape(TOKENS, 2, HEAD).astype(np.float64)
    wanted = 0.25 * heads / np.sqrt((heads**2).sum(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(rows[:TOKENS, : 2 * HEAD].reshape(heads.shape), wanted, rtol=1e-5)
    alpha, beta = random.uniform(-30, 30, (2, TOKENS, 5)).astype(np.float32)
    a, dt = -random.uniform(0.01, 2, 5).astype(np.float32), random.standard_normal(5).astype(np.float32)
    both = [padded(alpha), padded(beta)]
    run(states.decays, threads=threads, count=int64(TOKENS), alpha=both[0], beta=both[1], stride=both[0].strides[0],
        a=a, dt=dt, heads=5)
    wanted = np.exp(a.astype(np.float64) * np.logaddexp(0, alpha.astype(np.float64) + dt))
    np.testing.assert_allclose(both[0][:TOKENS, :5], wanted, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(both[1][:TOKENS, :5], 1 / (1 + np.exp(-beta.astype(np.float64))), rtol=1e-5, atol=1e-30)


def test_gates_of_heads():
    random = np.random.default_rng(5)
    both = random.standard_normal((TOKENS, 3, 2, HEAD), np.float32)
    x = random.standard_normal((TOKENS, 3 * HEAD), np.float32)
    source, rows, out = padded(both.reshape(TOKENS, -1)), padded(x), np.zeros_like(padded(x))
    run(states.take_heads, count=int64(TOKENS), x=source, stride=source.strides[0], out=out, out_stride=out.strides[0],
        heads=3, head_dim=HEAD, step=8 * HEAD)
    assert (out[:TOKENS, : 3 * HEAD] == both[:, :, 0].reshape(TOKENS, -1)).all()
    run(states.multiply_by_sigmoid, count=int64(TOKENS), x=rows, stride=rows.strides[0], gate=source[:, HEAD:],
        gate_stride=source.strides[0], heads=3, head_dim=HEAD, gate_step=8 * HEAD)
    gate = both[:, :, 1].reshape(TOKENS, -1).astype(np.float64)
    np.testing.assert_allclose(rows[:TOKENS, : 3 * HEAD], x / (1 + np.exp(-gate)), rtol=1e-5)
    assert LANES <= HEAD
