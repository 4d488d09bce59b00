"""IQ2_S: blocks of 256 values: value = scale / 8 * (2 * group scale + 1) * sign * 8, 25 or 43.

A block is a float16 scale, for each 8 values the low 8 bits of a number of a grid point, 32 bytes of signs, a bit a
value, for each 32 values a byte with the top 2 bits of their 4 numbers, from the low bits up, and the 4-bit scales of
16 groups of 16 values, two in a byte (ggml's block_iq2_s).
"""

from numba import uint8

from ..jit import device
from ..simd import get_i32, get_u8, put_u8
from .grid_search import NUMBER_AT, grid_quantizers, put_scales
from .grid_tiles import THREE_BITS
from .grids import eight_values, eight_with_signs, make_grid_format, spread_signs
from .iq2_xxs import LEVELS

_POINTS, _SIGNS, _TOPS, _SCALES = 2, 34, 66, 74  # byte offsets
_point = eight_values("IQ2_S")


@device
def _codes(block, group, n):
    i = 4 * group + n
    point = get_u8(block + _POINTS + i) | (get_u8(block + _TOPS + group) >> 2 * n & 3) << 8
    return eight_with_signs(_point(point), spread_signs(get_u8(block + _SIGNS + i)))


@device
def _scale_code(block, i):
    return get_u8(block + _SCALES + i // 2) >> 4 * (i % 2) & 15


@device
def _put_block(block, points, scales, signs):
    for group in range(8):
        tops = 0
        for i in range(4):
            number = get_i32(points + 16 * group + 4 * i) >> NUMBER_AT
            put_u8(block + _POINTS + 4 * group + i, uint8(number))
            tops |= (number >> 8) << 2 * i
        put_u8(block + _TOPS + group, uint8(tops))
    for i in range(32):
        put_u8(block + _SIGNS + i, get_u8(signs + i))
    put_scales(scales, block + _SCALES, 16)


FORMAT = make_grid_format("iq2_s", 22, 82, THREE_BITS, codes=_codes, scale_code=_scale_code, levels=LEVELS,
                          unit=1 / 8, group=16,
                          quantizers=grid_quantizers("iq2_s", LEVELS[:3], group=16, even_signs=False, unit=1 / 8,
                                                     put_block=_put_block))
