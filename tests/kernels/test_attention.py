"""Attention, the KV cache and RoPE: against float64, for any mixture of sequences in a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.attention import POSITIONS, attention, rope, scratch_size, store_kv
from lcpu.kernels.matmul import whole_groups
from lcpu.kernels.simd import LANES

from . import reference
from .running import few, int64, padded, run, same_bits

SLOTS = 3
head_dims = st.sampled_from([8, 16, 32, 64, 80, 96, 100, 128, 256]) | st.integers(4, 128).map(lambda half: 2 * half)


@dataclass
class Case:
    """Sequences [(slot, position of the first new token, number of new tokens)], and q, k, v of all their positions."""

    sequences: list[tuple[int, int, int]]
    kv_heads: int
    group: int
    head_dim: int
    seed: int

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.capacity = -(-max(start + count for _, start, count in self.sequences) // POSITIONS) * POSITIONS
        shape = (SLOTS, self.capacity, self.kv_heads)
        self.k, self.v = (random.standard_normal((*shape, self.head_dim), dtype=np.float32) for _ in range(2))
        self.q = random.standard_normal((*shape, self.group, self.head_dim), dtype=np.float32)
        self.scale = self.head_dim**-0.5

    @property
    def key_bytes(self) -> int:
        return 2 * self.capacity * self.head_dim

    @property
    def value_bytes(self) -> int:
        return 2 * self.capacity * whole_groups(self.head_dim) * LANES

    def rows(self, values: np.ndarray, tokens: list[tuple[int, int]]) -> np.ndarray:
        """A batch of (slot, position), from values [slot][position]..."""
        return padded(np.stack([values[token].ravel() for token in tokens]))

    def cache(self, *, fill: float = 0.0, threads: int = 1) -> dict[str, np.ndarray | int]:
        """The cache after all positions up to the newest of each sequence, as operands. `fill`: what else is in it."""
        regions = SLOTS * self.kv_heads
        keys, values = (np.full((regions, n // 2), fill, np.float16) for n in (self.key_bytes, self.value_bytes))
        operands = {"keys": keys, "values": values, "key_bytes": self.key_bytes, "value_bytes": self.value_bytes,
                    "capacity": self.capacity}
        tokens = [(slot, p) for slot, start, count in self.sequences for p in range(start + count)]
        slots, positions = np.array(tokens, np.int64).T.copy()
        k, v = self.rows(self.k, tokens), self.rows(self.v, tokens)
        run(store_kv, threads=threads, count=int64(len(tokens)), positions=positions, slots=slots, k=k, v=v,
            stride=k.strides[0], heads=self.kv_heads, head_dim=self.head_dim, **operands)
        return operands

    def new_tokens(self) -> list[tuple[int, int]]:
        return [(slot, start + i) for slot, start, count in self.sequences for i in range(count)]

    def attend(self, cache: dict[str, np.ndarray | int], *, per_job: int, threads: int = 1) -> np.ndarray:
        """The results of all new tokens, float32 [tokens][head][head_dim], at most `per_job` tokens in a job."""
        tokens = self.new_tokens()
        q = self.rows(self.q, tokens)
        out = np.full_like(q, 7)
        jobs, first = [], 0
        for slot, start, count in self.sequences:
            jobs += [(first + i, min(per_job, count - i), slot, start + i) for i in range(0, count, per_job)]
            first += count
        scratch_bytes = scratch_size(per_job * self.group, self.head_dim, self.capacity)
        scratch = np.full((threads, scratch_bytes), 255, np.uint8)  # NaNs: nothing that is used may come from here
        run(attention, threads=threads, count=int64(len(jobs)), jobs=np.array(jobs, np.int64), q=q, out=out,
            stride=q.strides[0], kv_heads=self.kv_heads, group=self.group, head_dim=self.head_dim,
            scratch=scratch, scratch_bytes=scratch_bytes, scale=self.scale, **cache)
        width = self.kv_heads * self.group * self.head_dim
        assert (out[:, width:] == 7).all()
        assert (out[len(tokens) :] == 7).all()
        return out[: len(tokens), :width].reshape(len(tokens), -1, self.head_dim)

    def exact(self) -> tuple[np.ndarray, np.ndarray]:
        """The same in float64, and what rounding a weight the other way to float16 may change."""
        results, slack = [], []
        for slot, position in self.new_tokens():
            seen = slice(0, position + 1)
            for head in range(self.kv_heads):
                keys, values = self.k[slot, seen, head], self.v[slot, seen, head]
                for q in self.q[slot, position, head]:
                    results.append(reference.attention(q, keys, values, self.scale))
                    slack.append(2.0**-11 * abs(values).max(axis=0))
        shape = (-1, self.kv_heads * self.group, self.head_dim)
        return np.reshape(results, shape), np.reshape(slack, shape)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    slots = draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True))
    starts, counts = st.integers(0, 20) | st.integers(100, 300), st.integers(1, 9) | st.integers(10, 40)
    return Case([(slot, draw(starts), draw(counts)) for slot in slots], kv_heads=draw(st.integers(1, 3)),
                group=draw(st.integers(1, 9)), head_dim=draw(head_dims), seed=draw(st.integers(0, 2**32 - 1)))


@few
@given(cases(), st.integers(1, 16), st.integers(1, 3))
def test_close_to_float64(c, per_job, threads):
    wanted, slack = c.exact()
    error = abs(c.attend(c.cache(threads=threads), per_job=per_job, threads=threads) - wanted)
    assert (error <= slack + 1e-5).all()
    assert np.median(error) < 1e-6


@few
@given(cases(), st.integers(2, 16), st.integers(1, 3))
def test_same_bits_for_every_split_and_every_number_of_threads(c, per_job, threads):
    cache = c.cache()
    one_by_one = c.attend(cache, per_job=1)
    assert same_bits(c.attend(cache, per_job=per_job, threads=threads), one_by_one)
    assert same_bits(c.attend(c.cache(threads=threads), per_job=per_job), one_by_one)


@few
@given(cases(), st.integers(1, 16))
def test_what_later_cells_hold_is_ignored(c, per_job):
    wanted = c.attend(c.cache(), per_job=per_job)
    for garbage in (-60000.0, 60000.0):
        assert same_bits(c.attend(c.cache(fill=garbage), per_job=per_job), wanted)


@few
@given(cases())
def test_a_sequence_does_not_see_the_others(c):
    together = c.attend(c.cache(), per_job=4)
    first = 0
    for sequence in c.sequences:
        alone = Case([sequence], c.kv_heads, c.group, c.head_dim, c.seed)
        alone.k, alone.v, alone.q, alone.capacity = c.k, c.v, c.q, c.capacity
        assert same_bits(alone.attend(alone.cache(), per_job=4), together[first : first + sequence[2]].copy())
        first += sequence[2]


@few
@given(cases())
def test_the_cache_is_in_panels(c):
    cache = c.cache(fill=5.0)
    padded_dim = c.value_bytes // 2 // c.capacity
    keys = cache["keys"].reshape(SLOTS, c.kv_heads, -1, c.head_dim, LANES)  # a row for each position
    values = cache["values"].reshape(SLOTS, c.kv_heads, -1, c.capacity, LANES)  # a row for each dimension
    keys = keys.swapaxes(3, 4).reshape(SLOTS, c.kv_heads, c.capacity, c.head_dim)
    values = values.transpose(0, 1, 3, 2, 4).reshape(SLOTS, c.kv_heads, c.capacity, padded_dim)
    filled = np.zeros((SLOTS, c.capacity), bool)
    for slot, start, count in c.sequences:
        filled[slot, : start + count] = True
    for stored, given_values in ((keys, c.k), (values[..., : c.head_dim], c.v)):
        wanted = np.where(filled[:, :, None, None], given_values.astype(np.float16), np.float16(5.0))
        assert (stored.swapaxes(1, 2) == wanted).all()
    assert (values[..., c.head_dim :] == 5).all()


def test_attention_to_one_position_is_its_value():
    c = Case([(1, 0, 1)], kv_heads=2, group=2, head_dim=16, seed=0)
    wanted = np.repeat(reference.f16(c.v[1, 0]), 2, axis=0)[None]
    assert same_bits(c.attend(c.cache(), per_job=1), wanted)


def test_the_cache_saturates():
    c = Case([(0, 0, 2)], kv_heads=1, group=1, head_dim=8, seed=0)
    c.v[0, 0, 0, :4] = [1e9, -1e9, np.inf, -np.inf]
    assert c.attend(c.cache(), per_job=1)[0, 0, :4].tolist() == [65504, -65504, 65504, -65504]
    assert np.isfinite(c.attend(c.cache(), per_job=2)).all()


def test_large_scores_do_not_overflow():
    c = Case([(0, 200, 3)], kv_heads=1, group=2, head_dim=64, seed=0)
    c.q *= 500
    c.k *= 500
    out = c.attend(c.cache(), per_job=2)
    np.testing.assert_allclose(out, c.exact()[0], rtol=1e-3, atol=1e-3)


def test_a_nan_is_not_hidden():
    c = Case([(0, 10, 2)], kv_heads=1, group=1, head_dim=8, seed=0)
    c.q[0, 10] = np.nan
    out = c.attend(c.cache(), per_job=2)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


@pytest.mark.parametrize("halves", [False, True], ids=["neighbours", "halves"])
@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), heads=st.integers(1, 5), head_dim=head_dims,
       part=st.sampled_from([1, 1, 2]), threads=st.integers(1, 3))
def test_rope(halves, seed, tokens, heads, head_dim, part, threads):
    random = np.random.default_rng(seed)
    pairs = max(1, head_dim // 2 // part)  # the rest of a head is not rotated
    x = random.standard_normal((tokens, heads, head_dim), dtype=np.float32)
    positions = random.integers(0, 50, tokens)
    angles = random.uniform(0, 100, (50, pairs))
    table = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    rows = padded(x.reshape(tokens, -1))
    step, distance = (1, pairs) if halves else (2, 1)
    run(rope, threads=threads, count=int64(tokens), positions=positions, x=rows, x_stride=rows.strides[0],
        heads=heads, head_dim=head_dim, table=table, pairs=pairs, step=step, distance=distance)
    got = rows[:tokens, : heads * head_dim].reshape(x.shape)
    np.testing.assert_allclose(got, reference.rope(x, positions, angles, halves), rtol=0, atol=2e-6)
    assert same_bits(got[..., 2 * pairs :].copy(), x[..., 2 * pairs :].copy())
    assert not rows[tokens:].any()
