"""TQ1_0: blocks of 256 ternary values, five to a byte, and one float16 scale: value = scale * (digit - 1).

A byte holds the digits of a fraction in base 3, rounded up: it times 3 ** n, modulo 256, times 3 / 256 is digit n. Byte
i of the first 32 holds values i, i + 32, .. i + 128; of the next 16, values 160 + i, 160 + i + 16, .. 160 + i + 64; of
the last 4 only four, 240 + i, .. 240 + i + 12. The scale follows (ggml's block_tq1_0).
"""

from numba import float32, int32, int64, uint8

from ..fitting import inverse, largest_magnitude
from ..jit import device
from ..simd import LANES, alloca, get_f16, get_u8, put_f16, put_f32, put_u8, store_i8
from .ternary import make_ternary_format
from .tq2_0 import ternary

_BYTES = 54


@device
def _put_digits(codes, block, count, digits):
    """Pack base-3 digits, five to a byte, into `count` bytes.

    Digit d of byte i is at codes + i + count * d; digit 0 is the most significant one.
    """
    for i in range(count):
        number = int64(0)
        for digit in range(5):
            number = 3 * number + (int64(get_u8(codes + i + count * digit)) if digit < digits else 0)
        put_u8(block + i, uint8((number * 256 + 242) // 243))


@device
def _get_digits(block, out, count, digits, scale):
    for digit in range(digits):
        for i in range(count):
            byte = int64(get_u8(block + i))
            for _ in range(digit):
                byte = byte * 3 & 255
            put_f32(out + 4 * (i + count * digit), scale * float32(int32(byte * 3 >> 8) - 1))


@device
def quantize_block(x, block):
    scale = largest_magnitude(x, 256)
    codes = alloca(256)
    for i in range(0, 256, LANES):
        store_i8(codes + i, ternary(x + 4 * i, inverse(scale)))
    _put_digits(codes, block, 32, 5)
    _put_digits(codes + 160, block + 32, 16, 5)
    _put_digits(codes + 240, block + 48, 4, 4)
    put_f16(block + 52, scale)


@device
def dequantize_block(block, out):
    scale = get_f16(block + 52)
    _get_digits(block, out, 32, 5, scale)
    _get_digits(block + 32, out + 640, 16, 5, scale)
    _get_digits(block + 48, out + 960, 4, 4, scale)


FORMAT = make_ternary_format("tq1_0", 34, 256, _BYTES, 52, quantize_block=quantize_block,
                             dequantize_block=dequantize_block)
