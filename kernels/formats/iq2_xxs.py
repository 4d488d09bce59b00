"""IQ2_XXS: blocks of 256 values: value = scale / 8 * (2 * group scale + 1) * sign * 8, 25 or 43.

A block is a float16 scale and 8 groups of 32 values: for each 8 values the number of a grid point, and 32 bits with
their signs and the 4-bit scale of the group as in IQ3_XXS (ggml's block_iq2_xxs).
"""

from numba import uint8

from ..jit import device
from ..simd import get_i32, get_u8, put_i32, put_u8
from .grid_search import NUMBER_AT, even_signs_of, grid_quantizers
from .grid_tiles import THREE_BITS
from .grids import eight_values, eight_with_signs, make_grid_format, spread_even_signs

LEVELS = (8, 25, 43, 0, -8, -25, -43)  # no grid point has the fourth
_GROUPS = 2  # byte offset
_point = eight_values("IQ2_XXS")


@device
def _codes(block, group, n):
    at = block + _GROUPS + 8 * group
    return eight_with_signs(_point(get_u8(at + n)), spread_even_signs(get_i32(at + 4) >> 7 * n & 127))


@device
def _scale_code(block, group):
    return get_i32(block + _GROUPS + 8 * group + 4) >> 28 & 15


@device
def _put_block(block, points, scales, signs):
    for group in range(8):
        at = block + _GROUPS + 8 * group
        for i in range(4):
            put_u8(at + i, uint8(get_i32(points + 16 * group + 4 * i) >> NUMBER_AT))
        put_i32(at + 4, even_signs_of(signs + 4 * group, scales + group))


FORMAT = make_grid_format("iq2_xxs", 16, 66, THREE_BITS, codes=_codes, scale_code=_scale_code, levels=LEVELS,
                          unit=1 / 8,
                          quantizers=grid_quantizers("iq2_xxs", LEVELS[:3], group=32, even_signs=True, unit=1 / 8,
                                                     put_block=_put_block))
