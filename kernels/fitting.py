"""Fit float32 values to a block: extremes, inverses, and searches for the scale with the smallest error.

A search tries CANDIDATES scales at once, each in a lane of its own. Values are broadcast, and no sum crosses lanes.
"""

from collections.abc import Callable
from typing import Any

from numba import float32

from .jit import bind, device, hole, template
from .simd import LANES, absolute, alloca, at_argmax, fma, get_f32, load_f32, load_tile, maximum, minimum, put_f32
from .simd import reduce_add, rint, splat_f32, square_root, store_f32, zeros

CANDIDATES = 16
_VECTORS = CANDIDATES // LANES
_VECTOR = 4 * LANES
_TILE = 4 * CANDIDATES  # bytes
_ROUNDS = 2  # the second one starts from the candidates that the first one has improved


@device
def inverse(x):
    """1 / x, but 0 for 0."""
    return float32(1.0) / x if x != 0 else float32(0.0)


@device
def extremes(x, values):
    """The lowest and the highest of `values` float32 values, a multiple of LANES."""
    lowest = highest = load_f32(x)
    for i in range(LANES, values, LANES):
        value = load_f32(x + 4 * i)
        lowest, highest = minimum(value, lowest), maximum(value, highest)
    return at_argmax(splat_f32(float32(0.0)) - lowest, lowest), at_argmax(highest, highest)


@device
def largest_magnitude(x, values):
    """max |value|"""
    largest = absolute(load_f32(x))
    for i in range(LANES, values, LANES):
        largest = maximum(absolute(load_f32(x + 4 * i)), largest)
    return at_argmax(largest, largest)


@device
def peak(x, values):
    """The value with the largest magnitude, with its sign. If there are several, the first one."""
    lowest, highest = extremes(x, values)
    if highest != -lowest:
        return highest if highest > -lowest else lowest
    for i in range(values):
        value = get_f32(x + 4 * i)
        if abs(value) == highest:
            return value
    return highest


@device
def ramp(first, step):
    """A tile of CANDIDATES numbers: first, first + step, ..."""
    table = alloca(_TILE)
    for i in range(CANDIDATES):
        put_f32(table + 4 * i, first + step * float32(i))
    return load_tile(zeros(1, _VECTORS), table, 0, _VECTOR)


@device
def _finite(x):
    return x - x == 0


nearest_code = top_code = weight_of = signed = weighted_fit = hole()


@device
def _given(weights, i, value):
    return get_f32(weights + 4 * i)


@device
def _square(weights, i, value):
    return value * value


@template
def _fit_scale(x, weights, values, steps):
    """The scale s with the smallest error of s * code. Squared errors are weighted.

    steps: a tile of codes to try for the value with the largest magnitude, such as -32.3.
    """
    top = peak(x, values)
    if abs(top) < float32(1e-15):
        return float32(0.0)
    inverses = steps / splat_f32(top)
    sum_cx = sum_cc = zeros(1, _VECTORS)
    for i in range(values):
        value = get_f32(x + 4 * i)
        code = nearest_code(splat_f32(value) * inverses)
        weighted = code * splat_f32(weight_of(weights, i, value))
        sum_cx = fma(weighted, splat_f32(value), sum_cx)
        sum_cc = fma(weighted, code, sum_cc)
    scales = sum_cx / sum_cc
    scale = at_argmax(maximum(splat_f32(float32(0.0)), scales * sum_cx), scales)
    return scale if _finite(scale) else top / float32(top_code)


@template
def _fit_scale_alone(x, values, steps):
    return weighted_fit(x, 0, values, steps)


def scale_fitter(name: str, nearest_code: Callable[..., Any], top_code: float) -> Callable[..., Any]:
    """fit(x, values, steps): `_fit_scale`, weighted by value ** 2, for the codes that `nearest_code` rounds a tile to.

    top_code: the one of the largest magnitude.
    """
    fit = bind(_fit_scale, f"fit_scale_{name}_by_square", nearest_code=nearest_code, top_code=top_code,
               weight_of=_square)
    return device(bind(_fit_scale_alone, f"fit_scale_{name}", weighted_fit=device(fit)))


def weighted_scale_fitter(name: str, nearest_code: Callable[..., Any], top_code: float) -> Callable[..., Any]:
    """The same with weights: fit(x, weights, values, steps)."""
    return device(bind(_fit_scale, f"fit_weighted_scale_{name}", nearest_code=nearest_code, top_code=top_code,
                       weight_of=_given))


@device
def six_bits(x):
    return minimum(splat_f32(float32(31.0)), maximum(splat_f32(float32(-32.0)), rint(x)))


fit_weighted_scale = weighted_scale_fitter("six_bits", six_bits, -32.0)


@template
def _fit_scale_and_offset(x, weights, values, top, steps):
    """The scale s and the offset m with the smallest error of s * code - m, code = 0 .. top. Unless `signed`, m >= 0.

    Squared errors are weighted. steps: a tile of codes to try for the highest value.
    """
    lowest, highest = extremes(x, values)
    lowest = lowest if signed else min(lowest, float32(0.0))
    ceiling = highest if signed else float32(0.0)
    spread = highest - lowest
    if not spread > 0:
        return float32(0.0), -lowest
    inverses = steps / splat_f32(spread)
    shift = inverses * splat_f32(-lowest)
    for _ in range(_ROUNDS):
        sum_w = sum_x = float32(0.0)
        sum_c = sum_cx = sum_cc = zeros(1, _VECTORS)
        for i in range(values):
            value = get_f32(x + 4 * i)
            weight = get_f32(weights + 4 * i)
            sum_w += weight
            sum_x += weight * value
            code = maximum(splat_f32(float32(0.0)), rint(fma(splat_f32(value), inverses, shift)))
            code = minimum(splat_f32(top), code)
            weighted = code * splat_f32(weight)
            sum_c = sum_c + weighted
            sum_cx = fma(weighted, splat_f32(value), sum_cx)
            sum_cc = fma(weighted, code, sum_cc)
        w, x_all = splat_f32(sum_w), splat_f32(sum_x)
        # Least squares. -m is kept between the ceiling and one step below the lowest value; the scale is best for it.
        offsets = (sum_cc * x_all - sum_c * sum_cx) / (w * sum_cc - sum_c * sum_c)
        offsets = maximum(splat_f32(lowest - spread / top), minimum(splat_f32(ceiling), offsets))
        rest = sum_cx - offsets * sum_c
        scales = rest / sum_cc
        inverses = splat_f32(float32(1.0)) / scales
        shift = (splat_f32(float32(0.0)) - offsets) * inverses
    gains = maximum(splat_f32(float32(0.0)), scales * rest + offsets * (x_all + x_all - offsets * w))
    scale, offset = at_argmax(gains, scales), at_argmax(gains, offsets)
    return (scale, -offset) if _finite(scale) else (spread / top, -lowest)


fit_weighted_scale_and_offset = device(bind(_fit_scale_and_offset, "fit_weighted_scale_and_offset", signed=False))
fit_weighted_scale_and_minimum = device(bind(_fit_scale_and_offset, "fit_weighted_scale_and_minimum", signed=True))


@device
def weigh_by_squares(x, weights):
    """For 256 values: value ** 2 + the mean of that in its group of 16, and a little for zeros."""
    for start in range(0, 1024, 64):
        squares = splat_f32(float32(0.0))
        for i in range(start, start + 64, _VECTOR):
            squares = fma(load_f32(x + i), load_f32(x + i), squares)
        typical = splat_f32(reduce_add(squares) / float32(16.0) + float32(1e-30))
        for i in range(start, start + 64, _VECTOR):
            store_f32(weights + i, fma(load_f32(x + i), load_f32(x + i), typical))


@device
def weigh_large(x, values, weights):
    """weights = sqrt(8 * mean square + value ** 2), divided by 3 times the root of that mean.

    A sum of squared errors would be that of the products if errors of the values of a row were independent. Those of
    values that a scale cuts off are not: they all make the row smaller, so they count more. llama.cpp's factor is
    sqrt(mean square + value ** 2). Of factors with 0, 1, 2, 4, 8 and 16 mean squares, this one gave the smallest KL
    divergences of SmolLM2-135M and Qwen2.5-Coder-0.5B in Q4_0 with an importance matrix.
    """
    squares = splat_f32(float32(0.0))
    for i in range(0, values, LANES):
        squares = fma(load_f32(x + 4 * i), load_f32(x + 4 * i), squares)
    mean = reduce_add(squares) / float32(values)
    part = splat_f32(float32(1.0) / (float32(9.0) * mean) if mean > float32(1e-30) else float32(0.0))
    for i in range(0, values, LANES):
        square = load_f32(x + 4 * i) * part * load_f32(x + 4 * i)
        store_f32(weights + 4 * i, square_root(square + splat_f32(float32(8.0 / 9.0))))


@device
def weigh_32(x, weights):
    weigh_large(x, 32, weights)


@device
def weigh_256(x, weights):
    weigh_large(x, 256, weights)


weigh = quantize_weighted = hole()


@template
def _quantize_alone(x, block):
    weights = alloca(1024)
    weigh(x, weights)
    quantize_weighted(x, weights, block)


def with_own_weights(name: str, weigh: Callable[..., Any], quantize_weighted: Callable[..., Any]) -> Callable[..., Any]:
    """The quantize_block of a format of up to 256 values: quantize_weighted with the weights of weigh(x, weights)."""
    return device(bind(_quantize_alone, f"quantize_{name}", weigh=weigh, quantize_weighted=quantize_weighted))
