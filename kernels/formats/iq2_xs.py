"""IQ2_XS: blocks of 256 values: value = scale / 8 * (2 * group scale + 1) * sign * 8, 25 or 43.

A block is a float16 scale, for each 8 values 16 bits (the number of a grid point in 9 of them, then 7 signs as in
IQ3_XXS), and the 4-bit scales of 16 groups of 16 values, two in a byte (ggml's block_iq2_xs).
"""

from numba import uint16

from ..jit import device
from ..simd import get_i32, get_u16, get_u8, put_u16
from .grid_search import NUMBER_AT, grid_quantizers, put_scales
from .grid_tiles import THREE_BITS
from .grids import eight_values, eight_with_signs, make_grid_format, spread_even_signs
from .iq2_xxs import LEVELS

_POINTS, _SCALES = 2, 66  # byte offsets
_point = eight_values("IQ2_XS")


@device
def _codes(block, group, n):
    word = get_u16(block + _POINTS + 8 * group + 2 * n)
    return eight_with_signs(_point(word & 511), spread_even_signs(word >> 9))


@device
def _scale_code(block, i):
    return get_u8(block + _SCALES + i // 2) >> 4 * (i % 2) & 15


@device
def _put_block(block, points, scales, signs):
    for i in range(32):
        number = get_i32(points + 4 * i) >> NUMBER_AT
        put_u16(block + _POINTS + 2 * i, uint16(number | (get_u8(signs + i) & 127) << 9))
    put_scales(scales, block + _SCALES, 16)


FORMAT = make_grid_format("iq2_xs", 17, 74, THREE_BITS, codes=_codes, scale_code=_scale_code, levels=LEVELS,
                          unit=1 / 8, group=16,
                          quantizers=grid_quantizers("iq2_xs", LEVELS[:3], group=16, even_signs=True, unit=1 / 8,
                                                     put_block=_put_block))
