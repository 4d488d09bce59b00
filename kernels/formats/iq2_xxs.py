"""IQ2_XXS: blocks of 256 values: value = scale / 8 * (2 * group scale + 1) * sign * 8, 25 or 43.

A block is a float16 scale and 8 groups of 32 values: for each 8 values the number of a grid point, and 32 bits with
their signs and the 4-bit scale of the group as in IQ3_XXS (ggml's block_iq2_xxs).
"""

from ..jit import device
from ..simd import get_i32, get_u8
from .grid_tiles import THREE_BITS
from .grids import eight_values, make_grid_format, spread_even_signs

LEVELS = (8, 25, 43, 0, -8, -25, -43)  # no grid point has the fourth
_GROUPS = 2  # byte offset
_point = eight_values("IQ2_XXS")


@device
def _code_word(block, group, i):
    at = block + _GROUPS + 8 * group
    if i < 2:
        return _point(get_u8(at + 2 * i)) | _point(get_u8(at + 2 * i + 1)) << 4
    signs = get_i32(at + 4)
    return (spread_even_signs(signs & 127) | spread_even_signs(signs >> 7 & 127) << 2
            | spread_even_signs(signs >> 14 & 127) << 4 | spread_even_signs(signs >> 21 & 127) << 6)


@device
def _scale_code(block, group):
    return get_i32(block + _GROUPS + 8 * group + 4) >> 28 & 15


FORMAT = make_grid_format("iq2_xxs", 16, 66, THREE_BITS, code_word=_code_word, scale_code=_scale_code, levels=LEVELS,
                          unit=1 / 8)
