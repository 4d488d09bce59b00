"""Mixtures of experts: the router against NumPy, and every product the same to the bit as that of its token alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.activations import INT8
from lcpu.kernels.experts import (
    SIGMOID,
    SOFTMAX,
    SOFTMAX_OF_CHOSEN,
    add_expert_bias,
    add_weighted,
    gather_rows,
    route,
)
from lcpu.kernels.formats import FORMATS, Format
from lcpu.kernels.matmul import MAX_TOKENS, PANEL_GROUP, whole_groups
from lcpu.kernels.simd import LANES, PAIRS

from .running import (
    few,
    int64,
    multiply,
    pack,
    padded,
    prepare,
    random_blocks,
    row_by_row,
    rows_from,
    run,
    same_bits,
    vectors_of,
)

SCORINGS = (SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN)
GUARD = -7
# The loops over experts are the same for all formats: one for each form of activations.
one_of_each = pytest.mark.parametrize("format", [FORMATS[type_id] for type_id in (0, 8, 12, 30, 36, 39)],
                                      ids=lambda f: f.name)


@dataclass
class Routed:
    """The results of `route`, without what lies behind them."""

    chosen: np.ndarray  # int64 [tokens][used]
    weights: np.ndarray  # float32 [tokens][used]
    places: np.ndarray  # int64 [tokens][used]
    groups: np.ndarray  # int64 [3 + 3 * experts], as the kernel lays them out
    rows: np.ndarray  # int64 [rows][2]

    @property
    def table(self) -> np.ndarray:
        """Expert, first row and number of tokens of each group."""
        return self.groups[3 : 3 + 3 * self.groups[1]].reshape(-1, 3)


def routed(scores: np.ndarray, used: int, *, scoring: int = SOFTMAX, bias: np.ndarray | None = None,
           renormalize: bool = False, factor: float = 1.0, factors: np.ndarray | None = None,
           threads: int = 1) -> Routed:
    tokens, experts = scores.shape
    capacity = tokens * used + (MAX_TOKENS // 2 - 1) * experts
    chosen, places = np.full((2, tokens + 1, used), GUARD)
    weights = np.full((tokens + 1, -(-used // LANES) * LANES), GUARD, np.float32)
    groups, rows = np.full(3 + 3 * experts, GUARD), np.full((capacity + 1, 2), GUARD)
    source, finished = padded(scores, spare=0), int64(0)
    run(route, threads=threads, count=int64(tokens), scores=source, stride=source.strides[0], experts=experts,
        used=used, scoring=scoring, bias=0 if bias is None else padded(bias[None], spare=0),
        renormalize=renormalize, factor=factor, factors=0 if factors is None else padded(factors[None], spare=0),
        chosen=chosen, weights=weights, weights_stride=weights.strides[0],
        places=places, groups=groups, rows=rows, ranks=np.empty((threads, source.shape[1]), np.float32),
        ranks_bytes=source.strides[0], next_rows=np.zeros(experts, np.int64), finished=finished)
    assert finished[0] == 0
    assert all((each[tokens:] == GUARD).all() for each in (chosen, places, weights))
    assert (rows[groups[0] :] == GUARD).all()
    return Routed(chosen[:tokens], weights[:tokens, :used], places[:tokens], groups, rows[: groups[0]])


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def values_of(scores: np.ndarray, scoring: int) -> np.ndarray:
    """What ranks experts before a bias, float64 [tokens][experts]."""
    scores = scores.astype(np.float64)
    return {SOFTMAX: softmax, SIGMOID: lambda x: 1 / (1 + np.exp(-x)), SOFTMAX_OF_CHOSEN: lambda x: x}[scoring](scores)


def weights_of(values: np.ndarray, scoring: int, renormalize: bool, factor: float) -> np.ndarray:
    """The weights of chosen experts, from what ranks them, float64 [tokens][used]."""
    weights = softmax(values) if scoring == SOFTMAX_OF_CHOSEN else values
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 2**-14) if renormalize else weights) * factor


shapes = given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 600), experts=st.integers(1, 160),
               used=st.integers(1, 20), threads=st.integers(1, 3))


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("scoring", SCORINGS)
@few
@shapes
def test_the_highest_are_chosen_and_weighed(scoring, with_bias, renormalize, seed, tokens, experts, used, threads):
    random = np.random.default_rng(seed)
    used, factor = min(used, experts), float(random.uniform(0.5, 3))
    scores = (2 * random.standard_normal((tokens, experts))).astype(np.float32)
    bias = random.standard_normal(experts).astype(np.float32) if with_bias else None
    result = routed(scores, used, scoring=scoring, bias=bias, renormalize=renormalize, factor=factor, threads=threads)
    values = values_of(scores, scoring)
    ranks = values + (bias if with_bias else 0)
    own = np.take_along_axis(ranks, result.chosen, axis=1)
    wanted = -np.sort(-ranks, axis=1)[:, :used]  # float32 may swap what is equal but for its last bits
    assert np.abs(own - wanted).max() < 1e-5
    assert all(len(set(ids)) == used for ids in result.chosen.tolist())
    expected = weights_of(np.take_along_axis(values, result.chosen, axis=1), scoring, renormalize, factor)
    assert np.abs(result.weights - expected).max() < 2e-6 * factor


@pytest.mark.parametrize("scoring", SCORINGS)
@few
@shapes
def test_of_equals_the_lower_id_is_chosen(scoring, seed, tokens, experts, used, threads):
    scores = np.random.default_rng(seed).integers(-2, 3, (tokens, experts)).astype(np.float32)
    used = min(used, experts)
    result = routed(scores, used, scoring=scoring, threads=threads)
    assert (result.chosen == np.argsort(-scores, axis=1, kind="stable")[:, :used]).all()


def test_a_bias_chooses_but_does_not_weigh():
    scores = np.array([[2, 1, 0, -1]], np.float32)
    result = routed(scores, 2, scoring=SIGMOID, bias=np.array([0, 0, 0, 1], np.float32))
    assert result.chosen.tolist() == [[3, 0]]
    assert np.allclose(result.weights, 1 / (1 + np.exp([[1, -2]])))


def test_each_expert_has_a_factor():
    scores = np.array([[2, 1, 0, -1], [-1, 3, 0, 2]], np.float32)
    factors = np.array([10, 20, 30, 40], np.float32)
    plain = routed(scores, 2, scoring=SOFTMAX, renormalize=True)
    scaled = routed(scores, 2, scoring=SOFTMAX, renormalize=True, factors=factors)
    assert scaled.chosen.tolist() == [[0, 1], [1, 3]]
    assert np.allclose(scaled.weights, plain.weights * [[10, 20], [20, 40]])


def test_weights_near_zero_are_not_blown_up():
    """Divided by at least the smallest normal float16, as in llama.cpp."""
    weights = routed(np.full((1, 8), -30, np.float32), 2, scoring=SIGMOID, renormalize=True).weights
    assert np.allclose(weights, 2**14 / (1 + np.exp(30)))


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 600), experts=st.integers(1, 160),
       used=st.integers(1, 20), threads=st.integers(1, 3), skew=st.sampled_from([0, 1, 100]))
def test_every_pair_has_a_row_in_the_group_of_its_expert(seed, tokens, experts, used, threads, skew):
    """skew: how much more likely the first experts are; with 100, all tokens have the same."""
    random = np.random.default_rng(seed)
    used = min(used, experts)
    scores = (random.standard_normal((tokens, experts)) - skew * np.arange(experts)).astype(np.float32)
    result = routed(scores, used, scoring=SOFTMAX_OF_CHOSEN, threads=threads)
    ids, counts = np.unique(result.chosen, return_counts=True)
    assert result.groups[1] == len(ids)
    assert result.groups[2] == counts.max()
    next_row = 0
    for (expert, first, count), wanted, tokens_of_expert in zip(result.table, ids, counts, strict=True):
        left = count % MAX_TOKENS
        spare = next(size for size in ((0, 2, 4, 8) if PAIRS else (0, 1, 2, 4, 8, 16)) if size >= left) - left
        assert (expert, first, count) == (wanted, next_row, tokens_of_expert)
        members = result.rows[first : first + count]
        assert (members[:, 1] == expert).all()
        assert (np.diff(members[:, 0]) > 0).all()
        assert (result.rows[first + count : first + count + spare] == members[0]).all()
        next_row = first + count + spare
    assert result.groups[0] == next_row
    assert (result.rows[result.places, 0] == np.arange(tokens)[:, None]).all()
    assert (result.rows[result.places, 1] == result.chosen).all()


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_spoils_its_token_alone(scoring, bad):
    scores = np.random.default_rng(1).standard_normal((9, 20)).astype(np.float32)
    good = routed(scores, 5, scoring=scoring)
    scores[3, 11] = bad
    scores[6] = bad
    result = routed(scores, 5, scoring=scoring)
    kept = np.isin(np.arange(9), (3, 6), invert=True)
    assert np.isnan(result.weights[~kept]).all()
    assert same_bits(result.weights[kept], good.weights[kept])
    assert (result.chosen[kept] == good.chosen[kept]).all()
    assert all(len({*ids} & {*range(20)}) == 5 for ids in result.chosen.tolist())


@few
@shapes
def test_a_token_is_routed_as_if_alone(seed, tokens, experts, used, threads):
    random = np.random.default_rng(seed)
    scores = random.standard_normal((tokens, experts)).astype(np.float32)
    used, token = min(used, experts), random.integers(tokens)
    for scoring in SCORINGS:
        together, alone = routed(scores, used, scoring=scoring, threads=threads), routed(
            scores[token : token + 1], used, scoring=scoring)
        assert same_bits(together.chosen[token], alone.chosen[0])
        assert same_bits(together.weights[token], alone.weights[0])


@pytest.mark.parametrize("int8", [False, True])
@few
@given(seed=st.integers(0, 2**32 - 1), words=st.integers(1, 200), threads=st.integers(1, 3))
def test_gathered_rows_are_copies(int8, seed, words, threads):
    random, words = np.random.default_rng(seed), 2 * words if int8 else words
    x = random.integers(0, 2**31, (18, words), np.int32)
    rows = random.integers(0, 18, (41, 2))
    out = np.full((42, words), GUARD, np.int32)
    run(gather_rows, threads=threads, groups=int64(41), rows=rows, x=x, x_stride=4 * words, out=out,
        out_stride=4 * words, nbytes=4 * words, int8=int8)
    source, target = (row_by_row(array.view(np.uint8)) if int8 else array.view(np.uint8) for array in (x, out))
    assert (target[:41] == source[rows[:, 0]]).all()
    assert (target[41].view(np.int32) == GUARD).all()


@few
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 200), threads=st.integers(1, 3))
def test_each_row_gets_the_bias_of_its_expert(seed, width, threads):
    random = np.random.default_rng(seed)
    x, bias = (padded(random.standard_normal((n, width)).astype(np.float32), spare=0) for n in (30, 6))
    rows = random.integers(0, 6, (30, 2))
    expected = x + bias[rows[:, 1]]
    run(add_expert_bias, threads=threads, groups=int64(30), rows=rows, x=x, stride=x.strides[0], bias=bias,
        bias_stride=bias.strides[0], vectors=vectors_of(x))
    assert same_bits(x, expected)


@pytest.mark.parametrize("accumulate", [True, False])
@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 50), width=st.integers(1, 1500), used=st.integers(1, 9),
       threads=st.integers(1, 3))
def test_results_are_summed_in_the_order_of_the_router(accumulate, seed, tokens, width, used, threads):
    random = np.random.default_rng(seed)
    x = padded(random.standard_normal((tokens * used, width)).astype(np.float32), spare=0)
    out = padded(random.standard_normal((tokens, width)).astype(np.float32), spare=0)
    weights = random.uniform(0, 1, (tokens, used)).astype(np.float32)
    places = random.permutation(tokens * used).reshape(tokens, used)
    total = np.zeros_like(out)
    for i in range(used):  # the product in float64 is exact, so this is rounded as a fused multiply-add, but for ties
        total = (total + x[places[:, i]].astype(np.float64) * weights[:, i : i + 1]).astype(np.float32)
    expected = out + total if accumulate else total
    run(add_weighted, threads=threads, count=int64(tokens), used=used, places=places, weights=weights,
        weights_stride=weights.strides[0], x=x, x_stride=x.strides[0], out=out, out_stride=out.strides[0],
        vectors=vectors_of(out), accumulate=accumulate)
    assert np.mean(out == expected) > 0.999
    assert np.allclose(out, expected, rtol=1e-6, atol=1e-6)


@one_of_each
@few
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 150), length=st.integers(1, 600), tokens=st.integers(1, 40),
       experts=st.integers(1, 9), used=st.integers(1, 4), skew=st.sampled_from([0, 100]), threads=st.integers(1, 3),
       share=st.integers(1, 3).map(lambda groups: groups * PANEL_GROUP))
def test_products_are_those_of_each_token_alone(format: Format, seed, rows, length, tokens, experts, used, skew,
                                                threads, share):
    """To the bit. `multiply`, one token at a time, is tested against float64 elsewhere."""
    random = np.random.default_rng(seed)
    k = length if format.block == 1 else format.block * (1 + length % (600 // format.block))
    used = min(used, experts)
    panels = np.stack([pack(format, random_blocks(format, rows, k, random), k) for _ in range(experts)])
    x = prepare(format.activation, random.standard_normal((tokens, k)).astype(np.float32))
    scores = (random.standard_normal((tokens, experts)) - skew * np.arange(experts)).astype(np.float32)
    routing = routed(scores, used)
    gathered = np.empty((len(routing.rows), x.shape[1]), x.dtype)
    run(gather_rows, groups=routing.groups, rows=routing.rows, x=x, x_stride=x.strides[0], out=gathered,
        out_stride=x.strides[0], nbytes=x.strides[0], int8=isinstance(format.activation, INT8))
    width = whole_groups(rows) * LANES
    out = np.full((len(routing.rows) + 1, width + 1), GUARD, np.float32)
    run(format.matmul_experts, threads=threads, groups=routing.groups, weights=panels, x=gathered, out=out,
        x_stride=gathered.strides[0], out_stride=out.strides[0], panels=panels.shape[1],
        panel_stride=panels.strides[1], blocks=k // format.block, share=share)
    assert (out[-1] == GUARD).all()
    assert (out[:, -1] == GUARD).all()
    alone = np.zeros((1 + 8, width), np.float32)
    product = partial(multiply, format, out=alone, k=k, tokens=[1])
    for token in range(tokens):
        for expert, place in zip(routing.chosen[token], routing.places[token], strict=True):
            product(panels=panels[expert], x=rows_from(token, x, format))
            assert same_bits(out[place, :rows].copy(), alone[0, :rows].copy())
