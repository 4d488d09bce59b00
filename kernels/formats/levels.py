"""What formats share whose nibbles are numbers of levels: 16 numbers that are not evenly spaced.

A table gives the level of each nibble, as a byte. Nibbles lie in panels as in `nibbles`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from numba import uint8

from ..activations import BIAS, SCALE, Int8Blocks
from ..jit import bind, device, hole, inlined, template
from ..simd import BY_RUNS, LANES, SIGNED_OFFSET, alloca, begin_block, bits, dot4_signed, dot_run_signed, get_u8
from ..simd import load_f32, panel_bytes, panel_vectors, prefetch_address, prefetch_levels, put_u8, scale_add, splat_f32
from ..simd import steps, store_i8, table_lookup, to_i32, to_matrix, to_rows

_VECTOR = 4 * LANES

lookup = run = nearest_number = dot = load_scale = scale_bytes = block_bytes = step = hole()


# ---- products ----


@template
def _run_of_levels(sums, panel, panel_stride, x, x_stride):
    a, b, c, d = panel_vectors(sums, panel, panel_stride, 4)
    return run(sums, (lookup(bits(a, 0, 15)), lookup(bits(b, 0, 15)), lookup(bits(c, 0, 15)), lookup(bits(d, 0, 15)),
                      lookup(bits(a, 4, 15)), lookup(bits(b, 4, 15)), lookup(bits(c, 4, 15)), lookup(bits(d, 4, 15))),
               x, x_stride)


def run_of_levels(name: str, lookup: Any, run: Any) -> Callable[..., Any]:
    """dot(sums, panel, panel stride, x, x stride) -> sums + 32 products, by `dot_run` or `dot_run_signed`."""
    return inlined(bind(_run_of_levels, f"run_{name}", lookup=lookup, run=run))


@template
def _dot_signed(total, panel, panel_stride, x, x_stride):
    for i in range(4):
        packed = panel_bytes(total, panel + _VECTOR * i, panel_stride)
        total = dot4_signed(total, lookup(bits(packed, 0, 15)), x + 4 * i, x_stride)
        total = dot4_signed(total, lookup(bits(packed, 4, 15)), x + 16 + 4 * i, x_stride)
    return total


def signed_dot(name: str, levels: Sequence[int]) -> Callable[..., Any]:
    """dot(total, panel, panel stride, x, x stride) -> total + 32 products of each row, SIGNED_OFFSET too large.

    levels: int8 numbers.
    """
    lookup = table_lookup([level + SIGNED_OFFSET for level in levels])
    if BY_RUNS:
        return run_of_levels(name, lookup, dot_run_signed)
    return inlined(bind(_dot_signed, f"dot_{name}", lookup=lookup))


@template
def _tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, block_bytes)
        sums = dot(begin_block(acc, x + BIAS, x_stride), panel + scale_bytes, panel_stride, x, x_stride)
        acc = scale_add(acc, sums, load_scale(acc, panel, panel_stride), x + SCALE, x_stride)
        panel += block_bytes
        x += step
    return to_rows(acc)


def level_tile(name: str, activation: Int8Blocks, dot: Callable[..., Any], load_scale: Callable[..., Any],
               scale_bytes: int) -> Callable[..., Any]:
    """The tile of a format with blocks of 32 values: in a panel, the scales of all rows, then the nibbles.

    load_scale: loads the scales of a panel, `scale_bytes` of each row, as float32.
    """
    return device(bind(_tile, f"tile_{name}", dot=dot, load_scale=load_scale, scale_bytes=LANES * scale_bytes,
                       block_bytes=LANES * scale_bytes + 4 * _VECTOR, step=activation.step))


# ---- to blocks ----


def nearest_level(levels: Sequence[int]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions of a tile: the level nearest to each value, and the number of that level, both as float32."""
    numbers = {level: float(number) for number, level in reversed([*enumerate(levels)])}  # the first of two zeros
    ascending = sorted(numbers)
    halfway = [(low + high) / 2 for low, high in pairwise(ascending)]
    nearest, nearest_number = [float(level) for level in ascending], [numbers[level] for level in ascending]
    return steps(halfway, nearest), steps(halfway, nearest_number)


@template
def _put_levels(x, out, inverse_scale, half):
    numbers = alloca(64)
    for i in range(0, 2 * half, LANES):
        store_i8(numbers + i, to_i32(nearest_number(load_f32(x + 4 * i) * splat_f32(inverse_scale))))
    for i in range(half):
        put_u8(out + i, uint8(get_u8(numbers + i) | get_u8(numbers + half + i) << 4))


def level_writer(name: str, nearest_number: Callable[..., Any]) -> Callable[..., Any]:
    """put(x, out, inverse scale, half): nibbles of 2 * half values; byte i holds those of values i and i + half."""
    return device(bind(_put_levels, f"put_levels_{name}", nearest_number=nearest_number))
