"""Fit float32 values with weights to a block: the scale with the smallest weighted error, of all that there are.

With a scale s, each value gets the code nearest to value / s. As 1 / s grows, one code after the other changes: where
a value / s passes the middle of two codes. Between two such places the codes stay, and the best scale for them is
known. So it is enough to try one scale between each two: a few hundred for 32 values.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from numba import float32, int64

from .fitting import CANDIDATES, fit_weighted_scale_and_offset, inverse, peak, ramp
from .jit import bind, device, hole, template
from .simd import LANES, absolute, alloca, append_within, at_argmax, fma, get_f16, get_f32, load_f32, load_tile
from .simd import maximum, minimum, put_f16, put_f32, put_i64, reduce_add, reduce_max, rint, splat_f32, square_root
from .simd import where_greater, zeros, zeros_f32

_VECTORS = CANDIDATES // LANES
_VECTOR = 4 * LANES
_TILE = 4 * CANDIDATES  # bytes
_TWO_TILES, _FOUR_TILES = 2 * _TILE, 4 * _TILE
_JUST_BEHIND = 1 + 2**-20  # where a code changes

nearest = above = below = first = largest = table_bytes = sums = changes = bounds = hole()  # of a format's codes


@template
def _sums(x, weights, values, inverses):
    """Sums of weight * code * value and of weight * code ** 2, with a scale in each lane."""
    sum_cx = sum_cc = zeros_f32(inverses)
    for i in range(values):
        value, weight = splat_f32(get_f32(x + 4 * i)), splat_f32(get_f32(weights + 4 * i))
        code = nearest(value * inverses)
        weighted = code * weight
        sum_cx = fma(weighted, value, sum_cx)
        sum_cc = fma(weighted, code, sum_cc)
    return sum_cx, sum_cc


@template
def _changes(x, values, sign, lowest, highest, table):
    """Store all 1 / s, between two bounds, at which a code changes; their count. s has this sign."""
    count = 0
    zero = splat_f32(float32(0.0))
    for i in range(0, values, LANES):
        value = load_f32(x + 4 * i) * splat_f32(sign)
        factor = splat_f32(float32(_JUST_BEHIND)) / absolute(value)
        for k in range(len(above)):
            middle = where_greater(value, zero, splat_f32(float32(above[k])), splat_f32(float32(below[k])))
            count += append_within(table + 4 * count, middle * factor, lowest, highest)
    return count


@template
def _bounds(x, weights, values, inverses):
    """The lowest and the highest 1 / s that can be best, by magnitude. inverses: some to compare with.

    A value that is cut off at the largest code has at least the error of that, which may not exceed the error of the
    best of `inverses`.
    """
    error, reach = splat_f32(float32(0.0)), splat_f32(float32(0.0))
    top = splat_f32(float32(0.0))
    for i in range(0, values, LANES):
        value, weight = load_f32(x + 4 * i), load_f32(weights + 4 * i)
        error = fma(value * value, weight, error)
        top = maximum(top, absolute(value))
    sum_cx, sum_cc = sums(x, weights, values, inverses)
    gains = sum_cx * sum_cx / sum_cc
    total = reduce_add(error)
    rest = max(float32(0.0), total - at_argmax(gains, gains)) + float32(1e-5) * total
    for i in range(0, values, LANES):
        cut = square_root(splat_f32(rest) / load_f32(weights + 4 * i))
        reach = maximum(reach, absolute(load_f32(x + 4 * i)) - cut)
    peak = reduce_max(top)
    return float32(first) / peak, float32(largest) / max(reduce_max(reach), float32(1e-3) * peak)


@template
def _best_scale(x, weights, values):
    """The scale with the smallest weighted error of scale * code; 0 for values that are all near 0."""
    value = peak(x, values)
    if abs(value) < float32(1e-15):
        return float32(0.0)
    guesses = ramp(float32(-0.8 * largest), float32(-0.04 * largest)) / splat_f32(value)
    lowest, highest = bounds(x, weights, values, guesses)
    table = alloca(table_bytes)
    best_gains = best = zeros(1, _VECTORS)
    for sign in (float32(1.0), float32(-1.0)):
        put_f32(table, lowest)
        count = 1 + changes(x, values, sign, lowest, highest, table + 4)
        for i in range(CANDIDATES):
            put_f32(table + 4 * (count + i), lowest)
        for start in range(0, count, CANDIDATES):
            inverses = load_tile(best, table + 4 * start, 0, _VECTOR) * splat_f32(sign)
            sum_cx, sum_cc = sums(x, weights, values, inverses)
            scales = sum_cx / sum_cc
            gains = scales * sum_cx
            best = where_greater(gains, best_gains, scales, best)
            best_gains = where_greater(gains, best_gains, gains, best_gains)
    return at_argmax(best_gains, best)


def best_scale_finder(name: str, nearest: Callable[..., Any], levels: Sequence[float], first: float,
                      values: int) -> Callable[..., Any]:
    """find(x, weights, values): `_best_scale` for blocks of up to so many values.

    nearest: rounds a tile to the nearest of `levels`. first: no scale is so large that the largest value is less than
    this times the scale.
    """
    ascending = sorted(set(levels))
    middles = [(low + high) / 2 for low, high in pairwise(ascending)]
    above, below = [m for m in middles if m > 0], [-m for m in middles if m < 0][::-1]
    count = max(len(above), len(below))
    sides = {"above": (*above, *[1e30] * (count - len(above))), "below": (*below, *[1e30] * (count - len(below)))}
    sums = device(bind(_sums, f"sums_{name}", nearest=nearest))
    largest = max(abs(level) for level in levels)
    changes = device(bind(_changes, f"changes_{name}", **sides))
    bounds = device(bind(_bounds, f"bounds_{name}", sums=sums, first=first, largest=largest))
    return device(bind(_best_scale, f"best_scale_{name}", sums=sums, changes=changes, bounds=bounds, largest=largest,
                       table_bytes=4 * (1 + count * values + 2 * CANDIDATES)))


# ---- scales that are whole numbers, times one of the whole block ----


@template
def _best_of_scales(x, weights, values, unit, middle, lowest, highest):
    """The whole number n around `middle`, and between two others, with the smallest error of n * unit * code."""
    table = alloca(_TWO_TILES)
    for i in range(CANDIDATES):
        number = max(lowest, min(highest, middle - CANDIDATES // 2 + i))
        put_f32(table + 4 * i, float32(number))
        put_f32(table + _TILE + 4 * i, inverse(float32(number) * unit))
    errors = zeros(1, _VECTORS)
    numbers, inverses = load_tile(errors, table, 0, _VECTOR), load_tile(errors, table + _TILE, 0, _VECTOR)
    scales = numbers * splat_f32(unit)
    for i in range(values):
        value = splat_f32(get_f32(x + 4 * i))
        difference = value - nearest(value * inverses) * scales
        errors = fma(difference * difference, splat_f32(get_f32(weights + 4 * i)), errors)
    return int64(at_argmax(zeros_f32(errors) - errors, numbers))


@device
def best_of_pairs(x, weights, values, top, unit, offset_unit, scale, offset, most):
    """The two whole numbers around `scale` and `offset`, up to `most` (63 or less), with the smallest error.

    That is of unit * scale * code - offset_unit * offset, code = 0 .. top.
    """
    table = alloca(_FOUR_TILES)
    for i in range(CANDIDATES):
        n, m = max(0, min(most, scale - 1 + i % 3)), max(0, min(most, offset - 2 + i // 3 % 5))
        put_f32(table + 4 * i, float32(n) * unit)
        put_f32(table + _TILE + 4 * i, inverse(float32(n) * unit))
        put_f32(table + 2 * _TILE + 4 * i, float32(m) * offset_unit)
        put_f32(table + 3 * _TILE + 4 * i, float32(64 * n + m))
    errors = zero = zeros(1, _VECTORS)
    scales, inverses = load_tile(zero, table, 0, _VECTOR), load_tile(zero, table + _TILE, 0, _VECTOR)
    offsets = load_tile(zero, table + 2 * _TILE, 0, _VECTOR)
    for i in range(values):
        shifted = splat_f32(get_f32(x + 4 * i)) + offsets
        code = maximum(zero, minimum(splat_f32(top), rint(shifted * inverses)))
        difference = shifted - code * scales
        errors = fma(difference * difference, splat_f32(get_f32(weights + 4 * i)), errors)
    best = int64(at_argmax(zero - errors, load_tile(zero, table + 3 * _TILE, 0, _VECTOR)))
    return best // 64, best % 64


fit_group = choose = put_pair = groups = group = lowest = highest = most = scale_at = hole()


@template
def _fit_scales(x, weights, block, numbers, steps):
    """Store a block's float16 scale, and at `numbers` an int64 for each group: its scale is this times the block's."""
    fits = alloca(64)
    largest = float32(0.0)
    for i in range(groups):
        scale = fit_group(x + 4 * group * i, weights + 4 * group * i, group, steps)
        put_f32(fits + 4 * i, scale)
        largest = scale if abs(scale) > abs(largest) else largest
    put_f16(block + scale_at, largest / float32(lowest))
    unit = get_f16(block + scale_at)
    for i in range(groups):
        at = 4 * group * i
        middle = int64(round(get_f32(fits + 4 * i) * inverse(unit)))
        put_i64(numbers + 8 * i, choose(x + at, weights + at, group, unit, middle, lowest, highest))


def group_scales_fitter(name: str, fit_group: Callable[..., Any], nearest: Callable[..., Any], *, groups: int,
                        group: int, lowest: int, highest: int, scale_at: int) -> Callable[..., Any]:
    """fit(x, weights, block, numbers, steps): `_fit_scales` for up to 16 groups, whose numbers are lowest .. highest.

    fit_group(x, weights, values, steps): the best scale of a group, as `fitting.weighted_scale_fitter` makes it.
    nearest: rounds a tile to the nearest codes. scale_at: where a block has its scale.
    """
    choose = device(bind(_best_of_scales, f"best_of_scales_{name}", nearest=nearest))
    return device(bind(_fit_scales, f"fit_scales_{name}", fit_group=fit_group, choose=choose, groups=groups,
                       group=group, lowest=lowest, highest=highest, scale_at=scale_at))


@template
def _fit_scales_and_offsets(x, weights, block, top, steps):
    """Choose and store the scales and offsets of a block: two float16, and whole numbers for each group."""
    fits = alloca(128)
    largest_scale = largest_offset = float32(0.0)
    for i in range(groups):
        scale, offset = fit_weighted_scale_and_offset(x + 4 * group * i, weights + 4 * group * i, group, top, steps)
        put_f32(fits + 8 * i, scale)
        put_f32(fits + 8 * i + 4, offset)
        largest_scale, largest_offset = max(largest_scale, scale), max(largest_offset, offset)
    put_f16(block + scale_at, largest_scale / float32(most))
    put_f16(block + scale_at + 2, largest_offset / float32(most))
    unit, offset_unit = get_f16(block + scale_at), get_f16(block + scale_at + 2)
    for i in range(groups):
        at = 4 * group * i
        scale = int64(max(get_f32(fits + 8 * i), float32(0.0)) * inverse(unit) + float32(0.5))
        offset = int64(get_f32(fits + 8 * i + 4) * inverse(offset_unit) + float32(0.5))
        scale, offset = best_of_pairs(x + at, weights + at, group, top, unit, offset_unit, scale, offset, most)
        put_pair(block, i, scale, offset)


def group_pairs_fitter(name: str, put_pair: Callable[..., Any], *, groups: int, group: int, most: int,
                       scale_at: int) -> Callable[..., Any]:
    """fit(x, weights, block, top, steps): `_fit_scales_and_offsets` for up to 16 groups, with numbers up to `most`.

    put_pair(block, group, scale, offset): store the numbers of a group, in order. scale_at: where a block has its
    scale, before that of offsets. top, steps: as `fitting.fit_weighted_scale_and_offset` takes them.
    """
    return device(bind(_fit_scales_and_offsets, f"fit_scales_and_offsets_{name}", put_pair=put_pair, groups=groups,
                       group=group, most=most, scale_at=scale_at))
