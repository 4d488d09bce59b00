"""IQ1_M: blocks of 256 values: value = scale * (2 * group scale + 1) * (-1, 0 or 1, and 1/8 more or less).

A block has for each 8 values the low 8 bits of a number of a grid point, then 4 bits: the top 3 bits of the number, and
whether the values are 1/8 less. The last 8 bytes are four 16-bit numbers, each with the 3-bit scales of 4 groups of 16
values, from the low bits up, and 4 bits of the float16 scale, the low ones first (ggml's block_iq1_m).
"""

from numba import int64, uint16, uint8

from ..jit import device
from ..simd import get_i32, get_u16, get_u8, put_u16, put_u8
from .grid_search import NUMBER_AT
from .grid_tiles import THREE_BITS
from .grids import eight_values, make_grid_format, two_fours
from .ternary_search import ternary_quantizers

_TOPS, _SCALES = 32, 48  # byte offsets
_FOURS = 0x04040404
_point = eight_values("IQ1_M")


@device
def _codes(block, group, n):
    """0, 1 or 2 for -1, 0 or 1, and 4 more where it is 1/8 less."""
    nibble = get_u8(block + _TOPS + 2 * group + n // 2) >> 4 * (n % 2) & 15
    first, second = two_fours(_point(get_u8(block + 4 * group + n) | (nibble & 7) << 8))
    less = (nibble >> 3) * _FOURS
    return first | less, second | less


@device
def _scale_code(block, i):
    return get_u16(block + _SCALES + 2 * (i // 4)) >> 3 * (i % 4) & 7


@device
def _put_scale(block, target):
    parts = block + _SCALES
    put_u16(target, uint16(get_u16(parts) >> 12 | get_u16(parts + 2) >> 12 << 4 | get_u16(parts + 4) >> 12 << 8
                           | get_u16(parts + 6) >> 12 << 12))


@device
def _put_block(block, scale, points, scales, less):
    for i in range(16):
        byte = int64(0)
        for n in range(2):
            number = int64(get_i32(points + 8 * i + 4 * n)) >> NUMBER_AT
            put_u8(block + 2 * i + n, uint8(number))
            byte |= (number >> 8 | int64(get_u8(less + 2 * i + n)) << 3) << 4 * n
        put_u8(block + _TOPS + i, uint8(byte))
    for i in range(4):
        word = (int64(get_u16(scale)) >> 4 * i & 15) << 12
        for n in range(4):
            word |= int64(get_u8(scales + 4 * i + n)) << 3 * n
        put_u16(block + _SCALES + 2 * i, uint16(word))


FORMAT = make_grid_format("iq1_m", 29, 56, THREE_BITS, codes=_codes, scale_code=_scale_code, unit=1 / 8,
                          levels=(-7, 1, 9, 0, -9, -1, 7), group=16, put_scale=_put_scale,
                          quantizers=ternary_quantizers("iq1_m", group=16, part=8, put_block=_put_block))
