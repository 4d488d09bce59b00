"""Q5_1: blocks of 32 values, a float16 scale, a float16 minimum and 5 bits a value: value = scale * 5 bits + minimum.

The 5 bits are stored as in Q5_0, after scale and minimum (ggml's block_q5_1).
"""

from numba import float32

from ..fitting import extremes, inverse
from ..jit import device
from ..simd import LANES, get_f16, load_f32, minimum, put_f16, put_f32, splat_f32, stack, store_i8, to_i32
from .format import make_storage
from .q5_0 import get_code, put_codes

_BYTES = 24


@device
def quantize_block(x, block):
    lowest, highest = extremes(x, 32)
    scale = (highest - lowest) / float32(31.0)
    put_f16(block, scale)
    put_f16(block + 2, lowest)
    codes = stack(32)
    for i in range(0, 32, LANES):
        code = (load_f32(x + 4 * i) - splat_f32(lowest)) * splat_f32(inverse(scale)) + splat_f32(float32(0.5))
        store_i8(codes + i, to_i32(minimum(splat_f32(float32(31.0)), code)))
    put_codes(codes, block + 4)


@device
def dequantize_block(block, out):
    scale, lowest = get_f16(block), get_f16(block + 2)
    for i in range(32):
        put_f32(out + 4 * i, scale * float32(get_code(block + 4, i)) + lowest)


FORMAT = make_storage("q5_1", 7, 32, _BYTES, quantize_block=quantize_block, dequantize_block=dequantize_block)
