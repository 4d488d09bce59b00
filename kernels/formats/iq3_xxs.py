"""IQ3_XXS: blocks of 256 values: value = scale / 2 * (2 * group scale + 1) * sign * one of 2, 6, .. 26, 31.

A block is a float16 scale, for each 4 values the number of a grid point, and for each of 8 groups of 32 values 32 bits:
4 times 7 signs, from the low bits up, of 8 values whose last sign makes the number of minuses even, and the 4-bit scale
of the group (ggml's block_iq3_xxs, whose magnitudes are twice as large).
"""

from numba import uint8

from ..jit import device
from ..simd import get_i32, get_u8, put_i32, put_u8
from .grid_search import NUMBER_AT, even_signs_of, grid_quantizers
from .grid_tiles import NIBBLES
from .grids import four_values, fours_with_signs, make_grid_format, spread_even_signs

_POINTS, _SIGNS = 2, 66  # byte offsets
_LEVELS = (2, 6, 10, 14, 18, 22, 26, 31)
_point = four_values("IQ3_XXS")


@device
def _codes(block, group, n):
    signs = spread_even_signs(get_i32(block + _SIGNS + 4 * group) >> 7 * n & 127)
    points = block + _POINTS + 8 * group + 2 * n
    return fours_with_signs(_point(get_u8(points)), _point(get_u8(points + 1)), signs)


@device
def _scale_code(block, group):
    return get_i32(block + _SIGNS + 4 * group) >> 28 & 15


@device
def _put_block(block, points, scales, signs):
    for i in range(64):
        put_u8(block + _POINTS + i, uint8(get_i32(points + 4 * i) >> NUMBER_AT))
    for group in range(8):
        put_i32(block + _SIGNS + 4 * group, even_signs_of(signs + 4 * group, scales + group))


FORMAT = make_grid_format("iq3_xxs", 18, 98, NIBBLES, codes=_codes, scale_code=_scale_code, unit=0.5,
                          levels=(*_LEVELS, *(-level for level in _LEVELS)),
                          quantizers=grid_quantizers("iq3_xxs", _LEVELS, group=32, even_signs=True, unit=0.5,
                                                     put_block=_put_block))
