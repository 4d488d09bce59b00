"""Attention and storing into pages: against float64, for any mixture of sequences, batches, threads and pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.attention import SHARES, SPAN, attention, partial_size, scratch_size, store
from lcpu.kernels.pages import PAGES, POSITIONS, PageType

from . import reference
from .running import few, head_dims, int64, padded, run, same_bits

SLOTS = 3
F16, Q8_0 = PAGES["f16"], PAGES["q8_0"]
TYPES = pytest.mark.parametrize(("keys", "values"), [(F16, F16), (Q8_0, Q8_0)], ids=["f16", "q8_0"])
EVERYTHING = 1 << 40  # a window that hides nothing


@dataclass
class Case:
    """Sequences [(slot, position of the first new token, number of new tokens)], and q, k, v of all their positions."""

    sequences: list[tuple[int, int, int]]
    kv_heads: int
    group: int
    head_dim: int
    seed: int
    window: int = EVERYTHING
    cap: float = 0.0
    sinks: bool = False
    unlike: float = 0.0  # dimensions of keys differ by up to e ** (2 * unlike), and balance makes up for it
    types: tuple[PageType, PageType] = field(default=(F16, F16), repr=False)
    k: np.ndarray = field(init=False)
    v: np.ndarray = field(init=False)
    q: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.pages = -(-max(start + count for _, start, count in self.sequences) // POSITIONS)
        shape = (SLOTS, self.pages * POSITIONS, self.kv_heads)
        self.k, self.v = (random.standard_normal((*shape, self.head_dim), dtype=np.float32) for _ in range(2))
        self.q = random.standard_normal((*shape, self.group, self.head_dim), dtype=np.float32)
        self.sink = random.standard_normal((self.kv_heads, self.group), dtype=np.float32)
        self.scale = self.head_dim**-0.5
        self.balance = np.ones((self.kv_heads, 2, self.head_dim), np.float32)
        self.balance[:, 0] = np.exp(random.uniform(-self.unlike, self.unlike, (self.kv_heads, self.head_dim)))
        self.balance[:, 1] = 1 / self.balance[:, 0]
        self.k *= self.balance[:, 0]
        self.q *= self.balance[:, None, 1]

    def rows(self, values: np.ndarray, tokens: list[tuple[int, int]]) -> np.ndarray:
        """A batch of (slot, position), from values [slot][position]..."""
        return padded(np.stack([values[token].ravel() for token in tokens]))

    def stored(self, *, order: int = 0, fill: float = 0.0, threads: int = 1) -> dict[str, Any]:
        """The pages after all positions up to the newest of each sequence, as operands. order: of pages in memory;
        fill: what else is in them."""
        keys, values = self.types
        key_bytes, value_bytes = keys.key_bytes(self.head_dim), values.value_bytes(self.head_dim)
        count = SLOTS * self.pages
        tables = np.random.default_rng(order).permutation(count).reshape(SLOTS, self.pages).astype(np.int64)
        page_bytes = self.kv_heads * (key_bytes + value_bytes) + 64
        pages = np.full(count * page_bytes // 2, fill, np.float16).view(np.uint8)
        balance = self.balance if keys.balanced else 0
        operands = {"balance": balance, "tables": tables, "table_bytes": tables.strides[0], "pages": pages,
                    "page_bytes": page_bytes, "key_bytes": key_bytes, "value_bytes": value_bytes}
        tokens = [(slot, p) for slot, start, count in self.sequences for p in range(start + count)]
        slots, positions = np.array(tokens, np.int64).T.copy()
        k, v = self.rows(self.k, tokens), self.rows(self.v, tokens)
        run(store(keys, values), threads=threads, count=int64(len(tokens)), positions=positions, slots=slots, k=k, v=v,
            stride=k.strides[0], heads=self.kv_heads, head_dim=self.head_dim, **operands)
        return operands

    def new_tokens(self) -> list[tuple[int, int]]:
        return [(slot, start + i) for slot, start, count in self.sequences for i in range(count)]

    def attend(self, stored: dict[str, Any], *, per_job: int, threads: int = 1) -> np.ndarray:
        """The results of all new tokens, float32 [tokens][head][head_dim], at most `per_job` tokens in a job."""
        keys, values = self.types
        tokens = self.new_tokens()
        q = self.rows(self.q, tokens)
        out = np.full_like(q, 7)
        jobs, first = [], 0
        for slot, start, count in self.sequences:
            jobs += [(first + i, min(per_job, count - i), slot, start + i) for i in range(0, count, per_job)]
            first += count
        deepest = max(start + count - 1 for _, start, count in self.sequences) // SPAN + 1
        rows = per_job * self.group
        bad = {"dtype": np.uint8, "fill_value": 255}  # NaNs: nothing that is used may come from here
        scratch = np.full((threads, scratch_size(keys, rows, self.head_dim)), **bad)
        partials = np.full((SHARES * threads, deepest, partial_size(rows, self.head_dim)), **bad)
        finished = np.zeros((SHARES * threads, 8), np.int64)
        run(attention(keys, values), threads=threads, count=int64(len(jobs)), jobs=np.array(jobs, np.int64),
            deepest=int64(deepest), q=q, out=out, stride=q.strides[0], kv_heads=self.kv_heads, group=self.group,
            head_dim=self.head_dim, query_bytes=keys.query_bytes(self.head_dim),
            key_blocks=self.head_dim // keys.key_block, scratch=scratch, scratch_bytes=scratch.strides[0],
            partials=partials, most_spans=deepest, partial_bytes=partials.strides[1], finished=finished,
            scale=self.scale, window=self.window, cap=self.cap, sinks=self.sink if self.sinks else 0, **stored)
        width = self.kv_heads * self.group * self.head_dim
        assert (out[:, width:] == 7).all()
        assert (out[len(tokens) :] == 7).all()
        assert not finished.any()
        return out[: len(tokens), :width].reshape(len(tokens), -1, self.head_dim)

    def exact(self) -> np.ndarray:
        """The same in float64, of keys and values as pages hold them."""
        results = []
        for slot, position in self.new_tokens():
            seen = slice(max(0, position + 1 - self.window), position + 1)
            for head in range(self.kv_heads):
                k, v = self.k[slot, seen, head], self.v[slot, seen, head]
                q8_0 = self.types[0] is Q8_0
                more, less = self.balance[head]
                k, v = (quantized(k * less) * more, quantized(v)) if q8_0 else (reference.f16(k), reference.f16(v))
                for q, sink in zip(self.q[slot, position, head], self.sink[head], strict=True):
                    q = q if q8_0 else reference.f16(q)
                    results.append(reference.attention(q, k, v, self.scale, self.cap, sink if self.sinks else None))
        return np.reshape(results, (-1, self.kv_heads * self.group, self.head_dim))


def quantized(x: np.ndarray) -> np.ndarray:
    """float32 rows as int8 with a scale each."""
    scale = abs(x).max(axis=-1, keepdims=True) / np.float32(127)
    return np.rint(x / scale) * scale


@st.composite
def cases(draw: st.DrawFn, types: tuple[PageType, PageType] = (F16, F16)) -> Case:
    slots = draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True))
    starts = st.integers(0, 20) | st.integers(100, 300) | st.integers(SPAN - 20, SPAN + 20) | st.just(3 * SPAN - 5)
    counts = st.integers(1, 9) | st.integers(10, 40)
    dims = head_dims if types[0] is F16 else st.sampled_from([16, 64, 80, 96, 128, 256])
    return Case([(slot, draw(starts), draw(counts)) for slot in slots], kv_heads=draw(st.integers(1, 3)),
                group=draw(st.integers(1, 9)), head_dim=draw(dims), seed=draw(st.integers(0, 2**32 - 1)),
                window=draw(st.just(EVERYTHING) | st.integers(1, 700)), cap=draw(st.sampled_from([0.0, 0.0, 2.0])),
                sinks=draw(st.booleans()), unlike=draw(st.sampled_from([0.0, 3.0])), types=types)


@TYPES
@few
@given(data=st.data(), per_job=st.integers(1, 16), threads=st.integers(1, 3))
def test_close_to_float64(keys, values, data, per_job, threads):
    c = data.draw(cases((keys, values)))
    error = abs(c.attend(c.stored(threads=threads), per_job=per_job, threads=threads) - c.exact())
    # On F16 pages, weights are rounded to float16. On Q8_0 pages, queries have 15 bits and weights at least 14, but a
    # code of a key that is rounded the other way in float32 changes a score a little.
    assert error.max() <= (2.5e-3 if keys is F16 else 1e-2)
    assert np.median(error) < (2e-4 if keys is F16 else 3e-4)


@TYPES
@few
@given(data=st.data(), per_job=st.integers(2, 16), threads=st.integers(1, 8))
def test_same_bits_for_every_batch_and_every_number_of_threads_and_wherever_pages_lie(keys, values, data, per_job,
                                                                                     threads):
    c = data.draw(cases((keys, values)))
    one_by_one = c.attend(c.stored(), per_job=1)
    assert same_bits(c.attend(c.stored(order=1), per_job=per_job, threads=threads), one_by_one)
    assert same_bits(c.attend(c.stored(threads=2), per_job=per_job), one_by_one)


@TYPES
@pytest.mark.parametrize("window", [EVERYTHING, 1000])
def test_threads_share_a_long_sequence(keys, values, window):
    c = Case([(1, 5 * SPAN + 100, 1)], kv_heads=2, group=3, head_dim=64, seed=1, window=window, types=(keys, values))
    stored = c.stored()
    alone = c.attend(stored, per_job=1)
    for threads in (2, 3, 16):
        assert same_bits(c.attend(stored, per_job=1, threads=threads), alone)
    together = Case([(1, 5 * SPAN + 90, 11)], kv_heads=2, group=3, head_dim=64, seed=1, window=window,
                    types=(keys, values))
    together.k, together.v, together.q = c.k, c.v, c.q
    assert same_bits(together.attend(stored, per_job=5, threads=2)[-1:].copy(), alone)


@TYPES
@few
@given(data=st.data(), per_job=st.integers(1, 16))
def test_what_later_cells_hold_is_ignored(keys, values, data, per_job):
    c = data.draw(cases((keys, values)))
    wanted = c.attend(c.stored(), per_job=per_job)
    for garbage in (-60000.0, 60000.0, np.nan):
        assert same_bits(c.attend(c.stored(fill=garbage), per_job=per_job), wanted)


@few
@given(cases())
def test_a_sequence_does_not_see_the_others(c):
    together = c.attend(c.stored(), per_job=4)
    first = 0
    for sequence in c.sequences:
        alone = Case([sequence], c.kv_heads, c.group, c.head_dim, c.seed, c.window, c.cap, c.sinks)
        alone.k, alone.v, alone.q, alone.sink, alone.pages = c.k, c.v, c.q, c.sink, c.pages
        assert same_bits(alone.attend(alone.stored(), per_job=4), together[first : first + sequence[2]].copy())
        first += sequence[2]


@TYPES
def test_attention_to_one_position_is_its_value(keys, values):
    c = Case([(1, 0, 1)], kv_heads=2, group=2, head_dim=32, seed=0, types=(keys, values))
    wanted = reference.f16(c.v[1, 0]) if values is F16 else quantized(c.v[1, 0])
    np.testing.assert_allclose(c.attend(c.stored(), per_job=1)[0], np.repeat(wanted, 2, axis=0), rtol=1e-6)


@TYPES
def test_pages_saturate(keys, values):
    c = Case([(0, 0, 2)], kv_heads=1, group=1, head_dim=32, seed=0, types=(keys, values))
    c.v[0, 0, 0, :4] = [1e9, -1e9, np.inf, -np.inf]
    first = c.attend(c.stored(), per_job=1)[0, 0, :4]
    if values is F16:
        assert first.tolist() == [65504, -65504, 65504, -65504]
    assert np.isfinite(c.attend(c.stored(), per_job=2)).all()


def test_large_scores_do_not_overflow():
    c = Case([(0, 200, 3)], kv_heads=1, group=2, head_dim=64, seed=0)
    c.q *= 500
    c.k *= 500
    np.testing.assert_allclose(c.attend(c.stored(), per_job=2), c.exact(), rtol=2e-3, atol=2e-3)


@TYPES
def test_a_nan_is_not_hidden(keys, values):
    c = Case([(0, 10, 2)], kv_heads=1, group=1, head_dim=32, seed=0, types=(keys, values))
    c.q[0, 10] = np.nan
    out = c.attend(c.stored(), per_job=2)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()
    c.v[0, 3, 0, 7] = np.nan
    assert np.isnan(c.attend(c.stored(), per_job=1)[1]).any()
