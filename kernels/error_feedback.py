"""Round a matrix column by column, so that each column makes up for the errors of those before it.

The method is GPTQ's (Frantar et al., arXiv:2210.17323), in the form of LDLQ (Chee et al., arXiv:2307.13304), which is
the same. A row w of weights becomes v, so that (w - v) H (w - v)^T is small, with H = R R^T, R upper triangular. That
is the sum over columns k of

    importance[k] * (w[k] + sum over i < k of (w[i] - v[i]) * factors[i][k] - v[k]) ** 2

with importance[k] = R[k][k] ** 2 and factors[i][k] = R[i][k] / R[k][k]. So each v[k] is the value of the grid that is
nearest to w[k] with what comes from the columns before it. The scales of a block are searched when the block is
reached, for the values that it then has, with the importance of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .jit import Kernel, bind, device, hole, kernel, template
from numba import float32  # isort: skip

from .fitting import inverse
from .simd import LANES, alloca, atomic_add, fma, get_f32, load_f32, put_f32, splat_f32, store_f32

SPAN = 256  # columns that a sweep takes: whole blocks of every format
_VECTOR = 4 * LANES

nearest_level = scale_and_offset = put_codes = quantize_block = hole()  # of a format
block_values = block_bytes = group = table_bytes = lowest = highest = middles = levels = hole()


@dataclass(frozen=True)
class Grid:
    """The values of a block whose scales are fixed: scale * level - offset."""

    group: int  # values that share a scale and an offset
    scale_and_offset: Callable[..., Any]  # (block, number of the group): two float32
    nearest: Callable[..., Any]  # a float32 to the nearest level
    put_codes: Callable[..., Any]  # (float32 address, block): store the codes of values; scales stay


@template
def _nearest_whole(x):
    return max(float32(lowest), min(float32(highest), float32(round(x))))


def whole_levels(name: str, lowest: int, highest: int) -> Callable[..., Any]:
    """The `nearest` of a grid whose levels are whole numbers."""
    return device(bind(_nearest_whole, f"nearest_whole_{name}", lowest=lowest, highest=highest))


@template
def _nearest_of_levels(x):
    level = float32(levels[0])
    for i in range(len(middles)):
        level = float32(levels[i + 1]) if x > float32(middles[i]) else level
    return level


def listed_levels(name: str, levels: Sequence[int]) -> Callable[..., Any]:
    """The same, where they are not evenly spaced."""
    ascending = tuple(sorted(set(levels)))
    middles = tuple((low + high) / 2 for low, high in pairwise(ascending))
    return device(bind(_nearest_of_levels, f"nearest_of_levels_{name}", levels=ascending, middles=middles))


@template
def _sweep(work, thread, threads, rows, columns, x, x_bytes, weights, weight_bytes, importance, factors, factor_bytes,
           target, target_bytes):
    """Quantize `columns` columns, up to SPAN, of each row to whole blocks.

    x: float32, a row's values with what comes from columns before; it is overwritten. weights: float32, the row's own
    values; errors take their place. factors: float32 [columns][columns], of which only i < k is not 0. *_bytes: of a
    row.
    """
    values = alloca(table_bytes)
    scale = offset = inverse_scale = float32(0.0)
    row = atomic_add(work, 1)
    while row < rows:
        here, own, block = x + row * x_bytes, weights + row * weight_bytes, target + row * target_bytes
        for first in range(0, columns, block_values):
            quantize_block(here + 4 * first, importance + 4 * first, block)
            for i in range(block_values):
                if i % group == 0:
                    scale, offset = scale_and_offset(block, i // group)
                    inverse_scale = inverse(scale)
                k = first + i
                value = scale * nearest_level((get_f32(here + 4 * k) + offset) * inverse_scale) - offset
                put_f32(values + 4 * i, value)
                error = get_f32(own + 4 * k) - value
                put_f32(own + 4 * k, error)
                factor = factors + k * factor_bytes
                for at in range(4 * (k // LANES * LANES), 4 * columns, _VECTOR):
                    store_f32(here + at, fma(splat_f32(error), load_f32(factor + at), load_f32(here + at)))
            put_codes(values, block)
            block += block_bytes
        row = atomic_add(work, 1)


@template
def _without_weights(x, weights, block):
    quantize_block(x, block)


def sweeper(name: str, grid: Grid, block: int, block_bytes: int, quantize_block: Callable[..., Any],
            quantize_weighted: Callable[..., Any] | None) -> Kernel:
    """The kernel `_sweep` of a format."""
    weighted = quantize_weighted or device(bind(_without_weights, f"quantize_{name}_without_weights",
                                                quantize_block=quantize_block))
    return kernel(bind(_sweep, f"sweep_{name}", block_values=block, block_bytes=block_bytes, group=grid.group,
                       table_bytes=4 * block, nearest_level=grid.nearest, scale_and_offset=grid.scale_and_offset,
                       put_codes=grid.put_codes, quantize_block=weighted))
