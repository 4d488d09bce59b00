"""Q5_0: blocks of 32 values, one float16 scale and 5 bits a value: value = scale * (5 bits - 16).

A block is the scale, a uint32 of the fifth bits (bit i is value i's) and 16 bytes of low nibbles: byte i holds value i
in its low and value i + 16 in its high nibble (ggml's block_q5_0).

In a panel, a block is the scales of all rows, then the fifth bits and the nibbles as in `nibbles`.
"""

from numba import float32, int32, int64, uint8

from ..activations import BIAS, SCALE, Int8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import inverse, peak
from ..jit import device
from ..simd import LANES, alloca, begin_block, get_f16, get_i32, get_u16, get_u8, load_f32, maximum, minimum, panel_f16
from ..simd import prefetch_address, prefetch_unpacked, put_f16, put_f32, put_i32, put_u16, put_u8, rint, scale_add
from ..simd import splat_f32, store_i8, to_i32, to_matrix, to_rows
from ..weighted_fitting import best_scale_finder
from .format import make_format
from .nibbles import copy_nibbles, dot_five_bits
from .q4_0 import scale_alone

_BYTES = 22
_PANEL_BLOCK = _BYTES * LANES
_ACTIVATION = Int8Blocks(offset=16)
_STEP = _ACTIVATION.step


@device
def put_codes(codes, packed):
    """Store 32 codes of 0 .. 31, one a byte, as fifth bits and nibbles."""
    fifth = int64(0)
    for i in range(16):
        low, high = int64(get_u8(codes + i)), int64(get_u8(codes + 16 + i))
        fifth |= (low >> 4) << i | (high >> 4) << (i + 16)
        put_u8(packed + 4 + i, uint8((low & 15) | (high & 15) << 4))
    put_i32(packed, int32(fifth))


@device
def get_code(packed, i):
    """Code i of what `put_codes` has stored."""
    nibble = get_u8(packed + 4 + i % 16) >> (4 * (i // 16))
    return (nibble & 15) | ((get_i32(packed) >> i) & 1) << 4


@device
def quantize_block(x, block):
    scale = peak(x, 32) / float32(-16.0)
    put_f16(block, scale)
    codes = alloca(32)
    for i in range(0, 32, LANES):
        code = load_f32(x + 4 * i) * splat_f32(inverse(scale)) + splat_f32(float32(16.5))
        store_i8(codes + i, to_i32(minimum(splat_f32(float32(31.0)), code)))
    put_codes(codes, block + 2)


@device
def _nearest(x):
    return minimum(splat_f32(float32(15.0)), maximum(splat_f32(float32(-16.0)), rint(x)))


# Where all codes are -8 .. 7, half of the scale with twice the codes gives the same values: so larger scales never win.
_best_scale = best_scale_finder("q5_0", _nearest, range(-16, 16), 7.5, 32)


@device
def _put_nearest(x, block):
    inverse_scale = splat_f32(inverse(get_f16(block)))
    codes = alloca(32)
    for i in range(0, 32, LANES):
        store_i8(codes + i, to_i32(_nearest(load_f32(x + 4 * i) * inverse_scale) + splat_f32(float32(16.0))))
    put_codes(codes, block + 2)


@device
def quantize_weighted(x, weights, block):
    put_f16(block, _best_scale(x, weights, 32))
    _put_nearest(x, block)


@device
def dequantize_block(block, out):
    scale = get_f16(block)
    for i in range(32):
        put_f32(out + 4 * i, scale * float32(get_code(block + 2, i) - 16))


@device
def pack_fifths(bits, panel, lane):
    """Store the fifth bits of 32 values in a panel. Bit i of `bits` belongs to value i."""
    word = int64(0)
    for i in range(32):
        word |= (int64(bits) >> i & 1) << (8 * (i % 4) + i // 4)
    put_i32(panel + 4 * lane, int32(word))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    pack_fifths(get_i32(block + 2), panel + 2 * LANES, lane)
    copy_nibbles(block + 6, panel + 6 * LANES, lane)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PANEL_BLOCK)
        sums = begin_block(acc, x + BIAS, x_stride)
        sums = dot_five_bits(sums, panel + 2 * LANES, panel_stride, x, x_stride)
        acc = scale_add(acc, sums, panel_f16(acc, panel, panel_stride), x + SCALE, x_stride)
        panel += _PANEL_BLOCK
        x += _STEP
    return to_rows(acc)


FORMAT = make_format("q5_0", 6, 32, _BYTES, _ACTIVATION, quantize_block=quantize_block,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile,
                     quantize_weighted=quantize_weighted,
                     grid=Grid(32, scale_alone, whole_levels("q5_0", -16, 15), _put_nearest))
