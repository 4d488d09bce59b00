"""Q1_0: blocks of 128 values, one float16 scale and a bit a value: value = scale if the bit is 1, else -scale.

Bit k of byte i of a block's 16 is that of value 8 i + k (ggml's block_q1_0).

In a panel, a block is the scales of all rows, then for each 32 values a vector: bit p of byte j of every row is that of
value 4 p + j. A bit counts 2, and the activations' bias takes 1 from it.
"""

from numba import float32, int32, int64, uint8

from ..activations import AT, BIAS, SCALE, Int8Blocks
from ..jit import device
from ..simd import LANES, absolute, add_partial_sums, begin_block, bits, dot_run, fma, get_f16, get_f32, get_i32
from ..simd import get_u16, get_u8, load_f32, panel_bytes, panel_f16, partial_sums, prefetch_address, prefetch_unpacked
from ..simd import put_f16, put_f32, put_i32, put_u16, put_u8, reduce_add, scale_add, splat_f32, to_matrix, to_rows
from .format import make_format

_BYTES = 18
_ACTIVATION = Int8Blocks(offset=1)
_STEP = _ACTIVATION.step
_VECTOR = 4 * LANES


@device
def _put_signs(x, block):
    for i in range(16):
        byte = 0
        for k in range(8):
            byte |= (1 if get_f32(x + 32 * i + 4 * k) >= 0 else 0) << k
        put_u8(block + 2 + i, uint8(byte))


@device
def quantize_block(x, block):
    """The scale with the smallest error is the mean magnitude."""
    total = splat_f32(float32(0.0))
    for i in range(0, 128, LANES):
        total = total + absolute(load_f32(x + 4 * i))
    put_f16(block, reduce_add(total) / float32(128.0))
    _put_signs(x, block)


@device
def quantize_weighted(x, weights, block):
    total = sum_w = splat_f32(float32(0.0))
    for i in range(0, 128, LANES):
        weight = load_f32(weights + 4 * i)
        total, sum_w = fma(absolute(load_f32(x + 4 * i)), weight, total), sum_w + weight
    put_f16(block, reduce_add(total) / reduce_add(sum_w))
    _put_signs(x, block)


@device
def dequantize_block(block, out):
    scale = get_f16(block)
    for i in range(128):
        put_f32(out + 4 * i, scale if get_u8(block + 2 + i // 8) >> (i % 8) & 1 else -scale)


@device
def _every_fourth(word):
    """Bits 0, 4, 8, .. 28 as the bits of a byte."""
    word = word & 0x11111111
    word = (word | word >> 3) & 0x03030303
    word = (word | word >> 6) & 0x000F000F
    return (word | word >> 12) & 0xFF


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    for i in range(4):
        word, codes = int64(get_i32(block + 2 + 4 * i)), int64(0)
        for j in range(4):
            codes |= _every_fourth(word >> j) << (8 * j)
        put_i32(panel + 2 * LANES + _VECTOR * i + 4 * lane, int32(codes))


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        panel += 2 * LANES
        for _ in range(4):
            prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _VECTOR)
            packed = panel_bytes(acc, panel, panel_stride)
            total = begin_block(acc, x + BIAS, x_stride)
            partial = dot_run(partial_sums(total), (bits(packed, -1, 2), bits(packed, 0, 2), bits(packed, 1, 2),
                                                    bits(packed, 2, 2)), x, x_stride)
            partial = dot_run(partial, (bits(packed, 3, 2), bits(packed, 4, 2), bits(packed, 5, 2),
                                        bits(packed, 6, 2)), x + AT[16], x_stride)
            acc = scale_add(acc, add_partial_sums(total, partial), scale, x + SCALE, x_stride)
            panel += _VECTOR
            x += _STEP
    return to_rows(acc)


FORMAT = make_format("q1_0", 41, 128, _BYTES, _ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     pack_block=pack_block, tile=tile, quantize_weighted=quantize_weighted)
