"""To blocks of grid points whose levels are -1, 0 and 1, all of a part of a block 1/8 more or less: IQ1_S and IQ1_M.

Points are chosen as in `grid_search`, once for either sign of the 1/8.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

from numba import float32, int32, int64, uint8

from ..jit import bind, device, hole, template
from ..simd import LANES, alloca, fma, get_f16, get_f32, get_i32, get_u8, load_f32, put_f16, put_f32, put_i32, put_u8
from ..simd import reduce_add, splat_f32, table_address
from .grid_search import cell_of_eight, near_points, point_chooser, quantizer_alone

_TRIES = 6
_ROUNDS = 2
_EIGHTH = 0.125

choose_points = sums = choose_parts = add_parts = fit_group = choose_scale = put_block = group = part = hole()


@template
def _choose_parts(y, weights, inverse_scale, points, less):
    """Choose the points of a group, and whether those of each part are 1/8 less; the error, in squares of the scale."""
    other, gains, other_gains = alloca(16), alloca(16), alloca(16)
    choose_points(y, weights, group, inverse_scale, float32(_EIGHTH - 1), points, gains)
    choose_points(y, weights, group, inverse_scale, float32(-_EIGHTH - 1), other, other_gains)
    total = float32(0.0)
    for i in range(group // part):
        first, end = part // 8 * i, part // 8 * (i + 1)
        gain = other_gain = float32(0.0)
        for j in range(first, end):
            gain += get_f32(gains + 4 * j)
            other_gain += get_f32(other_gains + 4 * j)
        put_u8(less + i, uint8(other_gain > gain))
        if other_gain > gain:
            for j in range(first, end):
                put_i32(points + 4 * j, get_i32(other + 4 * j))
        total += max(gain, other_gain)
    return -total


@template
def _add_parts(y, weights, points, less):
    """Sums of weight * value * level and weight * level ** 2 of a group."""
    sum_yl = sum_ll = float32(0.0)
    for i in range(group // part):
        values = 4 * part * i
        base = float32(-_EIGHTH - 1) if get_u8(less + i) else float32(_EIGHTH - 1)
        yl, ll = sums(y + values, weights + values, part, base, points + 4 * (part // 8) * i)
        sum_yl += yl
        sum_ll += ll
    return sum_yl, sum_ll


@template
def _fit_group(y, weights, points, less):
    """The scale of a group with the smallest error of those that are tried, around its root mean square."""
    squares = total = splat_f32(float32(0.0))
    for i in range(0, group, LANES):
        value, weight = load_f32(y + 4 * i), load_f32(weights + 4 * i)
        squares, total = fma(value * value, weight, squares), total + weight
    typical = float32(sqrt(reduce_add(squares) / reduce_add(total)))
    if not typical > float32(1e-15):
        return float32(0.0)
    best, best_error = float32(0.0), float32(3e38)
    for i in range(_TRIES):
        scale = typical * (float32(0.8) + float32(0.18) * float32(i))
        error = choose_parts(y, weights, float32(1.0) / scale, points, less) * scale * scale
        if error < best_error:
            sum_yl, sum_ll = add_parts(y, weights, points, less)
            best, best_error = max(sum_yl / sum_ll, float32(0.0)), error
    return best


@template
def _choose_scale(y, weights, scale, fit, points, less):
    """The 3 bits of a group's scale and its points, of those around the one that `fit` is nearest to."""
    candidates, candidates_less = alloca(16), alloca(4)
    middle = int64(round((fit / scale - float32(1.0)) * float32(0.5)))
    best, best_error = int64(0), float32(3e38)
    for code in range(max(0, min(7, middle) - 1), min(7, max(0, middle) + 1) + 1):
        group_scale = scale * float32(2 * code + 1)
        error = choose_parts(y, weights, float32(1.0) / group_scale, candidates, candidates_less)
        error *= group_scale * group_scale
        if error < best_error:
            best, best_error = int64(code), error
            for i in range(group // 8):
                put_i32(points + 4 * i, get_i32(candidates + 4 * i))
            for i in range(group // part):
                put_u8(less + i, get_u8(candidates_less + i))
    return best


@template
def _quantize_weighted(x, weights, block):
    fits, points, scales, less, slot = alloca(64), alloca(128), alloca(16), alloca(32), alloca(16)
    best = float32(0.0)
    for i in range(256 // group):
        fit = fit_group(x + 4 * group * i, weights + 4 * group * i, points, less)
        put_f32(fits + 4 * i, fit)
        best = max(best, fit)
    put_f16(slot, best * float32(1 / 15))
    for _ in range(_ROUNDS):
        scale = get_f16(slot)
        if scale == 0:
            break
        total_yl = total_ll = float32(0.0)
        for i in range(256 // group):
            values, at, part_less = 4 * group * i, points + 4 * (group // 8) * i, less + group // part * i
            code = choose_scale(x + values, weights + values, scale, get_f32(fits + 4 * i), at, part_less)
            sum_yl, sum_ll = add_parts(x + values, weights + values, at, part_less)
            factor = float32(2 * code + 1)
            total_yl += factor * sum_yl
            total_ll += factor * factor * sum_ll
            put_u8(scales + i, uint8(code))
        put_f16(slot, max(total_yl / total_ll, float32(0.0)))
    if get_f16(slot) == 0:
        for i in range(32):
            put_i32(points + 4 * i, int32(0))
            put_u8(less + i, uint8(0))
            put_u8(scales + i // 2, uint8(0))
    put_block(block, slot, points, scales, less)


def ternary_quantizers(name: str, *, group: int, part: int,
                       put_block: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """quantize_block and quantize_weighted of a format of such levels.

    group: how many values have 3 bits of a scale of their own. part: how many are 1/8 more or less together.
    put_block(block, scale, points, scales, less): store what was chosen: a float16, int32 points as the table has them,
    and for each group its 3 bits and for each part whether it is 1/8 less, a byte each.
    """
    choose, sums = point_chooser(name, cell_of_eight, table_address(near_points(name.upper(), 3)), 8, 2, 1, 0, 2)
    sizes = {"group": group, "part": part}
    parts = device(bind(_choose_parts, f"choose_parts_{name}", choose_points=choose, **sizes))
    add = device(bind(_add_parts, f"add_parts_{name}", sums=sums, **sizes))
    fit = device(bind(_fit_group, f"fit_group_{name}", choose_parts=parts, add_parts=add, group=group))
    scale = device(bind(_choose_scale, f"choose_scale_{name}", choose_parts=parts, **sizes))
    weighted = bind(_quantize_weighted, f"quantize_weighted_{name}", fit_group=fit, choose_scale=scale, add_parts=add,
                    put_block=put_block, **sizes)
    return quantizer_alone(name, device(weighted))
