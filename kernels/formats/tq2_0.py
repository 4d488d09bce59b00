"""TQ2_0: blocks of 256 ternary values, 2 bits a value and one float16 scale: value = scale * (2 bits - 1).

A block is 64 bytes, two halves of 128 values: byte i of a half holds values i, i + 32, i + 64 and i + 96, from its low
bits up, then the scale (ggml's block_tq2_0).
"""

from numba import float32, int32

from ..fitting import inverse, largest_magnitude
from ..jit import device
from ..simd import LANES, get_f16, get_u8, load_f32, put_f16, put_f32, round_half_away, splat_f32, splat_i32, store_i8
from ..simd import to_i32
from .ternary import make_ternary_format

_BYTES = 66


@device
def ternary(x, inverse_scale):
    """0, 1 or 2 for each value of a vector."""
    return to_i32(round_half_away(load_f32(x) * splat_f32(inverse_scale))) + splat_i32(int32(1))


@device
def quantize_block(x, block):
    scale = largest_magnitude(x, 256)
    put_f16(block + 64, scale)
    for half in range(2):
        for i in range(0, 32, LANES):
            codes = splat_i32(int32(0))
            for plane in range(4):
                code = ternary(x + 512 * half + 128 * plane + 4 * i, inverse(scale))
                codes = codes | (code << splat_i32(int32(2 * plane)))
            store_i8(block + 32 * half + i, codes)


@device
def dequantize_block(block, out):
    scale = get_f16(block + 64)
    for i in range(256):
        code = get_u8(block + 32 * (i // 128) + i % 32) >> (2 * (i % 128 // 32)) & 3
        put_f32(out + 4 * i, scale * float32(code - 1))


FORMAT = make_ternary_format("tq2_0", 35, 256, _BYTES, 64, quantize_block=quantize_block,
                             dequantize_block=dequantize_block)
