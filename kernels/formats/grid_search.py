"""To blocks of grid points: for 4 or 8 values, the point of a grid with the smallest weighted error.

Values are first rounded each for itself, to one of 8 or 3 levels. For each combination of such levels, a cell, a table
has the NEAR points that are nearest to it; one of them is chosen by the weights. A point in the table is its levels'
codes, 3 or 2 bits each from the low bits up, and from bit NUMBER_AT on its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import float32, int32, int64, uint8

from ..fitting import CANDIDATES, largest_magnitude, with_own_weights
from ..jit import bind, device, hole, template
from ..simd import LANES, alloca, bits_as_f32, f32_as_bits, fma, get_f16, get_f32, get_i32, get_u8, load_f32, load_tile
from ..simd import maximum, minimum, put_f16, put_f32, put_i32, put_u8, reduce_add, reduce_max, rint, splat_f32
from ..simd import splat_i32, square_root, store_f32, store_i8, table_address, to_f32, to_i32, zeros, zeros_i32
from .grids import grid_codes

NEAR = CANDIDATES
NUMBER_AT = 16
_VECTORS, _VECTOR = NEAR // LANES, 4 * LANES
_LANE_BITS = NEAR - 1

near = cell_of = size = bits_each = step = extra = top = hole()  # of a grid


def near_points(name: str, levels: int) -> Callable[[], bytes]:
    """Makes the table of a type's grid: int32 [cells][NEAR]. Digit j of a cell's number is the code of value j."""
    def make() -> bytes:
        grid = grid_codes(name)
        size = grid.shape[1]
        cells = np.indices((levels,) * size).reshape(size, -1)[::-1].T.astype(np.float32)
        points = grid.astype(np.float32)
        distances = (points**2).sum(axis=1) - 2 * cells @ points.T
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEAR]
        bits = 12 // size if size == 4 else 2
        codes = (grid.astype(np.int64) << bits * np.arange(size)).sum(axis=1)
        return (codes | np.arange(len(grid)) << NUMBER_AT)[nearest].astype("<i4").tobytes()

    return make


@device
def cell_of_four(codes):
    """Of four codes of 3 bits, a byte each."""
    word = int64(get_i32(codes))
    return word & 7 | word >> 5 & 7 << 3 | word >> 10 & 7 << 6 | word >> 15 & 7 << 9


@device
def cell_of_eight(codes):
    """Of eight codes 0, 1 or 2."""
    times = 1 << 24 | 3 << 16 | 9 << 8 | 27
    low, high = int64(get_i32(codes)) * times, int64(get_i32(codes + 4)) * times
    return (low >> 24 & 255) + 81 * (high >> 24 & 255)


@template
def _choose_points(y, weights, values, inverse_scale, base, points, gains):
    """Choose a point for each few of the values; the weighted error, in squares of the scale.

    y: values without their signs. Level i is base + step * i, and that of the top code has `extra` more.
    values: whole vectors of them. points: where to store the table's points, int32. gains: and minus the error of each.
    """
    codes = alloca(32)
    shifts = splat_f32(float32(1 / step)) * splat_f32(inverse_scale)
    for i in range(0, values, LANES):
        code = rint(fma(load_f32(y + 4 * i), shifts, splat_f32(-base / float32(step))))
        code = maximum(splat_f32(float32(0.0)), minimum(splat_f32(float32(top)), code))
        store_i8(codes + i, to_i32(code))
    zero = zeros(1, _VECTORS)
    lanes = load_tile(zeros_i32(zero), lane_numbers(), 0, _VECTOR)
    keep = splat_i32(int32(~_LANE_BITS))
    error = float32(0.0)
    for point in range(values // size):
        row = near() + 4 * NEAR * cell_of(codes + size * point)
        packed = load_tile(lanes, row, 0, _VECTOR)
        errors = zero
        for j in range(size):
            at = 4 * (size * point + j)
            code = to_f32((packed >> splat_i32(int32(bits_each * j))) & splat_i32(int32((1 << bits_each) - 1)))
            difference = fma(code, splat_f32(float32(step)), splat_f32(base - get_f32(y + at) * inverse_scale))
            if extra:
                difference = difference + maximum(zero, code - splat_f32(float32(top - 1)))
            errors = fma(difference * splat_f32(get_f32(weights + at)), difference, errors)
        # The number of a lane takes the lowest bits of its error.
        key = bits_as_f32((f32_as_bits(zero - errors) & keep) | lanes)
        best = reduce_max(key)
        put_f32(gains + 4 * point, best)
        put_i32(points + 4 * point, get_i32(row + 4 * (get_i32(gains + 4 * point) & _LANE_BITS)))
        error -= best
    return error


lane_numbers = table_address(lambda: np.arange(NEAR, dtype="<i4").tobytes())


@template
def _sums(y, weights, values, base, points):
    """Sums of weight * value * level and weight * level ** 2."""
    sum_yl = sum_ll = float32(0.0)
    for i in range(values):
        code = get_i32(points + 4 * (i // size)) >> bits_each * (i % size) & ((1 << bits_each) - 1)
        level = base + float32(step * code + (extra if code == top else 0))
        weighted = get_f32(weights + 4 * i) * level
        sum_yl += weighted * get_f32(y + 4 * i)
        sum_ll += weighted * level
    return sum_yl, sum_ll


# ---- blocks of 256 values with signs and scales of 4 bits ----

choose_points = sums = fit_group = choose_scale = put_magnitudes = put_block = hole()
group = lowest = largest = unit = hole()
_TRIES = 9
_ROUNDS = 2  # the second one with the best scale for what the first one has chosen


@device
def _put_magnitudes(x, weights, y, signs):
    """y = the magnitudes of 256 values; signs: a bit for each."""
    for i in range(32):
        byte = 0
        for k in range(8):
            value = get_f32(x + 32 * i + 4 * k)
            put_f32(y + 32 * i + 4 * k, abs(value))
            byte |= (1 if value < 0 else 0) << k
        put_u8(signs + i, uint8(byte))


@device
def _put_even_magnitudes(x, weights, y, signs):
    """The same, but with an even number of ones in each byte: one value gets the wrong sign, and y is below 0 there."""
    for i in range(32):
        byte = flipped = count = 0
        least = float32(3e38)
        for k in range(8):
            value = get_f32(x + 32 * i + 4 * k)
            magnitude = abs(value)
            put_f32(y + 32 * i + 4 * k, magnitude)
            negative = 1 if value < 0 else 0
            byte |= negative << k
            count += negative
            cost = get_f32(weights + 32 * i + 4 * k) * magnitude * magnitude
            flipped = k if cost < least else flipped
            least = min(least, cost)
        if count % 2:
            byte ^= 1 << flipped
            put_f32(y + 32 * i + 4 * flipped, -get_f32(y + 32 * i + 4 * flipped))
        put_u8(signs + i, uint8(byte))


@template
def _fit_group(y, weights, points):
    """The scale of a group with the smallest error of those that are tried, 0 for values that are all near 0."""
    peak = largest_magnitude(y, group)
    if peak < float32(1e-15):
        return float32(0.0)
    best, best_error, gains = float32(0.0), float32(3e38), alloca(32)
    for i in range(_TRIES):
        inverse_scale = float32(largest) * (float32(0.7) + float32(0.06) * float32(i)) / peak
        error = choose_points(y, weights, group, inverse_scale, float32(lowest), points, gains)
        error = error / inverse_scale / inverse_scale
        if error < best_error:
            sum_yl, sum_ll = sums(y, weights, group, float32(lowest), points)
            best, best_error = max(sum_yl / sum_ll, float32(0.0)), error
    return best


@template
def _choose_scale(y, weights, scale, fit, points, candidates):
    """The 4 bits of a group's scale and its points, of those around the one that `fit` is nearest to."""
    middle = int64(round((fit / scale - float32(1.0)) * float32(0.5)))
    best, best_error, gains = int64(0), float32(3e38), alloca(32)
    for code in range(max(0, min(15, middle) - 1), min(15, max(0, middle) + 1) + 1):
        group_scale = scale * float32(2 * code + 1)
        inverse_scale = float32(1.0) / group_scale
        error = choose_points(y, weights, group, inverse_scale, float32(lowest), candidates, gains)
        error = error * group_scale * group_scale
        if error < best_error:
            best, best_error = int64(code), error
            for i in range(group // size):
                put_i32(points + 4 * i, get_i32(candidates + 4 * i))
    return best


@template
def _quantize_weighted(x, weights, block):
    y, signs, fits = alloca(1024), alloca(32), alloca(64)
    points, candidates, scales = alloca(256), alloca(32), alloca(16)
    put_magnitudes(x, weights, y, signs)
    best = float32(0.0)
    for i in range(256 // group):
        fit = fit_group(y + 4 * group * i, weights + 4 * group * i, candidates)
        put_f32(fits + 4 * i, fit)
        best = max(best, fit)
    put_f16(block, best * float32(1 / 31 / unit))
    for _ in range(_ROUNDS):
        scale = get_f16(block) * float32(unit)
        if scale == 0:
            break
        total_yl = total_ll = float32(0.0)
        for i in range(256 // group):
            values, at = 4 * group * i, points + 4 * (group // size) * i
            code = choose_scale(y + values, weights + values, scale, get_f32(fits + 4 * i), at, candidates)
            sum_yl, sum_ll = sums(y + values, weights + values, group, float32(lowest), at)
            factor = float32(2 * code + 1)
            total_yl += factor * sum_yl
            total_ll += factor * factor * sum_ll
            put_u8(scales + i, uint8(code))
        put_f16(block, max(total_yl / total_ll, float32(0.0)) * float32(1 / unit))
    if get_f16(block) == 0:
        for i in range(256 // size):
            put_i32(points + 4 * i, int32(0))
        for i in range(256 // group):
            put_u8(scales + i, uint8(0))
    put_block(block, points, scales, signs)


@device
def _weigh(x, weights):
    """A little more for large values."""
    squares = splat_f32(float32(0.0))
    for i in range(0, 256, LANES):
        squares = fma(load_f32(x + 4 * i), load_f32(x + 4 * i), squares)
    mean = splat_f32(reduce_add(squares) / float32(256.0))
    for i in range(0, 256, LANES):
        store_f32(weights + 4 * i, square_root(fma(load_f32(x + 4 * i), load_f32(x + 4 * i), mean)))


def point_chooser(name: str, cell_of: Callable[..., Any], near: Any, size: int, bits_each: int, step: int,
                  extra: int, top: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`_choose_points` and `_sums`: code c is the level base + step * c, and that of the top code `extra` more."""
    sizes = {"size": size, "bits_each": bits_each, "step": step, "extra": extra, "top": top}
    return (device(bind(_choose_points, f"choose_points_{name}", cell_of=cell_of, near=near, **sizes)),
            device(bind(_sums, f"sums_{name}", **sizes)))


def both_quantizers(name: str, weighted: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A quantize_block made of quantize_weighted, and that."""
    return with_own_weights(name, _weigh, weighted), weighted


def grid_quantizers(name: str, levels: Sequence[int], *, group: int, even_signs: bool, unit: float,
                    put_block: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """quantize_block and quantize_weighted of a format whose values are unit * scale * (2 * 4 bits + 1) * level.

    levels: those that are positive. group: how many values have 4 bits of a scale of their own. even_signs: whether 8
    values have an even number of minuses. put_block(block, points, scales, signs): store what was chosen beside the
    float16 scale: int32 points as the table has them, the 4-bit scales, a byte each, and the signs, a bit each.
    """
    top, lowest = len(levels) - 1, levels[0]
    step = (levels[-2] - lowest) // (top - 1)
    size, bits_each, cell_of = (4, 3, cell_of_four) if top == 7 else (8, 2, cell_of_eight)
    near, extra = table_address(near_points(name.upper(), top + 1)), levels[-1] - lowest - top * step
    choose, sums = point_chooser(name, cell_of, near, size, bits_each, step, extra, top)
    fit = device(bind(_fit_group, f"fit_group_{name}", choose_points=choose, sums=sums, group=group, lowest=lowest,
                      largest=levels[-1]))
    scale = device(bind(_choose_scale, f"choose_scale_{name}", choose_points=choose, group=group, lowest=lowest,
                        size=size))
    weighted = bind(_quantize_weighted, f"quantize_weighted_{name}", fit_group=fit, choose_scale=scale, sums=sums,
                    put_magnitudes=_put_even_magnitudes if even_signs else _put_magnitudes, put_block=put_block,
                    group=group, lowest=lowest, unit=unit, size=size)
    return both_quantizers(name, device(weighted))


@device
def put_scales(scales, target, count):
    """Store 4-bit scales, two in a byte."""
    for i in range(count // 2):
        put_u8(target + i, uint8(get_u8(scales + 2 * i) | get_u8(scales + 2 * i + 1) << 4))


@device
def even_signs_of(signs, scale):
    """32 bits of a group: four times 7 signs, and its 4-bit scale."""
    word = int64(get_u8(scale)) << 28
    for i in range(4):
        word |= int64(get_u8(signs + i) & 127) << 7 * i
    return int32(word)
