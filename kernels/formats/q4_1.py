"""Q4_1: blocks of 32 values, a float16 scale, a float16 minimum and 4 bits a value: value = scale * nibble + minimum.

Byte i of a block's codes holds value i in its low and value i + 16 in its high nibble (ggml's block_q4_1).
"""

from numba import float32, int32

from ..fitting import extremes, inverse
from ..jit import device
from ..simd import LANES, get_f16, get_u8, load_f32, minimum, put_f16, put_f32, splat_f32, splat_i32, store_i8, to_i32
from .format import make_storage

_BYTES = 20


@device
def _code(x, lowest, inverse_scale):
    shifted = (load_f32(x) - splat_f32(lowest)) * splat_f32(inverse_scale)
    return to_i32(minimum(splat_f32(float32(15.0)), shifted + splat_f32(float32(0.5))))


@device
def quantize_block(x, block):
    lowest, highest = extremes(x, 32)
    scale = (highest - lowest) / float32(15.0)
    put_f16(block, scale)
    put_f16(block + 2, lowest)
    for i in range(0, 16, LANES):
        low = _code(x + 4 * i, lowest, inverse(scale))
        high = _code(x + 64 + 4 * i, lowest, inverse(scale))
        store_i8(block + 4 + i, low | (high << splat_i32(int32(4))))


@device
def dequantize_block(block, out):
    scale, lowest = get_f16(block), get_f16(block + 2)
    for i in range(16):
        byte = get_u8(block + 4 + i)
        put_f32(out + 4 * i, scale * float32(byte & 15) + lowest)
        put_f32(out + 64 + 4 * i, scale * float32(byte >> 4) + lowest)


FORMAT = make_storage("q4_1", 3, 32, _BYTES, quantize_block=quantize_block, dequantize_block=dequantize_block)
