"""Rounding of activations: int8 blocks as the docstring says, and float16."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels import activations
from lcpu.kernels.activations import (
    BIAS,
    BIAS_BYTES,
    BIASES,
    LARGE_BYTES,
    LARGE_SCALE,
    MOST_OF_16,
    ROW_BIAS,
    ROW_VALUES,
    SCALE,
    SUM,
    SUMS,
    BFloat16Pairs,
    Float32,
    Int8Blocks,
    Int8Rows,
    LargeInt8Blocks,
)
from lcpu.kernels.formats import FORMATS
from lcpu.kernels.simd import BIAS_BASE, PAIRS

from . import reference
from .running import few, int64, padded, place_in_row, prepare, row_by_row, run, same_bits, vectors_of

KINDS = [Int8Blocks(offset=0), Int8Blocks(offset=8), Int8Blocks(offset=128), Int8Blocks(offset=32, group=16)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.offset}-{k.group}")


def quantized(kind: Int8Blocks, x: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 [tokens][blocks][32], scales [tokens][blocks], biases [tokens][blocks][32 / group]"""
    rows = row_by_row(prepare(kind, x, threads=threads))
    assert not rows[len(x) :].any()  # nothing is written past the last token
    blocks = rows[: len(x)].reshape(len(x), -1, kind.block_bytes)
    values, scales, biases = np.split(blocks, [place_in_row(SCALE), place_in_row(BIAS)], axis=2)
    lanes = biases.copy().view(np.int32).reshape(*biases.shape[:2], -1, place_in_row(BIAS_BYTES) // 4)
    assert (lanes == lanes[..., :1]).all()
    return values.view(np.int8), once(scales, np.float32), lanes[..., 0] - np.int32(BIAS_BASE)


def once(numbers: np.ndarray, dtype: type) -> np.ndarray:
    """[...]: of bytes [...][numbers], where all numbers are the same."""
    numbers = numbers.copy().view(dtype)
    assert same_bits(numbers, np.repeat(numbers[..., :1], numbers.shape[-1], axis=-1))
    return numbers[..., 0]


@every_kind
@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 40), blocks=st.integers(1, 9), threads=st.integers(1, 3),
       exponent=st.integers(-30, 20))
def test_as_the_twin(kind, seed, tokens, blocks, threads, exponent):
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, 32 * blocks), dtype=np.float32) * np.float32(2.0**exponent)
    for got, wanted in zip(quantized(kind, x, threads), reference.quantize(x, kind.offset, kind.group), strict=True):
        assert (got == wanted).all()


def test_the_twin_by_hand():
    x = np.zeros((1, 32), np.float32)
    x[0, :6] = [-127, 2.5, 3.5, -0.5, 126.4, 1]
    values, scales, biases = reference.quantize(x, offset=8, group=16)
    assert values[0, 0, :6].tolist() == [-127, 2, 4, 0, 126, 1]
    assert scales.tolist() == [[1.0]]
    assert biases.tolist() == [[[-8 * 6, 0]]]


@every_kind
def test_half_way_goes_to_even(kind):
    x = np.concatenate([[127], np.arange(-15, 16) + 0.5]).astype(np.float32)[None]
    values, scales, _ = quantized(kind, x)
    assert (values[0, 0] == np.rint(x[0])).all()
    assert scales[0, 0] == 1


@every_kind
def test_zeros_stay_zeros(kind):
    x = np.zeros((2, 64), np.float32)
    x[1, 3] = -0.0
    for got in quantized(kind, x):
        assert not got.any()


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 9, 17, 31])
def test_what_is_not_finite_poisons_its_own_block_only(kind, bad, at):
    x = np.ones((1, 96), np.float32)
    x[0, 32 + at] = bad
    values, scales, _ = quantized(kind, x)
    assert np.isnan(scales[0]).tolist() == [False, True, False]
    assert (values[0, [0, 2]] == 127).all()
    assert (scales[0, [0, 2]] == np.float32(np.float16(1 / 127))).all()


@every_kind
def test_activations_too_small_for_a_scale_count_as_zero(kind):
    x = np.full((1, 32), 1e-38, np.float32)
    _, scales, _ = quantized(kind, x)
    assert scales[0, 0] == 0


def test_formats_that_share_an_activation_agree_on_its_layout():
    for format in FORMATS.values():
        if isinstance(format.activation, Int8Blocks):
            assert format.block % 32 == 0
            biases = BIAS - SCALE if format.activation.summed else BIAS_BYTES * 32 // format.activation.group
            assert format.activation.block_bytes == place_in_row(BIAS) + place_in_row(biases)


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), blocks=st.integers(1, 6), threads=st.integers(1, 3))
def test_sums_of_blocks(seed, tokens, blocks, threads):
    x = np.random.default_rng(seed).standard_normal((tokens, 32 * blocks), dtype=np.float32)
    kind = Int8Blocks(summed=True)
    out = row_by_row(prepare(kind, x, threads=threads))[:tokens].reshape(tokens, blocks, kind.block_bytes)
    values, scales, _ = quantized(Int8Blocks(), x)
    plain = row_by_row(prepare(Int8Blocks(), x))[:tokens].reshape(tokens, blocks, Int8Blocks().block_bytes)
    before, sums = np.split(out, [place_in_row(SUM)], axis=2)
    assert same_bits(before.copy(), plain[..., : place_in_row(SUM)].copy())
    assert same_bits(once(sums, np.float32), scales * values.sum(axis=2, dtype=np.float32))


def quantized_large(x: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """int8 [tokens][blocks][256], scales [tokens][blocks], sums [tokens][blocks][8], biases [tokens][blocks][16]"""
    rows = row_by_row(prepare(LargeInt8Blocks(), x, threads=threads))
    assert not rows[len(x) :].any()  # nothing is written past the last token
    blocks = rows[: len(x)].reshape(len(x), -1, place_in_row(LARGE_BYTES))
    runs, scales, sums = np.split(blocks, [place_in_row(LARGE_SCALE), place_in_row(SUMS)], axis=2)
    values, biases, starts = np.split(runs.reshape(*runs.shape[:2], 4, -1),
                                      [place_in_row(BIASES), place_in_row(BIASES) + 8], axis=3)
    values, biases = (part.reshape(*part.shape[:2], -1) for part in (values, biases))
    if PAIRS:
        starts = once(starts.reshape(*starts.shape[:2], 16, 8), np.int32)
        assert (starts == biases.copy().view(np.int16)).all()
    sums = sums.reshape(*sums.shape[:2], 4, -1)[..., :4].reshape(*sums.shape[:2], -1)
    return values.view(np.int8), once(scales, np.float32), sums.copy().view(np.int16), biases.view(np.int16)


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 40), blocks=st.integers(1, 3), threads=st.integers(1, 3),
       exponent=st.integers(-30, 20))
def test_large_blocks(seed, tokens, blocks, threads, exponent):
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, 256 * blocks), dtype=np.float32) * np.float32(2.0**exponent)
    x[0, :256] = random.choice([0, -0.0, 2.0**exponent, -(2.0**exponent)])  # the largest sums that there are, or none
    for got, wanted in zip(quantized_large(x, threads), reference.quantize_large(x), strict=True):
        assert same_bits(got.copy(), wanted)


@few
@given(seed=st.integers(0, 2**32 - 1), flat=st.integers(1, 256), exponent=st.integers(-3, 0))
def test_no_16_values_of_a_large_block_add_up_to_more(seed, flat, exponent):
    """Not even if `flat` values are all large. Only then is the scale larger than 127 steps to the peak need."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((1, 256), dtype=np.float32)
    x[0, :flat] = abs(x).max() * random.choice([-1, 1], flat) * random.uniform(2.0**exponent, 1, flat)
    values, scales, *_ = quantized_large(x)
    sums = abs(values[0, 0].astype(int)).reshape(16, 16).sum(axis=1)
    assert sums.max() <= MOST_OF_16
    assert abs(values).max() == 127 or sums.max() > MOST_OF_16 - 40
    assert (abs(values[0] * scales[0, 0] - x) <= scales[0, 0] * 0.5001).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 9, 100, 255])
def test_what_is_not_finite_poisons_its_own_large_block_only(bad, at):
    x = np.arange(768, dtype=np.float32)[None] % 16
    x[0, 256 + at] = bad
    alone, (values, scales, sums, biases) = quantized_large(x[:, :256].copy()), quantized_large(x)
    assert np.isnan(scales[0]).tolist() == [False, True, False]
    for got, wanted in zip((values, scales, sums, biases), alone, strict=True):
        assert (got[0, [0, 2]] == wanted[0, 0]).all()


def test_values_too_small_for_the_scale_of_a_large_block_count_as_zero():
    x = np.full((1, 768), 1e-38, np.float32)
    x[0, 256:512], x[0, 512:] = 1e-44, 1e-35
    _, scales, *_ = quantized_large(x)
    assert scales[0, :2].tolist() == [0, 0]
    assert np.isfinite(scales[0, 2])
    assert scales[0, 2] > 0


def quantized_rows(x, offset=1, threads=1):
    """int8 [tokens][k], scales [tokens], biases [tokens]"""
    out = row_by_row(prepare(Int8Rows(offset), x, threads=threads))[: len(x)]
    scales, biases, values = np.split(out, [place_in_row(ROW_BIAS), place_in_row(ROW_VALUES)], axis=1)
    return values.view(np.int8).copy(), once(scales, np.float32), once(biases, np.int32)


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), blocks=st.integers(1, 6), threads=st.integers(1, 3))
def test_rows_with_one_scale(seed, tokens, blocks, threads):
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, 128 * blocks), dtype=np.float32) * np.float32(10.0 ** random.integers(-7, 4))
    for got, wanted in zip(quantized_rows(x, 3, threads), reference.quantize_rows(x, 3), strict=True):
        assert same_bits(got, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_poisons_its_own_row_only(bad):
    x = np.ones((3, 128), np.float32)
    x[1, 77] = bad
    values, scales, _ = quantized_rows(x)
    assert np.isnan(scales).tolist() == [False, True, False]
    assert (values[[0, 2]] == 127).all()


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), width=st.integers(1, 100), threads=st.integers(1, 3))
def test_round_rows(seed, tokens, width, threads):
    x = np.random.default_rng(seed).integers(0, 1 << 32, (tokens, width), dtype=np.uint32).view(np.float32)
    x = np.where(np.isnan(x), np.float32(1), x)  # every other pattern of bits may come up
    out = prepare(Float32(rounded=True), x, threads=threads)
    assert same_bits(out[:tokens, :width].copy(), reference.f16(x))


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), width=st.integers(1, 100), threads=st.integers(1, 3))
def test_round_to_bf16(seed, tokens, width, threads):
    """Every pattern of bits may come up; a NaN stays one, and after the last value come zeros."""
    x = np.random.default_rng(seed).integers(0, 1 << 32, (tokens, width), dtype=np.uint32).view(np.float32)
    out = prepare(BFloat16Pairs(), x, threads=threads)[:tokens].view(np.uint16)
    found = (out.astype(np.uint32) << 16).view(np.float32)
    numbers = ~np.isnan(x)
    assert same_bits(found[:, :width][numbers], reference.bf16(x)[numbers])
    assert np.isnan(found[:, :width][~numbers]).all()
    assert not found[:, width:].any()


def test_round_rows_around_every_half_way_point():
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    x = np.concatenate([middles, np.nextafter(middles, 0), np.nextafter(middles, np.float32(np.inf)), [np.inf, 1e5]])
    x = np.stack([x, -x]).astype(np.float32)
    out = prepare(Float32(rounded=True), x)
    assert same_bits(out[:2, : x.shape[1]].copy(), reference.f16(x))


def test_round_rows_keeps_nan():
    rows = padded(np.array([[1.0, np.nan, 2.0]], np.float32))
    run(activations.round_rows, count=int64(1), x=rows, out=rows, stride=rows.strides[0], vectors=vectors_of(rows))
    assert np.isnan(rows[0, :3]).tolist() == [False, True, False]
