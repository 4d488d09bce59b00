"""What the formats share whose blocks hold numbers of grid points: 4 or 8 magnitudes that stand in a table.

A block has 256 values and one float16 scale. Each 16 or 32 values have a scale of 4 bits, c, with which
value = scale * unit * (2 c + least) * level. Points are looked up when blocks are packed. In a panel each value has a
code of its own, as a `Layout` says; a table of the format gives the levels of the codes.

A block of a panel is the float16 scales of all rows, their 4-bit scales (two in a byte, the first one in the low
nibble: the first bytes of all rows, the second ones, ..), and the vectors of codes of each 32 values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numba import float32, uint8

from ..activations import Int8Blocks
from ..jit import bind, device, hole, template
from ..simd import LANES, alloca, get_f16, get_u16, number_table, put_f32, put_u16, put_u8
from .format import Format, make_format
from .grid_tiles import Layout

_VECTOR = 4 * LANES
_ONES = 0x01010101


# ---- tables ----


def grid_codes(name: str) -> np.ndarray:
    """The points of a type's grid, by the gguf package: uint8 [points][4 or 8], each magnitude as its rank."""
    from gguf import quants  # here, since most models need no grid

    kind = getattr(quants, name)
    kind.init_grid()
    return np.searchsorted(kind.grid_map, kind.grid.reshape(kind.grid_shape)).astype(np.uint8)


def four_values(name: str) -> Any:
    """point(number): the four magnitudes of a point of a type's grid, a byte each."""
    return number_table(lambda: grid_codes(name).view("<u4").ravel().tolist())


def eight_values(name: str) -> Any:
    """point(number): byte j has two bits for magnitude j and two for magnitude j + 4 of a point of a type's grid."""
    return number_table(lambda: (grid_codes(name)[:, :4] | grid_codes(name)[:, 4:] << 2).view("<u4").ravel().tolist())


def _spread(signs: int) -> int:
    return sum((signs >> j & 1 | (signs >> j + 4 & 1) << 1) << 8 * j for j in range(4))


# Of 8 signs: byte j has a bit for sign j and one for sign j + 4.
spread_signs = number_table(lambda: [_spread(signs) for signs in range(256)])
# Of 7 signs, after which the eighth makes the number of ones even.
spread_even_signs = number_table(lambda: [_spread(signs | signs.bit_count() % 2 << 7) for signs in range(128)])


@device
def fours_with_signs(first, second, signs):
    """Two fours of magnitudes of 3 bits, a byte each, and before each its sign. `signs` are spread."""
    return first | (signs & _ONES) << 3, second | (signs & 2 * _ONES) << 2


@device
def two_fours(point):
    """The magnitudes of a point of eight values, a byte each: the first four, and the last four."""
    return point & 3 * _ONES, point >> 2 & 3 * _ONES


@device
def eight_with_signs(point, signs):
    """The magnitudes of a point of eight values, and before each its sign."""
    first, second = two_fours(point)
    return first | (signs & _ONES) << 2, second | (signs & 2 * _ONES) << 1


# ---- blocks ----


put_codes = scale_code = code = pairs = groups = words = put_scale = least = unit = levels = hole()


@device
def _put_first(block, target):
    put_u16(target, get_u16(block))


@template
def _pack_block(block, panel, lane):
    put_scale(block, panel + 2 * lane)
    panel += 2 * LANES
    for pair in range(pairs):
        put_u8(panel + lane, uint8(scale_code(block, 2 * pair) | scale_code(block, 2 * pair + 1) << 4))
        panel += LANES
    for group in range(8):
        put_codes(block, group, panel + 4 * lane, _VECTOR)
        panel += words * _VECTOR


@template
def _dequantize_block(block, out):
    row = alloca(16)
    put_scale(block, row)
    scale = get_f16(row) * float32(unit)
    for group in range(8):
        put_codes(block, group, row, 4)
        for i in range(32):
            scale_of = scale_code(block, (32 * group + i) // (16 * groups))
            group_scale = scale * float32(2 * scale_of + least)
            put_f32(out + 128 * group + 4 * i, group_scale * float32(levels[code(row, i)]))


def make_grid_format(name: str, type_id: int, block_bytes: int, layout: Layout, *, codes: Callable[..., Any],
                     scale_code: Callable[..., Any], levels: Sequence[int], unit: float, least: int = 1,
                     group: int = 32, put_scale: Callable[..., Any] = _put_first,
                     quantizers: Mapping[str, Callable[..., Any]] | None = None) -> Format:
    """A format of grid points.

    codes(block, group, n): the codes of the n-th eight of 32 values: the first four and the last four, a byte each.
    scale_code(block, i): the i-th of the 4-bit scales.
    levels: by code. group: how many values have a 4-bit scale of their own, 16 or 32.
    put_scale(block, target): copy the float16 scale of a block. By default it is what comes first.
    quantizers: quantize_block and quantize_weighted; None if lcpu only reads the format.
    """
    activation = Int8Blocks(offset=-min(levels), group=group)
    groups = group // 16  # of 32 values, for a pair of scales
    parts = {"put_scale": put_scale, "scale_code": scale_code,
             "put_codes": device(bind(layout.put, f"put_codes_{name}", codes_of=codes))}
    unpack = bind(_dequantize_block, f"dequantize_block_{name}", code=layout.code, least=least, unit=unit,
                  groups=groups, levels=tuple(levels), **parts)
    return make_format(
        name, type_id, 256, block_bytes, activation, dequantize_block=device(unpack),
        **quantizers or {"quantize_block": None},
        pack_block=device(bind(_pack_block, f"pack_block_{name}", pairs=8 // groups, words=layout.words,
                         **parts)),
        tile=layout.tile(name, activation, levels, unit, least),
        panel_block_bytes=2 + 8 // groups + 32 * layout.words)
