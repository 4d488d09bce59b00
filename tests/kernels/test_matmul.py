"""Every format's matmul: right within float32 rounding, and the same to the bit whatever the batch and the threads."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.activations import INT8, MOST_OF_16, BFloat16Pairs, Int8Blocks, Int8Rows, LargeInt8Blocks
from lcpu.kernels.formats import FORMATS, Format
from lcpu.kernels.isa import host_features
from lcpu.kernels.matmul import MAX_TOKENS, PANEL_GROUP, whole_groups
from lcpu.kernels.simd import DOT_ELEMENT, LANES

from . import reference
from .running import (
    SCALES_AT,
    TERNARY_SCALE,
    UNDER_TEST,
    as_in_memory,
    every_format,
    few,
    multiply,
    pack,
    prepare,
    put_scales,
    random_blocks,
    row_by_row,
    same_bits,
)

GUARD = np.float32(12345)


@dataclass
class Case:
    """A random product: raw weights [rows][bytes], x [tokens][k]."""

    format: Format
    rows: int
    k: int
    raw: np.ndarray
    x: np.ndarray
    random: np.random.Generator

    def output(self) -> np.ndarray:
        """Whole panels for every token and the spare rows after them, then a guard column."""
        return np.full((len(self.x) + MAX_TOKENS, whole_groups(self.rows) * LANES + 1), GUARD)

    def product(self, **options) -> np.ndarray:
        """float32 [tokens][rows]"""
        out = self.output()
        options.setdefault("tokens", [len(self.x)])
        threads = options.get("threads", 1)
        panels = pack(self.format, self.raw, self.k, threads=threads)
        x = prepare(self.format.activation, self.x, threads=threads)
        multiply(self.format, panels, x, out, self.k, **options)
        assert (out[:, -1] == GUARD).all()
        return out[: len(self.x), : self.rows]


def case(format: Format, seed: int, rows: int, length: int, tokens: int) -> Case:
    """k: `length` for formats whose values stand alone, else `length` wrapped to a few blocks."""
    random = np.random.default_rng(seed)
    k = length if format.block == 1 else format.block * (1 + length % (600 // format.block))
    x = random.standard_normal((tokens, k), dtype=np.float32)
    return Case(format, rows, k, random_blocks(format, rows, k, random), x, random)


def exact(c: Case) -> tuple[np.ndarray, np.ndarray]:
    """The product in float64, of x rounded as the format's kernels take it, and the sum of its terms' magnitudes."""
    activation = c.format.activation
    x = c.x
    if isinstance(activation, Int8Blocks):
        values, scales, _ = reference.quantize(c.x, activation.offset, activation.group)
        x = (values * scales[..., None].astype(np.float64)).reshape(c.x.shape)
    elif isinstance(activation, LargeInt8Blocks):
        values, scales, *_ = reference.quantize_large(c.x)
        x = (values * scales[..., None].astype(np.float64)).reshape(c.x.shape)
    elif isinstance(activation, Int8Rows):
        values, scales, _ = reference.quantize_rows(c.x, activation.offset)
        x = values * scales[:, None].astype(np.float64)
    elif isinstance(activation, BFloat16Pairs):
        x = reference.bf16(c.x)
    elif activation.rounded:
        x = reference.f16(c.x)
    x, weights = x.astype(np.float64), reference.dequantize(c.format, c.raw).astype(np.float64)
    if c.format.name == "i2_s":
        weights *= TERNARY_SCALE
    magnitudes = abs(weights)
    if c.format.name in ("q4_1", "q5_1", "q2_k", "q4_k", "q5_k"):  # scale * code and offset may cancel each other
        magnitudes = np.broadcast_to(magnitudes.max(axis=1, keepdims=True), weights.shape)
    return x @ weights.T, abs(x) @ magnitudes.T


shapes = given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 150), length=st.integers(1, 600),
               tokens=st.integers(1, 40), threads=st.integers(1, 3),
               share=st.integers(1, 3).map(lambda groups: groups * PANEL_GROUP))


@every_format
@few
@shapes
def test_close_to_float64(format, seed, rows, length, tokens, threads, share):
    c = case(format, seed, rows, length, tokens)
    wanted, magnitude = exact(c)
    error = abs(c.product(threads=threads, share=share) - wanted)
    assert (error <= 1e-6 * magnitude).all()


@every_format
@few
@shapes
def test_same_bits_for_every_split_and_every_number_of_threads(format, seed, rows, length, tokens, threads, share):
    c = case(format, seed, rows, length, tokens)
    whole = c.product()
    assert same_bits(c.product(threads=threads, share=share), whole)
    assert same_bits(c.product(tokens=[1] * tokens, share=share), whole)
    cuts = np.sort(c.random.integers(0, tokens + 1, 3))
    pieces = np.diff(cuts, prepend=0, append=tokens)
    assert same_bits(c.product(tokens=[int(n) for n in pieces if n], threads=threads), whole)


@every_format
@few
@shapes
def test_accumulate_adds_to_what_is_there(format, seed, rows, length, tokens, threads, share):
    c = case(format, seed, rows, length, tokens)
    panels, x = pack(format, c.raw, c.k), prepare(format.activation, c.x)
    out = c.random.standard_normal(c.output().shape, dtype=np.float32)
    wanted = out[:tokens, :rows] + c.product()
    multiply(format, panels, x, out, c.k, tokens=[tokens], threads=threads, share=share, accumulate=True)
    assert same_bits(out[:tokens, :rows].copy(), wanted)


@every_format
@few
@shapes
def test_tokens_do_not_see_their_neighbours(format, seed, rows, length, tokens, threads, share):
    c = case(format, seed, rows, length, tokens)
    panels, x, out = pack(format, c.raw, c.k), prepare(format.activation, c.x), c.output()
    kept = c.random.integers(0, tokens)
    neighbours = np.arange(len(x)) != kept
    if isinstance(format.activation, INT8):
        x = row_by_row(x)
        x[neighbours] = 255  # also scales, which are NaN then
        x = as_in_memory(x)
    else:
        x[neighbours] = np.full(x.shape[1], 255, np.uint8) if x.dtype == np.uint8 else np.nan
    multiply(format, panels, x, out, c.k, tokens=[tokens], threads=threads, share=share)
    assert same_bits(out[kept, :rows].copy(), c.product()[kept])
    assert np.isnan(out[:tokens][neighbours[:tokens], :rows]).all()


# Sums of 16 bits are what may overflow: on other paths one format of each kind will do.
MAY_OVERFLOW = list(FORMATS.values()) if DOT_ELEMENT == "i16" else UNDER_TEST
LARGEST = {"q8_0": (0x80, 0x7F), "q4_0": (0x00, 0xFF), "q2_k": (0xFF,), "q3_k": (0x00, 0xFF), "q4_k": (0xFF,),
           "q5_k": (0xFF,), "q6_k": (0x00, 0xFF), "iq4_nl": (0x00, 0xFF), "iq4_xs": (0x00,), "mxfp4": (0x77, 0xFF),
           "nvfp4": (0x77, 0xFF), "q1_0": (0x00, 0xFF), "q2_0": (0x00, 0xFF)}  # bytes of codes


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("format", "byte"), [pytest.param(format, byte, id=f"{format.name}-{byte:#x}")
                                              for format in MAY_OVERFLOW for byte in LARGEST.get(format.name, ())])
def test_no_sum_overflows(format, byte, sign):
    """All weights and activations as large as they can be. Their int8 values and scales are exact, so is the result."""
    k = 2 * format.block
    raw = np.full((LANES, 2, format.block_bytes), byte, np.uint8)
    if format.name == "q6_k":
        raw[..., 192:208] = 0x80  # group scales of -128
    put_scales(format, raw, np.ones((LANES, 2), np.float16))
    x = np.full((9, k), 127 * sign, np.float32)
    if isinstance(format.activation, LargeInt8Blocks):
        x.reshape(9, -1, 16)[:] = sign * np.repeat([127, MOST_OF_16 - 8 * 127, 0], [8, 1, 7])
    c = Case(format, LANES, k, raw.reshape(LANES, -1), x, np.random.default_rng(0))
    assert (c.product() == exact(c)[0]).all()


def fused(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """float32 x * y + z, rounded once."""
    return (x.astype(np.longdouble) * y + z).astype(np.float32)


@pytest.mark.parametrize("type_id", [10, 11, 12, 13, 14], ids=["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"])
def test_integers_up_to_the_scale_of_a_block(type_id):
    """To the bit what NumPy says, so the same on every path: only the sums of a block are rounded."""
    c = case(FORMATS[type_id], type_id, rows=50, length=1, tokens=11)
    raw = c.raw.reshape(c.rows, -1, c.format.block_bytes)
    values, scales, *_ = reference.quantize_large(c.x)
    out = np.zeros((len(c.x), c.rows), np.float32)
    for block in range(raw.shape[1]):
        factors, sums = [], []
        for at in SCALES_AT[c.format.name]:
            alone = raw[:, block].copy()
            put_scales(c.format, alone, np.zeros(c.rows, np.float16))
            alone[:, at : at + 2] = np.ones((c.rows, 1), np.float16).view(np.uint8)
            weights = reference.dequantize(c.format, alone).astype(np.int64)
            sums.append((values[:, block].astype(np.int64) @ weights.T).astype(np.float32))
            factors.append(raw[:, block, at : at + 2].copy().view(np.float16)[:, 0].astype(np.float32))
        total = sums[0] * factors[0]
        if len(sums) > 1:
            total = fused(sums[1], factors[1], total)
        out = fused(total, scales[:, block, None], out)
    assert same_bits(c.product(), out)


by_points = pytest.mark.parametrize("format", [f for f in MAY_OVERFLOW if f.name[:3] in ("iq1", "iq2", "iq3")],
                                    ids=lambda f: f.name)


@by_points
def test_no_sum_overflows_with_points_of_a_grid(format):
    """Activations as large as they can be, with the signs of the weights of one row after the other."""
    random = np.random.default_rng(0)
    raw = random_blocks(format, LANES, 512, random).reshape(LANES, 2, -1)
    put_scales(format, raw, np.ones((LANES, 2), np.float16))
    raw = raw.reshape(LANES, -1)
    x = np.float32(127) * np.sign(reference.dequantize(format, raw))
    c = Case(format, LANES, 512, raw, x, random)
    wanted, magnitude = exact(c)
    assert (abs(c.product() - wanted) <= 1e-6 * magnitude).all()


@by_points
def test_weights_that_are_not_finite_spread(format):
    """In their own rows only."""
    c = case(format, 0, rows=5, length=299, tokens=3)
    blocks = c.raw.reshape(5, -1, format.block_bytes)
    for row, scale in ((1, np.nan), (3, np.inf)):
        put_scales(format, blocks[row, :1], np.full(1, scale, np.float16))
    finite = np.isfinite(c.product())
    assert finite[:, [0, 2, 4]].all()
    assert not finite[:, [1, 3]].any()


@every_format
def test_infinity_and_nan_spread(format):
    """An activation that is not finite must not turn into a plausible number."""
    c = case(format, 0, rows=20, length=299, tokens=3)
    c.x[1, 5] = np.nan
    c.x[2, 5] = np.inf
    out = c.product()
    assert np.isfinite(out[0]).all()
    assert not np.isfinite(out[1:]).any()


# The beginning of SHA-256 of products of fixed numbers. Integers decide them, and float32 sums in one order.
PINNED = {2: "7d653a95ed15922b", 8: "f763f5b0f76a7515", 12: "3560a73b258a4fb3", 13: "caa5c88905f7a41a",
          14: "6f9138433fcd560f", 36: "a9e45dbab089049d"}


@pytest.mark.skipif(not {"fma", "neon"} & host_features(), reason="without FMA instructions sums are rounded twice")
@pytest.mark.parametrize("type_id", PINNED)
def test_the_same_bits_on_every_path_and_in_every_version(type_id):
    format, rows, k, tokens, pinned = FORMATS[type_id], 70, 512, 53, 21  # so many tokens go by registers of 16 rows
    shape = (rows, k // format.block, format.block_bytes)
    raw = (np.arange(np.prod(shape)) * 2654435761 >> 11 & 255).astype(np.uint8).reshape(shape)
    scales = (np.arange(rows * shape[1]) % 37 - 18).reshape(shape[:2]) / 1024
    if format.name == "i2_s":
        raw = np.concatenate([raw.ravel(), np.frombuffer(TERNARY_SCALE.tobytes() + bytes(28), np.uint8)])
        raw = raw[: np.prod(shape)]
    else:
        put_scales(format, raw, scales.astype(np.float16))
    x = ((np.arange(tokens * k) * 7919 % 1009 - 504) / 128).astype(np.float32).reshape(tokens, k)
    c = Case(format, rows, k, raw.reshape(rows, -1), x, np.random.default_rng())
    product = c.product()
    error = abs(product - exact(c)[0])
    assert error.max() < 1e-3
    assert sha256(product[:pinned].tobytes()).hexdigest()[:16] == PINNED[type_id]
