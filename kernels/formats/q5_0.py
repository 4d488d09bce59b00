"""Q5_0: blocks of 32 values, one float16 scale and 5 bits a value: value = scale * (5 bits - 16).

A block is the scale, a uint32 of the fifth bits (bit i is value i's) and 16 bytes of low nibbles: byte i holds value i
in its low and value i + 16 in its high nibble (ggml's block_q5_0).
"""

from numba import float32, int32, int64, uint8

from ..fitting import inverse, peak
from ..jit import device
from ..simd import LANES, get_f16, get_i32, get_u8, load_f32, minimum, put_f16, put_f32, put_i32, put_u8, splat_f32
from ..simd import stack, store_i8, to_i32
from .format import make_storage

_BYTES = 22


@device
def put_codes(codes, packed):
    """32 bytes of 0 .. 31 as fifth bits and nibbles."""
    fifth = int64(0)
    for i in range(16):
        low, high = int64(get_u8(codes + i)), int64(get_u8(codes + 16 + i))
        fifth |= (low >> 4) << i | (high >> 4) << (i + 16)
        put_u8(packed + 4 + i, uint8((low & 15) | (high & 15) << 4))
    put_i32(packed, int32(fifth))


@device
def get_code(packed, i):
    """Code i of what `put_codes` has put."""
    nibble = get_u8(packed + 4 + i % 16) >> (4 * (i // 16))
    return (nibble & 15) | ((get_i32(packed) >> i) & 1) << 4


@device
def quantize_block(x, block):
    scale = peak(x, 32) / float32(-16.0)
    put_f16(block, scale)
    codes = stack(32)
    for i in range(0, 32, LANES):
        code = load_f32(x + 4 * i) * splat_f32(inverse(scale)) + splat_f32(float32(16.5))
        store_i8(codes + i, to_i32(minimum(splat_f32(float32(31.0)), code)))
    put_codes(codes, block + 2)


@device
def dequantize_block(block, out):
    scale = get_f16(block)
    for i in range(32):
        put_f32(out + 4 * i, scale * float32(get_code(block + 2, i) - 16))


FORMAT = make_storage("q5_0", 6, 32, _BYTES, quantize_block=quantize_block, dequantize_block=dequantize_block)
