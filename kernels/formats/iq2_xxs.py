"""IQ2_XXS: blocks of 256 values: value = scale / 8 * (2 * group scale + 1) * sign * 8, 25 or 43.

A block is a float16 scale and 8 groups of 32 values: for each 8 values the number of a grid point, and 32 bits with
their signs and the 4-bit scale of the group as in IQ3_XXS (ggml's block_iq2_xxs).
"""

from ..jit import device
from ..simd import get_i32, get_u8
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


FORMAT = make_grid_format("iq2_xxs", 16, 66, THREE_BITS, codes=_codes, scale_code=_scale_code, levels=LEVELS,
                          unit=1 / 8)
