"""Norms, activation functions, biases and gathering, against float64."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels import elementwise
from lcpu.kernels.simd import LANES

from . import reference
from .running import few, int64, padded, run, same_bits, vectors_of

shapes = given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), width=st.integers(1, 700),
               threads=st.integers(1, 3))


def rows_of(seed: int, tokens: int, width: int, count: int) -> list[np.ndarray]:
    """`count` arrays float32 [tokens][width]"""
    return list(np.random.default_rng(seed).standard_normal((count, tokens, width), dtype=np.float32))


@few
@shapes
def test_rms_norm(seed, tokens, width, threads):
    x, weights = rows_of(seed, tokens, width, 2)
    rows, weight, out = padded(x), padded(weights[:1]), np.zeros_like(padded(x))
    run(elementwise.rms_norm, threads=threads, count=int64(tokens), x=rows, weight=weight, out=out,
        stride=rows.strides[0], vectors=vectors_of(rows), width=width, epsilon=1e-5)
    np.testing.assert_allclose(out[:tokens, :width], reference.rms_norm(x, weights[0], 1e-5), rtol=2e-6)
    assert not out[:, width:].any()
    assert not out[tokens:].any()


@few
@shapes
def test_add_rms_norm(seed, tokens, width, threads):
    x, y, weights = rows_of(seed, tokens, width, 3)
    rows, others, weight = padded(x), padded(y), padded(weights[:1])
    before = others.copy()
    run(elementwise.add_rms_norm, threads=threads, count=int64(tokens), x=rows, y=others, weight=weight,
        stride=rows.strides[0], vectors=vectors_of(rows), width=width, epsilon=1e-5)
    wanted = x + reference.rms_norm(y, weights[0], 1e-5)
    np.testing.assert_allclose(rows[:tokens, :width], wanted, rtol=2e-6, atol=2e-6)
    assert not rows[:, width:].any()
    assert not rows[tokens:].any()
    assert np.array_equal(others, before)


def test_rms_norm_of_zeros_is_zero():
    rows, out = padded(np.zeros((1, 8), np.float32)), np.full_like(padded(np.zeros((1, 8))), 7)
    run(elementwise.rms_norm, count=int64(1), x=rows, weight=np.ones_like(rows), out=out, stride=rows.strides[0],
        vectors=vectors_of(rows), width=8, epsilon=1e-5)
    assert not out[0].any()


def gate_with(name: str, rows: np.ndarray, ups: np.ndarray, tokens: int, threads: int = 1, first: int = 0) -> None:
    """In place, with the values of `ups` from `first` on."""
    run(elementwise.GATES[name], threads=threads, count=int64(tokens), gate=rows, up=ups[:, first:],
        up_stride=ups.strides[0], out=rows, stride=rows.strides[0], vectors=vectors_of(rows))


@few
@shapes
def test_silu_multiply(seed, tokens, width, threads):
    gate, up = rows_of(seed, tokens, width, 2)
    gate *= 10
    rows, ups = padded(gate), padded(up)
    gate_with("silu", rows, ups, tokens, threads)
    np.testing.assert_allclose(rows[:tokens, :width], reference.silu_multiply(gate, up), rtol=1e-6, atol=1e-37)
    assert not rows[tokens:].any()


@few
@shapes
def test_relu_squared_multiply(seed, tokens, width, threads):
    gate, up = rows_of(seed, tokens, width, 2)
    rows, ups = padded(gate), padded(up)
    gate_with("relu_squared", rows, ups, tokens, threads)
    np.testing.assert_allclose(rows[:tokens, :width], reference.relu_squared_multiply(gate, up), rtol=1e-6)
    assert not rows[tokens:].any()


@few
@shapes
def test_gelu_multiply(seed, tokens, width, threads):
    gate, up = rows_of(seed, tokens, width, 2)
    gate *= 4
    rows, ups = padded(gate), padded(up)
    gate_with("gelu", rows, ups, tokens, threads)
    np.testing.assert_allclose(rows[:tokens, :width], reference.gelu_multiply(gate, up), rtol=2e-6, atol=2e-6)
    assert not rows[tokens:].any()


@few
@shapes
def test_a_part_of_wider_rows_multiplies(seed, tokens, width, threads):
    gate, = rows_of(seed, tokens, width, 1)
    first = 2 * LANES
    wide = padded(rows_of(seed + 1, tokens, first + width + 40, 1)[0])
    rows = padded(gate)
    gate_with("gelu", rows, wide, tokens, threads, first)
    wanted = reference.gelu_multiply(gate, wide[:tokens, first : first + width])
    np.testing.assert_allclose(rows[:tokens, :width], wanted, rtol=2e-6, atol=2e-6)


@few
@shapes
def test_copy(seed, tokens, width, threads):
    rows = padded(rows_of(seed, tokens, width, 1)[0])
    out = np.zeros_like(rows)
    run(elementwise.copy, threads=threads, count=int64(tokens), x=rows, out=out, stride=rows.strides[0],
        vectors=vectors_of(rows))
    assert np.array_equal(out, rows)


@few
@shapes
def test_clamped_swish_multiply(seed, tokens, width, threads):
    gate, up = (10 * each for each in rows_of(seed, tokens, width, 2))
    rows, ups = padded(gate), padded(up)
    gate_with("clamped_swish", rows, ups, tokens, threads)
    wanted = reference.clamped_swish_multiply(gate, up)
    np.testing.assert_allclose(rows[:tokens, :width], wanted, rtol=2e-6, atol=1e-7)
    assert not rows[:, width:].any()
    assert not rows[tokens:].any()


def test_clamped_swish_multiply_at_the_ends():
    gate, up = np.array([[-1e30, -np.inf, 7, 8, np.inf, 1, 1, np.nan, 1]], np.float32), np.ones((1, 9), np.float32)
    up[0, 5:7], up[0, 8] = (np.inf, -np.inf), np.nan
    rows = padded(gate)
    gate_with("clamped_swish", rows, padded(up), 1)
    swish_7, swish_1 = (x / (1 + np.exp(-1.702 * x)) for x in (7, 1))
    np.testing.assert_allclose(rows[0, 2:7], [2 * swish_7] * 3 + [8 * swish_1, -6 * swish_1], rtol=1e-6)
    assert rows[0, 0] == 0
    assert np.isnan(rows[0, [1, 7, 8]]).all()  # -inf / inf, as in llama.cpp


@few
@shapes
def test_add_sigmoid_gated(seed, tokens, width, threads):
    x, y, source = rows_of(seed, tokens, width, 3)
    weight = np.random.default_rng(seed + 1).standard_normal((1, width), dtype=np.float32)
    rows, sources = padded(x), padded(source)
    run(elementwise.add_sigmoid_gated, threads=threads, count=int64(tokens), x=rows, y=padded(y),
        stride=rows.strides[0], vectors=vectors_of(rows), source=sources, source_stride=sources.strides[0],
        weight=padded(weight), source_vectors=vectors_of(sources))
    share = 1 / (1 + np.exp(-(source.astype(np.float64) @ weight[0])))
    np.testing.assert_allclose(rows[:tokens, :width], x + y * share[:, None], rtol=1e-5, atol=1e-5)
    assert not rows[tokens:].any()


@few
@shapes
def test_soft_cap(seed, tokens, width, threads):
    (x,) = rows_of(seed, tokens, width, 1)
    x *= 40
    rows = padded(x)
    run(elementwise.soft_cap, threads=threads, count=int64(tokens), x=rows, stride=rows.strides[0],
        vectors=vectors_of(rows), cap=30.0)
    np.testing.assert_allclose(rows[:tokens, :width], 30 * np.tanh(x.astype(np.float64) / 30), atol=1e-5)
    assert not rows[tokens:].any()


@few
@shapes
def test_scale_and_add(seed, tokens, width, threads):
    x, y = rows_of(seed, tokens, width, 2)
    rows, others = padded(x), padded(y)
    size = {"stride": rows.strides[0], "vectors": vectors_of(rows)}
    run(elementwise.scale, threads=threads, count=int64(tokens), x=rows, factor=0.3, **size)
    run(elementwise.add, threads=threads, count=int64(tokens), x=rows, y=others, factor=1.0, **size)
    assert same_bits(rows[:tokens, :width].copy(), x * np.float32(0.3) + y)
    run(elementwise.add, threads=threads, count=int64(tokens), x=rows, y=others, factor=-2.5, **size)
    np.testing.assert_allclose(rows[:tokens, :width], x * np.float32(0.3) - 1.5 * y, rtol=1e-5, atol=1e-6)
    assert not rows[tokens:].any()


@few
@shapes
def test_scale_by_position(seed, tokens, width, threads):
    (x,) = rows_of(seed, tokens, width, 1)
    random = np.random.default_rng(seed)
    rows, positions, factors = padded(x), random.integers(0, 50, tokens), random.standard_normal(50, np.float32)
    run(elementwise.scale_by_position, threads=threads, count=int64(tokens), positions=positions, factors=factors,
        x=rows, stride=rows.strides[0], vectors=vectors_of(rows))
    assert same_bits(rows[:tokens, :width].copy(), x * factors[positions][:, None])
    assert not rows[tokens:].any()


@few
@shapes
def test_gelu_alone(seed, tokens, width, threads):
    (x,) = rows_of(seed, tokens, width, 1)
    x *= 4
    rows = padded(x)
    run(elementwise.ACTIVATES["gelu"], threads=threads, count=int64(tokens), x=rows, stride=rows.strides[0],
        vectors=vectors_of(rows))
    np.testing.assert_allclose(rows[:tokens, :width], reference.gelu_multiply(x, np.ones_like(x)), rtol=2e-6, atol=2e-6)
    assert not rows[tokens:].any()


def test_gelu_by_the_error_function():
    x = np.concatenate([np.linspace(-9, 9, 4001), [0, -0.0, 60, -60, 1e30, -1e30]]).astype(np.float32)[None]
    rows = padded(x)
    run(elementwise.ACTIVATES["gelu_erf"], count=int64(1), x=rows, stride=rows.strides[0], vectors=vectors_of(rows))
    expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x[0].astype(float)]
    np.testing.assert_allclose(rows[0, : x.shape[1]], expected, rtol=1e-6, atol=4e-7)
    assert not rows[1:].any()


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 9), heads=st.integers(1, 5), head_dim=st.integers(1, 140),
       threads=st.integers(1, 3))
def test_rms_norm_of_each_head(seed, tokens, heads, head_dim, threads):
    (x,) = rows_of(seed, tokens, heads * head_dim, 1)
    weight = np.random.default_rng(seed + 1).standard_normal(head_dim, dtype=np.float32)
    rows = padded(x)
    run(elementwise.rms_norm_heads, threads=threads, count=int64(tokens), x=rows, weight=weight,
        stride=rows.strides[0], heads=heads, head_dim=head_dim, epsilon=1e-5)
    wanted = reference.rms_norm(x.reshape(-1, head_dim), weight, 1e-5).reshape(x.shape)
    np.testing.assert_allclose(rows[:tokens, : x.shape[1]], wanted, rtol=3e-6, atol=1e-12)
    assert not rows[:, x.shape[1] :].any()
    assert not rows[tokens:].any()


def test_silu_multiply_at_the_ends():
    gate = np.array([[-1e30, -200, -88.5, 0, 88.5, 200, 1e30, np.nan]], np.float32)
    rows = padded(gate)
    gate_with("silu", rows, np.ones_like(rows), 1)
    np.testing.assert_allclose(rows[0, :7], [0, 0, 0, 0, 88.5, 200, 1e30], atol=1e-35)
    assert np.isnan(rows[0, 7])


@few
@shapes
def test_add_bias(seed, tokens, width, threads):
    x, biases = rows_of(seed, tokens, width, 2)
    rows, bias = padded(x), padded(biases[:1])
    run(elementwise.add_bias, threads=threads, count=int64(tokens), x=rows, bias=bias, stride=rows.strides[0],
        vectors=vectors_of(rows))
    assert same_bits(rows[:tokens, :width].copy(), x + biases[0])
    assert not rows[tokens:].any()


@few
@shapes
def test_gather(seed, tokens, width, threads):
    (x,) = rows_of(seed, tokens, width, 1)
    indices = np.random.default_rng(seed).integers(0, tokens, 2 * tokens)
    rows, out = padded(x), padded(np.zeros((2 * tokens, width), np.float32))
    run(elementwise.gather, threads=threads, count=int64(len(indices)), indices=indices, x=rows, out=out,
        stride=rows.strides[0], vectors=vectors_of(rows))
    assert same_bits(out[: len(indices)].copy(), rows[indices])


def test_no_rows_is_no_work():
    rows = padded(np.ones((1, 8), np.float32))
    before = rows.copy()
    run(elementwise.add_bias, count=int64(0), x=rows, bias=rows, stride=rows.strides[0], vectors=vectors_of(rows))
    assert same_bits(rows, before)
