"""IQ3_S: blocks of 256 values: value = scale * (2 * group scale + 1) * sign * one of 1, 3, .. 15.

A block is a float16 scale, for each 4 values the low 8 bits of a number of a grid point, for each 32 values a byte with
the ninth bits (bit i for its i-th four), 32 bytes of signs, a bit a value, and the 4-bit scales of the 8 groups of 32
values, two in a byte (ggml's block_iq3_s).
"""

from numba import uint8

from ..jit import device
from ..simd import get_i32, get_u8, put_u8
from .grid_search import NUMBER_AT, grid_quantizers, put_scales
from .grid_tiles import NIBBLES
from .grids import four_values, fours_with_signs, make_grid_format, spread_signs

_POINTS, _NINTHS, _SIGNS, _SCALES = 2, 66, 74, 106  # byte offsets
_LEVELS = (1, 3, 5, 7, 9, 11, 13, 15)
_point = four_values("IQ3_S")


@device
def _point_at(block, group, i):
    """The magnitudes of the i-th four values of a group."""
    return _point(get_u8(block + _POINTS + 8 * group + i) | (get_u8(block + _NINTHS + group) >> i & 1) << 8)


@device
def _codes(block, group, n):
    signs = spread_signs(get_u8(block + _SIGNS + 4 * group + n))
    return fours_with_signs(_point_at(block, group, 2 * n), _point_at(block, group, 2 * n + 1), signs)


@device
def _scale_code(block, group):
    return get_u8(block + _SCALES + group // 2) >> 4 * (group % 2) & 15


@device
def _put_block(block, points, scales, signs):
    for group in range(8):
        ninths = 0
        for i in range(8):
            number = get_i32(points + 32 * group + 4 * i) >> NUMBER_AT
            put_u8(block + _POINTS + 8 * group + i, uint8(number))
            ninths |= (number >> 8) << i
        put_u8(block + _NINTHS + group, uint8(ninths))
    for i in range(32):
        put_u8(block + _SIGNS + i, get_u8(signs + i))
    put_scales(scales, block + _SCALES, 8)


FORMAT = make_grid_format("iq3_s", 21, 110, NIBBLES, codes=_codes, scale_code=_scale_code, unit=1.0,
                          levels=(*_LEVELS, *(-level for level in _LEVELS)),
                          quantizers=grid_quantizers("iq3_s", _LEVELS, group=32, even_signs=False, unit=1.0,
                                                     put_block=_put_block))
