"""Q2_0: blocks of 64 values, one float16 scale and 2 bits a value: value = scale * (2 bits - 1), so -1, 0, 1 or 2.

Byte i of a block's 16 holds values 4 i .. 4 i + 3, from its low bits up (ggml's block_q2_0).
"""

from numba import float32, uint8

from ..fitting import inverse, ramp, scale_fitter, weighted_scale_fitter
from ..jit import device
from ..simd import LANES, alloca, get_f16, get_u8, load_f32, maximum, minimum, put_f16, put_f32, put_u8, rint, splat_f32
from ..simd import store_i8, to_i32
from .ternary import make_ternary_format

_BYTES = 18


@device
def _nearest(x):
    return minimum(splat_f32(float32(2.0)), maximum(splat_f32(float32(-1.0)), rint(x)))


_fit_scale = scale_fitter("q2_0", _nearest, 2.0)
_fit_weighted_scale = weighted_scale_fitter("q2_0", _nearest, 2.0)


@device
def _put_codes(x, block):
    factor = splat_f32(inverse(get_f16(block)))
    codes = alloca(64)
    for i in range(0, 64, LANES):
        store_i8(codes + i, to_i32(_nearest(load_f32(x + 4 * i) * factor) + splat_f32(float32(1.0))))
    for i in range(16):
        byte = 0
        for plane in range(4):
            byte |= get_u8(codes + 4 * i + plane) << (2 * plane)
        put_u8(block + 2 + i, uint8(byte))


@device
def quantize_block(x, block):
    put_f16(block, _fit_scale(x, 64, ramp(float32(-2.4), float32(0.32))))
    _put_codes(x, block)


@device
def quantize_weighted(x, weights, block):
    put_f16(block, _fit_weighted_scale(x, weights, 64, ramp(float32(-2.4), float32(0.32))))
    _put_codes(x, block)


@device
def dequantize_block(block, out):
    scale = get_f16(block)
    for i in range(64):
        code = get_u8(block + 2 + i // 4) >> (2 * (i % 4)) & 3
        put_f32(out + 4 * i, scale * float32(code - 1))


FORMAT = make_ternary_format("q2_0", 42, 64, _BYTES, 0, quantize_block=quantize_block,
                             dequantize_block=dequantize_block, quantize_weighted=quantize_weighted)
