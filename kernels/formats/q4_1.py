"""Q4_1: blocks of 32 values, a float16 scale, a float16 minimum and 4 bits a value: value = scale * nibble + minimum.

Byte i of a block's codes holds value i in its low and value i + 16 in its high nibble (ggml's block_q4_1).

In a panel, a block is the scales of all rows, their minima, then the nibbles as in `nibbles`.
"""

from numba import float32, int32

from ..activations import SCALE, SUM, Int8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import extremes, fit_weighted_scale_and_minimum, inverse, ramp
from ..jit import device
from ..simd import LANES, fma_numbers, get_f16, get_u16, get_u8, load_f32, maximum, minimum, panel_f16, prefetch_address
from ..simd import prefetch_unpacked, put_f16, put_f32, put_u16, scale_add, splat_f32, splat_i32, store_i8, to_i32
from ..simd import to_matrix, to_rows, zeros_i32
from .format import make_format
from .nibbles import copy_nibbles, dot_nibbles

_BYTES = 20
_PANEL_BLOCK = _BYTES * LANES
_ACTIVATION = Int8Blocks(summed=True)
_STEP = _ACTIVATION.step


@device
def _code(x, lowest, inverse_scale):
    shifted = (load_f32(x) - splat_f32(lowest)) * splat_f32(inverse_scale)
    code = maximum(splat_f32(float32(0.0)), shifted + splat_f32(float32(0.5)))
    return to_i32(minimum(splat_f32(float32(15.0)), code))


@device
def _put_codes(x, block, scale, lowest):
    for i in range(0, 16, LANES):
        low = _code(x + 4 * i, lowest, inverse(scale))
        high = _code(x + 64 + 4 * i, lowest, inverse(scale))
        store_i8(block + 4 + i, low | (high << splat_i32(int32(4))))


@device
def quantize_block(x, block):
    lowest, highest = extremes(x, 32)
    scale = (highest - lowest) / float32(15.0)
    put_f16(block, scale)
    put_f16(block + 2, lowest)
    _put_codes(x, block, scale, lowest)


@device
def _put_nearest(x, block):
    _put_codes(x, block, get_f16(block), get_f16(block + 2))


@device
def scale_and_offset(block, group):
    return get_f16(block), -get_f16(block + 2)


@device
def quantize_weighted(x, weights, block):
    scale, offset = fit_weighted_scale_and_minimum(x, weights, 32, float32(15.0), ramp(float32(13.0), float32(0.3)))
    put_f16(block, scale)
    put_f16(block + 2, -offset)
    _put_nearest(x, block)


@device
def dequantize_block(block, out):
    scale, lowest = get_f16(block), get_f16(block + 2)
    for i in range(16):
        byte = get_u8(block + 4 + i)
        put_f32(out + 4 * i, scale * float32(byte & 15) + lowest)
        put_f32(out + 64 + 4 * i, scale * float32(byte >> 4) + lowest)


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    put_u16(panel + 2 * LANES + 2 * lane, get_u16(block + 2))
    copy_nibbles(block + 4, panel + 4 * LANES, lane)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PANEL_BLOCK)
        sums = dot_nibbles(zeros_i32(acc), panel + 4 * LANES, panel_stride, x, x_stride)
        acc = scale_add(acc, sums, panel_f16(acc, panel, panel_stride), x + SCALE, x_stride)
        acc = fma_numbers(acc, panel_f16(acc, panel + 2 * LANES, panel_stride), x + SUM, x_stride)
        panel += _PANEL_BLOCK
        x += _STEP
    return to_rows(acc)


FORMAT = make_format("q4_1", 3, 32, _BYTES, _ACTIVATION, quantize_block=quantize_block,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile,
                     quantize_weighted=quantize_weighted,
                     grid=Grid(32, scale_and_offset, whole_levels("q4_1", 0, 15), _put_nearest))
