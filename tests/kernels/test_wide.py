"""Matmuls by tile registers: what only many tokens and long rows reach, and the numbers that need most bits."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu.kernels.formats import FORMATS
from lcpu.kernels.jit import kernel
from lcpu.kernels.matmul import padded_width
from lcpu.kernels.simd import (
    HIGH_SHIFT,
    ISA,
    LANES,
    high_plane,
    low_plane,
    panel_bytes,
    panel_i8_pairs,
    store_tile,
    zeros,
)

from .running import multiply, pack, padded, prepare, random_blocks, run, same_bits

WIDE = [FORMATS[type_id] for type_id in (2, 8, 12, 13, 14, 36)]
registers = pytest.mark.skipif(not ISA.tile_registers, reason="this path has no tile registers")


@registers
@pytest.mark.parametrize("format", WIDE, ids=lambda format: format.name)
def test_many_tokens_and_long_rows(format):
    """More tokens than share unpacked codes, and rows of several runs of blocks, of which the last is shorter."""
    rows, k, tokens, random = 70, 2560, 281, np.random.default_rng(0)
    panels = pack(format, random_blocks(format, rows, k, random), k)
    x = prepare(format.activation, random.standard_normal((tokens, k), dtype=np.float32))
    whole, single = (padded(np.ones((tokens, padded_width(rows)), np.float32)) for _ in range(2))
    multiply(format, panels, x, whole, k, tokens=[tokens], accumulate=True)
    multiply(format, panels, x, single, k, tokens=[1] * tokens, accumulate=True)
    assert same_bits(whole[:tokens, :rows].copy(), single[:tokens, :rows].copy())
    assert abs(whole[:tokens, :rows]).max() > 1


@kernel
def split(work, thread, threads, codes, scales, low, high, which):
    like = zeros(1, 1)
    vector, pairs = panel_bytes(like, codes, 0), panel_i8_pairs(like, scales, 0)
    store_tile(low_plane(vector, pairs, which, 32), low, 0, 0)
    store_tile(high_plane(vector, pairs, which, 32), high, 0, 0)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("scale", [-128, -77, -1, 0, 1, 63, 127])
def test_planes_of_codes_times_scales(scale, which):
    codes = np.arange(4 * LANES, dtype=np.uint8) % 64
    for code in (0, 63):
        codes[code % 5] = code
    scales = np.full((LANES, 2), 99, np.int8)
    scales[:, which] = scale
    low, high = np.zeros(4 * LANES, np.int8), np.zeros(4 * LANES, np.int8)
    run(split, codes=codes, scales=scales, low=low, high=high, which=which)
    assert (low.astype(int) + (high.astype(int) << HIGH_SHIFT) == (codes.astype(int) - 32) * scale).all()
    assert low.min() >= -64
    assert low.max() < 64
