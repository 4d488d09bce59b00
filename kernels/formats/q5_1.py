"""Q5_1: blocks of 32 values, a float16 scale, a float16 minimum and 5 bits a value: value = scale * 5 bits + minimum.

The 5 bits are stored as in Q5_0, after scale and minimum (ggml's block_q5_1).

In a panel, a block is the scales of all rows, their minima, then the fifth bits and the nibbles as in `nibbles`.
"""

from numba import float32

from ..activations import SCALE, SUM, Int8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import extremes, fit_weighted_scale_and_minimum, inverse, ramp
from ..jit import device
from ..simd import LANES, alloca, fma_numbers, get_f16, get_i32, get_u16, load_f32, maximum, minimum, panel_f16
from ..simd import prefetch_address, prefetch_unpacked, put_f16, put_f32, put_u16, scale_add, splat_f32, store_i8
from ..simd import to_i32, to_matrix, to_rows, zeros_i32
from .format import make_format
from .nibbles import copy_nibbles, dot_five_bits
from .q4_1 import scale_and_offset
from .q5_0 import pack_fifths, get_code, put_codes

_BYTES = 24
_PANEL_BLOCK = _BYTES * LANES
_ACTIVATION = Int8Blocks(summed=True)
_STEP = _ACTIVATION.step


@device
def _put_codes(x, block, scale, lowest):
    codes = alloca(32)
    for i in range(0, 32, LANES):
        code = (load_f32(x + 4 * i) - splat_f32(lowest)) * splat_f32(inverse(scale)) + splat_f32(float32(0.5))
        code = maximum(splat_f32(float32(0.0)), minimum(splat_f32(float32(31.0)), code))
        store_i8(codes + i, to_i32(code))
    put_codes(codes, block + 4)


@device
def quantize_block(x, block):
    lowest, highest = extremes(x, 32)
    scale = (highest - lowest) / float32(31.0)
    put_f16(block, scale)
    put_f16(block + 2, lowest)
    _put_codes(x, block, scale, lowest)


@device
def _put_nearest(x, block):
    _put_codes(x, block, get_f16(block), get_f16(block + 2))


@device
def quantize_weighted(x, weights, block):
    scale, offset = fit_weighted_scale_and_minimum(x, weights, 32, float32(31.0), ramp(float32(28.5), float32(0.4)))
    put_f16(block, scale)
    put_f16(block + 2, -offset)
    _put_nearest(x, block)


@device
def dequantize_block(block, out):
    scale, lowest = get_f16(block), get_f16(block + 2)
    for i in range(32):
        put_f32(out + 4 * i, scale * float32(get_code(block + 4, i)) + lowest)


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    put_u16(panel + 2 * LANES + 2 * lane, get_u16(block + 2))
    pack_fifths(get_i32(block + 4), panel + 4 * LANES, lane)
    copy_nibbles(block + 8, panel + 8 * LANES, lane)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PANEL_BLOCK)
        sums = dot_five_bits(zeros_i32(acc), panel + 4 * LANES, panel_stride, x, x_stride)
        acc = scale_add(acc, sums, panel_f16(acc, panel, panel_stride), x + SCALE, x_stride)
        acc = fma_numbers(acc, panel_f16(acc, panel + 2 * LANES, panel_stride), x + SUM, x_stride)
        panel += _PANEL_BLOCK
        x += _STEP
    return to_rows(acc)


FORMAT = make_format("q5_1", 7, 32, _BYTES, _ACTIVATION, quantize_block=quantize_block,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile,
                     quantize_weighted=quantize_weighted,
                     grid=Grid(32, scale_and_offset, whole_levels("q5_1", 0, 31), _put_nearest))
