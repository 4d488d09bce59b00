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
_SPAN_BYTES = 4 * SPAN

nearest_level = scale_and_offset = put_codes = quantize_block = round_block = hole()  # of a format
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
def _round_block(x, weights, importance, factors, factor_bytes, first, columns, block, values, seen):
    """Round a block's columns, from `first` on, to the grid that the block has, and feed errors to all columns behind.

    Stores the values, and what they stand for, at `values` and `seen`. Returns the sum of weighted errors.
    """
    loss = scale = offset = inverse_scale = float32(0.0)
    for i in range(block_values):
        if i % group == 0:
            scale, offset = scale_and_offset(block, i // group)
            inverse_scale = inverse(scale)
        k = first + i
        wanted = get_f32(x + 4 * k)
        value = scale * nearest_level((wanted + offset) * inverse_scale) - offset
        put_f32(values + 4 * i, value)
        put_f32(seen + 4 * i, wanted)
        loss += (wanted - value) * (wanted - value) * get_f32(importance + 4 * k)
        error = splat_f32(get_f32(weights + 4 * k) - value)
        factor = factors + k * factor_bytes
        for at in range(4 * (k // LANES * LANES), 4 * columns, _VECTOR):
            store_f32(x + at, fma(error, load_f32(factor + at), load_f32(x + at)))
    return loss


@device
def _copy(source, target, nbytes):
    for at in range(0, nbytes, _VECTOR):
        store_f32(target + at, load_f32(source + at))


@template
def _sweep(work, thread, threads, rows, columns, x, x_bytes, weights, weight_bytes, importance, factors, factor_bytes,
           target, target_bytes, rounds):
    """Quantize `columns` columns, up to SPAN, of each row to whole blocks.

    x: float32, a row's values with what comes from columns before; it is overwritten. weights: float32, the row's own
    values; errors take their place. factors: float32 [columns][columns], of which only i < k is not 0. *_bytes: of a
    row. rounds: how often scales are searched anew, for what columns became when those before them in the block were
    rounded; the best are taken.
    """
    values, seen, before = alloca(table_bytes), alloca(table_bytes), alloca(_SPAN_BYTES)
    fitted, best = alloca(table_bytes), alloca(table_bytes)
    row = atomic_add(work, 1)
    while row < rows:
        here, own, block = x + row * x_bytes, weights + row * weight_bytes, target + row * target_bytes
        for first in range(0, columns, block_values):
            rest = 4 * (columns - first)
            _copy(here + 4 * first, before, rest)
            _copy(before, seen, table_bytes)
            least = float32(3.4028235e38)
            for i in range(rounds + 1):
                _copy(seen, fitted, table_bytes)
                quantize_block(fitted, importance + 4 * first, block)
                loss = round_block(here, own, importance, factors, factor_bytes, first, columns, block, values, seen)
                if i == rounds and loss <= least:
                    break
                if loss < least:
                    least = loss
                    _copy(fitted, best, table_bytes)
                _copy(before, here + 4 * first, rest)
            else:
                quantize_block(best, importance + 4 * first, block)
                round_block(here, own, importance, factors, factor_bytes, first, columns, block, values, seen)
            put_codes(values, block)
            for i in range(block_values):
                put_f32(own + 4 * (first + i), get_f32(own + 4 * (first + i)) - get_f32(values + 4 * i))
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
    round_block = device(bind(_round_block, f"round_block_{name}", block_values=block, group=grid.group,
                              nearest_level=grid.nearest, scale_and_offset=grid.scale_and_offset))
    return kernel(bind(_sweep, f"sweep_{name}", block_values=block, block_bytes=block_bytes, table_bytes=4 * block,
                       round_block=round_block, put_codes=grid.put_codes, quantize_block=weighted))
