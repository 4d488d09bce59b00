"""Q4_0: blocks of 32 values, one float16 scale and 4 bits a value: value = scale * (nibble - 8).

Byte i of a block holds value i in its low and value i + 16 in its high nibble (ggml's block_q4_0). In a panel, a block
is the scales of all rows, then the nibbles as in `nibbles`.
"""

from numba import float32, int32

from ..activations import BIAS, SCALE, Int8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import inverse, peak
from ..jit import device, inlined
from ..simd import LANES, add_to_bytes, begin_block, bits, get_f16, get_u16, get_u8, load_f32, maximum, minimum
from ..simd import panel_bytes, panel_f16, prefetch_address, prefetch_unpacked, put_f16, put_f32, put_u16, rint
from ..simd import scale_add, splat_f32, splat_i32, store_f32, store_i8, store_tile, to_i32, to_matrix, to_rows, zeros
from ..weighted_fitting import best_scale_finder
from ..wide import wide_blocks
from .format import make_format
from .nibbles import copy_nibbles, dot_nibbles

_BYTES = 18
_PANEL_BLOCK = _BYTES * LANES
_ACTIVATION = Int8Blocks(offset=8)
_VECTOR = 4 * LANES
_STEP = _ACTIVATION.step


@device
def _code(x, inverse_scale):
    code = load_f32(x) * splat_f32(inverse_scale) + splat_f32(float32(8.5))
    return to_i32(minimum(splat_f32(float32(15.0)), code))


@device
def quantize_block(x, block):
    scale = peak(x, 32) / float32(-8.0)
    put_f16(block, scale)
    for i in range(0, 16, LANES):
        low, high = _code(x + 4 * i, inverse(scale)), _code(x + 64 + 4 * i, inverse(scale))
        store_i8(block + 2 + i, low | (high << splat_i32(int32(4))))


@device
def _nearest(x):
    return minimum(splat_f32(float32(7.0)), maximum(splat_f32(float32(-8.0)), rint(x)))


# Where all codes are -4 .. 3, half of the scale with twice the codes gives the same values: so larger scales never win.
_best_scale = best_scale_finder("q4_0", _nearest, range(-8, 8), 3.5, 32)


@device
def _put_codes(x, block):
    inverse_scale = inverse(get_f16(block))
    for i in range(0, 16, LANES):
        low = _nearest(load_f32(x + 4 * i) * splat_f32(inverse_scale)) + splat_f32(float32(8.0))
        high = _nearest(load_f32(x + 64 + 4 * i) * splat_f32(inverse_scale)) + splat_f32(float32(8.0))
        store_i8(block + 2 + i, to_i32(low) | (to_i32(high) << splat_i32(int32(4))))


@device
def quantize_weighted(x, weights, block):
    put_f16(block, _best_scale(x, weights, 32))
    _put_codes(x, block)


@device
def scale_alone(block, group):
    """Scale and offset of blocks that begin with a scale and have no offset."""
    return get_f16(block), float32(0.0)


@device
def dequantize_block(block, out):
    scale = get_f16(block)
    for i in range(16):
        byte = get_u8(block + 2 + i)
        put_f32(out + 4 * i, scale * float32((byte & 15) - 8))
        put_f32(out + 64 + 4 * i, scale * float32((byte >> 4) - 8))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    copy_nibbles(block + 2, panel + 2 * LANES, lane)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PANEL_BLOCK)
        sums = dot_nibbles(begin_block(acc, x + BIAS, x_stride), panel + 2 * LANES, panel_stride, x, x_stride)
        acc = scale_add(acc, sums, panel_f16(acc, panel, panel_stride), x + SCALE, x_stride)
        panel += _PANEL_BLOCK
        x += _STEP
    return to_rows(acc)


@inlined
def unpack_nibbles(panel, codes):
    """32 nibbles of each row, less 8, as 8 vectors in order."""
    like = zeros(1, 1)
    for i in range(4):
        packed = panel_bytes(like, panel + _VECTOR * i, 0)
        store_tile(add_to_bytes(bits(packed, 0, 15), -8), codes + _VECTOR * i, 0, 0)
        store_tile(add_to_bytes(bits(packed, 4, 15), -8), codes + _VECTOR * (4 + i), 0, 0)


@inlined
def unpack_block(panel, codes, scales):
    unpack_nibbles(panel + 2 * LANES, codes)
    store_f32(scales, panel_f16(zeros(1, 1), panel, 0))


FORMAT = make_format("q4_0", 2, 32, _BYTES, _ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     pack_block=pack_block, tile=tile, quantize_weighted=quantize_weighted,
                     wide=wide_blocks("q4_0", _PANEL_BLOCK, unpack_block),
                     grid=Grid(32, scale_alone, whole_levels("q4_0", -8, 7), _put_codes))
