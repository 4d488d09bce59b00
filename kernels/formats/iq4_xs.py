"""IQ4_XS: blocks of 256 values in 8 groups of 32: value = scale * (6-bit group scale - 32) * level of IQ4_NL.

A block is a float16 scale, a uint16 with the top 2 bits of the group scales (group i at bit 2 i), 4 bytes with their
low 4 bits (groups 2 i and 2 i + 1, from the low bits up) and for each group 16 bytes of nibbles as in IQ4_NL (ggml's
block_iq4_xs).

In a panel, a block is the float16 scales of all rows, then for each group its int8 scales, 32 subtracted, and the
nibbles as in `nibbles`.
"""

from numba import float32, int64, uint8

from ..activations import BIAS, SCALE
from ..error_feedback import Grid
from ..fitting import inverse, weigh_256, with_own_weights
from ..jit import device
from ..simd import LANES, alloca, begin_block, get_f16, get_i64, get_u16, get_u8, panel_f16, panel_i8, prefetch_address
from ..simd import prefetch_levels, put_u16, put_u8, scale_add, to_matrix, to_rows
from ..weighted_fitting import group_scales_fitter
from .format import make_format
from .iq4_nl import ACTIVATION, best_scale, dot_levels, nearest, nearest_alone, put_levels, put_values
from .nibbles import NIBBLES, copy_nibbles

_BYTES = 136
_TOPS, _LOWS, _CODES = 2, 4, 8  # byte offsets
_GROUP = (1 + NIBBLES) * LANES  # panel bytes of a group
_STEP = ACTIVATION.step


@device
def _group_scale(block, group):
    """-32 .. 31"""
    low = get_u8(block + _LOWS + group // 2) >> (4 * (group % 2)) & 15
    return int64(low | (get_u16(block + _TOPS) >> (2 * group) & 3) << 4) - 32


@device
def _put_scales(block, numbers):
    """Store the scales of the groups, int64 -32 .. 31."""
    tops = lows = int64(0)
    for group in range(8):
        code = get_i64(numbers + 8 * group) + 32
        lows |= (code & 15) << (4 * group)
        tops |= (code >> 4) << (2 * group)
    put_u16(block + _TOPS, tops)
    for i in range(4):
        put_u8(block + _LOWS + i, uint8(lows >> (8 * i)))


@device
def _scale_of_group(block, group):
    return get_f16(block) * float32(_group_scale(block, group)), float32(0.0)


@device
def _put_codes(x, block):
    for group in range(8):
        scale = get_f16(block) * float32(_group_scale(block, group))
        put_levels(x + 128 * group, block + _CODES + 16 * group, inverse(scale), 16)


@device
def _fit_weighted_group(x, weights, values, steps):
    return best_scale(x, weights, values)  # of all that there are, not of a few steps


_fit_weighted_scales = group_scales_fitter("iq4_nl", _fit_weighted_group, nearest, groups=8, group=32, lowest=-32,
                                           highest=31, scale_at=0)


@device
def quantize_weighted(x, weights, block):
    numbers = alloca(64)
    _fit_weighted_scales(x, weights, block, numbers, 0)
    _put_scales(block, numbers)
    _put_codes(x, block)


quantize_block = with_own_weights("iq4_xs", weigh_256, quantize_weighted)


@device
def dequantize_block(block, out):
    for group in range(8):
        scale = get_f16(block) * float32(_group_scale(block, group))
        put_values(block + _CODES + 16 * group, scale, out + 128 * group)


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    panel += 2 * LANES
    for group in range(8):
        put_u8(panel + lane, uint8(_group_scale(block, group)))
        copy_nibbles(block + _CODES + 16 * group, panel + LANES, lane)
        panel += _GROUP


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        panel += 2 * LANES
        for _ in range(8):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _GROUP)
            group_scale = scale * panel_i8(acc, panel, panel_stride)
            sums = dot_levels(begin_block(acc, x + BIAS, x_stride), panel + LANES, panel_stride, x, x_stride)
            acc = scale_add(acc, sums, group_scale, x + SCALE, x_stride)
            panel += _GROUP
            x += _STEP
    return to_rows(acc)


FORMAT = make_format("iq4_xs", 23, 256, _BYTES, ACTIVATION, quantize_block=quantize_block,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile,
                     quantize_weighted=quantize_weighted, panel_block_bytes=2 + 8 * (1 + NIBBLES),
                     grid=Grid(32, _scale_of_group, nearest_alone, _put_codes))
