"""MXFP4: blocks of 32 values, a power of two as their scale (E8M0) and 4 bits a value (E2M1).

A block is a byte e and 16 bytes of nibbles, whose order is that of Q4_0 (ggml's block_mxfp4): value = 2 ** (e - 128) *
level, with the levels of `e2m1`. 255, E8M0's NaN, is a number as in ggml. In a panel, a block is the bytes e of all
rows, then the nibbles as in `nibbles`.
"""

from numba import float32, int64, uint8

from ..fitting import CANDIDATES, inverse, largest_magnitude
from ..jit import bind, device, hole, template
from ..simd import LANES, alloca, bits_to_float, get_i32, get_u8, panel_e8m0, put_f32, put_u8
from .e2m1 import TABLE, activation, best_code, best_weighted_code, dot_32, put_levels, put_values
from .format import make_format
from .levels import level_tile
from .nibbles import copy_nibbles

_BYTES = 17
_ACTIVATION = activation(group=32)


@device
def _power(e):
    """2 ** (e - 128)"""
    return bits_to_float((1 << 21) << e if e < 2 else (e - 1) << 23)


find_code = hole()


@template
def _fit_exponent(x, weights):
    """The best e for 32 values: that with which the largest one is 4 to 8 times the scale, or one of its neighbours."""
    peak, table = alloca(4), alloca(TABLE)
    put_f32(peak, largest_magnitude(x, 32))
    if get_i32(peak) == 0:
        return int64(0)
    for i in range(CANDIDATES):
        e = max(2, min(254, (get_i32(peak) >> 23 & 255) - 3 + i % 4))
        put_f32(table + 4 * i, _power(e))
        put_f32(table + 4 * CANDIDATES + 4 * i, float32(e))
    return int64(find_code(x, weights, 32, table))


_fit = device(bind(_fit_exponent, "fit_exponent_mxfp4", find_code=best_code))
_fit_weighted = device(bind(_fit_exponent, "fit_weighted_exponent_mxfp4", find_code=best_weighted_code))


@device
def _put_block(x, block, e):
    put_u8(block, uint8(e))
    put_levels(x, block + 1, inverse(_power(e)) if e else float32(0.0), 16)


@device
def quantize_block(x, block):
    _put_block(x, block, _fit(x, 0))


@device
def quantize_weighted(x, weights, block):
    _put_block(x, block, _fit_weighted(x, weights))


@device
def dequantize_block(block, out):
    put_values(block + 1, _power(int64(get_u8(block))), out, 16)


@device
def pack_block(block, panel, lane):
    put_u8(panel + lane, get_u8(block))
    copy_nibbles(block + 1, panel + LANES, lane)


FORMAT = make_format("mxfp4", 39, 32, _BYTES, _ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block, pack_block=pack_block,
                     tile=level_tile("mxfp4", _ACTIVATION, dot_32, panel_e8m0, 1), quantize_weighted=quantize_weighted)
