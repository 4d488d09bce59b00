"""IQ1_S: blocks of 256 values: value = scale * (2 * group scale + 1) * (-1, 0 or 1, and 1/8 more or less).

A block is a float16 scale, for each 8 values the low 8 bits of a number of a grid point, and for each of 8 groups of 32
values 16 bits: 4 times the top 3 bits of a number, from the low bits up, the 3-bit scale of the group, and whether it
is 1/8 less (ggml's block_iq1_s).

In a panel a value is always 1/8 more. Where it is less, the group has the opposite signs in both factors.
"""

from numba import int64, uint16, uint8

from ..jit import device
from ..simd import get_i32, get_u16, get_u8, put_u16, put_u8
from .grid_search import NUMBER_AT
from .grid_tiles import TWO_BITS
from .grids import eight_values, make_grid_format, two_fours
from .ternary_search import ternary_quantizers

_POINTS, _TOPS = 2, 34  # byte offsets
_LESS = 1 << 15
_TWOS = 0x02020202
_point = eight_values("IQ1_S")


@device
def _codes(block, group, n):
    """0, 1 or 2 for -1, 0 or 1."""
    word = get_u16(block + _TOPS + 2 * group)
    first, second = two_fours(_point(get_u8(block + _POINTS + 4 * group + n) | (word >> 3 * n & 7) << 8))
    return (_TWOS - first, _TWOS - second) if word & _LESS else (first, second)


@device
def _scale_code(block, group):
    """c for a scale of 2 c - 15."""
    word = get_u16(block + _TOPS + 2 * group)
    scale = word >> 12 & 7
    return 7 - scale if word & _LESS else 8 + scale


@device
def _put_block(block, scale, points, scales, less):
    put_u16(block, get_u16(scale))
    for group in range(8):
        word = int64(get_u8(scales + group)) << 12 | int64(get_u8(less + group)) << 15
        for n in range(4):
            number = int64(get_i32(points + 16 * group + 4 * n)) >> NUMBER_AT
            put_u8(block + _POINTS + 4 * group + n, uint8(number))
            word |= (number >> 8) << 3 * n
        put_u16(block + _TOPS + 2 * group, uint16(word))


FORMAT = make_grid_format("iq1_s", 19, 50, TWO_BITS, codes=_codes, scale_code=_scale_code, levels=(-7, 1, 9),
                          unit=1 / 8, least=-15,
                          quantizers=ternary_quantizers("iq1_s", group=32, part=32, put_block=_put_block))
