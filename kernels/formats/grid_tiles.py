"""The layouts of codes in the panels of `grids`, of 4, 3 and 2 bits a value, and the tiles that multiply them.

Codes become weights that are never negative: levels with an offset added, which the activations' biases take out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numba import float32, int32

from ..activations import AT, BIAS, BIAS_BYTES, SCALE, Int8Blocks, spread
from ..jit import Template, bind, device, hole, inlined, template
from ..simd import BY_RUNS, DOT_ELEMENT, LANES, add_partial_sums, begin_block, bits, dot4, dot_run, fma, get_u8
from ..simd import panel_bytes, panel_f16, panel_high_nibbles, panel_low_nibbles, partial_sums, prefetch_address
from ..simd import prefetch_levels, put_i32, scale_add, scale_add_two, splat_f32, table_lookup, to_matrix, to_rows
from .levels import run_of_levels

_VECTOR = 4 * LANES
_ONES, _LOW_PAIRS = 0x01010101, 0x03030303
_NARROW = DOT_ELEMENT == "i16"  # then a partial sum can hold few products

codes_of = lookup = run = per_sum = dot_first_half = dot_second_half = hole()  # of a format's codes and products
dot = dots = step = codes = pair = twice = least = hole()  # of its tile


# ---- codes of 32 values of a row ----
# codes(block, group, n) gives the n-th eight of a group: the first four and the last four, a byte each.


@template
def _put_nibbles(block, group, target, stride):
    for n in range(2):
        low, high = codes_of(block, group, n), codes_of(block, group, n + 2)
        put_i32(target + 2 * n * stride, int32(low[0] | high[0] << 4))
        put_i32(target + (2 * n + 1) * stride, int32(low[1] | high[1] << 4))


@device
def _nibble(words, i):
    return get_u8(words + i % 16) >> 4 * (i // 16) & 15


@template
def _put_two_bits(block, group, target, stride):
    for n in range(2):
        low, high = codes_of(block, group, 2 * n), codes_of(block, group, 2 * n + 1)
        put_i32(target + n * stride, int32(low[0] | low[1] << 2 | high[0] << 4 | high[1] << 6))


@device
def _two_bits(words, i):
    return get_u8(words + 4 * (i // 16) + i % 4) >> 2 * (i % 16 // 4) & 3


@template
def _put_three_bits(block, group, target, stride):
    first, second, third = codes_of(block, group, 0), codes_of(block, group, 1), codes_of(block, group, 2)
    fourth = codes_of(block, group, 3)
    put_i32(target, int32(first[0] | first[1] << 3 | (fourth[0] & _LOW_PAIRS) << 6))
    put_i32(target + stride, int32(second[0] | second[1] << 3 | (fourth[1] & _LOW_PAIRS) << 6))
    tops = (fourth[0] >> 2 & _ONES) << 6 | (fourth[1] >> 2 & _ONES) << 7
    put_i32(target + 2 * stride, int32(third[0] | third[1] << 3 | tops))


@device
def _three_bits(words, i):
    part, byte = i // 4, i % 4
    if part < 6:
        return get_u8(words + 4 * (part // 2) + byte) >> 3 * (part % 2) & 7
    return get_u8(words + 4 * (part - 6) + byte) >> 6 | (get_u8(words + 8 + byte) >> part & 1) << 2


# ---- products of 32 values ----


@template
def _dot_nibbles(total, panel, panel_stride, x, x_stride):
    if BY_RUNS:
        return add_partial_sums(total, run(partial_sums(total), panel, panel_stride, x, x_stride))
    for first in range(0, 4, per_sum):
        partial = partial_sums(total)
        for i in range(first, first + per_sum):
            packed = panel_bytes(total, panel + _VECTOR * i, panel_stride)
            partial = dot4(partial, lookup(bits(packed, 0, 15)), x + 4 * i, x_stride)
            partial = dot4(partial, lookup(bits(packed, 4, 15)), x + 16 + 4 * i, x_stride)
        total = add_partial_sums(total, partial)
    return total


@inlined
def _renew(total, partial):
    """The two for the next products: weights up to 127 leave no room for a second sum of four in 16 bits."""
    if _NARROW:
        return add_partial_sums(total, partial), partial_sums(total)
    return total, partial


@template
def _dot_first_half(total, first, second, x, x_stride):
    partial = partial_sums(total)
    if BY_RUNS:
        partial = dot_run(partial, (lookup(bits(first, 0, 7)), lookup(bits(first, 3, 7)), lookup(bits(second, 0, 7)),
                                    lookup(bits(second, 3, 7))), x, x_stride)
        return add_partial_sums(total, partial)
    partial = dot4(partial, lookup(bits(first, 0, 7)), x, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(first, 3, 7)), x + 4, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(second, 0, 7)), x + 8, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(second, 3, 7)), x + 12, x_stride)
    return add_partial_sums(total, partial)


@template
def _dot_second_half(total, first, second, third, x, x_stride):
    seventh, eighth = bits(first, 6, 3) | bits(third, 4, 4), bits(second, 6, 3) | bits(third, 5, 4)
    partial = partial_sums(total)
    if BY_RUNS:
        partial = dot_run(partial, (lookup(bits(third, 0, 7)), lookup(bits(third, 3, 7)), lookup(seventh),
                                    lookup(eighth)), x + AT[16], x_stride)
        return add_partial_sums(total, partial)
    partial = dot4(partial, lookup(bits(third, 0, 7)), x + 16, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(third, 3, 7)), x + 20, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(seventh), x + 24, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(eighth), x + 28, x_stride)
    return add_partial_sums(total, partial)


@template
def _dot_halves(first_total, second_total, panel, panel_stride, x, x_stride):
    """Two totals, of 16 values each."""
    first = panel_bytes(first_total, panel, panel_stride)
    second = panel_bytes(first_total, panel + _VECTOR, panel_stride)
    third = panel_bytes(first_total, panel + 2 * _VECTOR, panel_stride)
    return (dot_first_half(first_total, first, second, x, x_stride),
            dot_second_half(second_total, first, second, third, x, x_stride))


@template
def _dot_three_bits(total, panel, panel_stride, x, x_stride):
    first = panel_bytes(total, panel, panel_stride)
    second = panel_bytes(total, panel + _VECTOR, panel_stride)
    third = panel_bytes(total, panel + 2 * _VECTOR, panel_stride)
    total = dot_first_half(total, first, second, x, x_stride)
    return dot_second_half(total, first, second, third, x, x_stride)


def _dot_two_bits(total, panel, panel_stride, x, x_stride):
    """Weights are 8 times the code: 0, 8 or 16. The sum of all products fits 16 bits."""
    partial = partial_sums(total)
    for i in range(2):
        packed = panel_bytes(total, panel + _VECTOR * i, panel_stride)
        partial = dot_run(partial, (bits(packed, -3, 24), bits(packed, -1, 24), bits(packed, 1, 24),
                                    bits(packed, 3, 24)), x + spread(16 * i), x_stride)
    return add_partial_sums(total, partial)


# ---- tiles ----


@template
def _tile_by_32(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        step_scale, least_scale = scale * splat_f32(float32(twice)), scale * splat_f32(float32(least))
        scales, panel = panel + 2 * LANES, panel + 6 * LANES
        for _ in range(4):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, pair)
            low = fma(panel_low_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            high = fma(panel_high_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            scales += LANES
            sums = dot(begin_block(acc, x + BIAS, x_stride), panel, panel_stride, x, x_stride)
            acc = scale_add(acc, sums, low, x + SCALE, x_stride)
            x += step
            sums = dot(begin_block(acc, x + BIAS, x_stride), panel + codes, panel_stride, x, x_stride)
            acc = scale_add(acc, sums, high, x + SCALE, x_stride)
            x += step
            panel += 2 * codes
    return to_rows(acc)


@template
def _tile_by_16(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        step_scale, least_scale = scale * splat_f32(float32(twice)), scale * splat_f32(float32(least))
        scales, panel = panel + 2 * LANES, panel + 10 * LANES
        for _ in range(8):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, pair)
            low = fma(panel_low_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            high = fma(panel_high_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            scales += LANES
            first, second = begin_block(acc, x + BIAS, x_stride), begin_block(acc, x + BIAS + BIAS_BYTES, x_stride)
            first, second = dots(first, second, panel, panel_stride, x, x_stride)
            acc = scale_add_two(acc, first, second, low, high, x + SCALE, x_stride)
            panel += codes
            x += step
    return to_rows(acc)


# ---- layouts ----


@dataclass(frozen=True)
class Layout:
    """How the codes of 32 values of a row lie in a panel."""

    words: int  # 4 bytes of each row, which make a vector
    put: Template  # put(block, group, target, stride): store the words, `stride` bytes apart
    code: Callable[..., Any]  # code(words, i): the code of value i
    dot: Callable[..., Any]  # dot(name, lookup, largest weight, group of a scale): the products of 32 values

    def tile(self, name: str, activation: Int8Blocks, levels: Sequence[int], unit: float,
             least: int) -> Callable[..., Any]:
        """A tile of values scale * unit * (2 c + least) * level, where c is the 4-bit scale of a group."""
        weights = [level + activation.offset for level in levels]
        lookup = table_lookup(weights + [0] * (16 - len(weights)))
        codes = _VECTOR * self.words
        fillings = {"codes": codes, "pair": codes * activation.group // 16, "step": activation.step,
                    "twice": 2 * unit, "least": least * unit}
        dot = inlined(self.dot(name, lookup, max(weights), activation.group))
        if activation.group == 16:
            return device(bind(_tile_by_16, f"tile_{name}", dots=dot, **fillings))
        return device(bind(_tile_by_32, f"tile_{name}", dot=dot, **fillings))


def _nibble_dot(name: str, lookup: Any, largest: int, group: int) -> Callable[..., Any]:
    per_sum = 4 if not _NARROW else 2 if largest < 32 else 1  # vectors, of two products each
    return bind(_dot_nibbles, f"dot_{name}", lookup=lookup, per_sum=per_sum, run=run_of_levels(name, lookup, dot_run))


def _three_bit_dot(name: str, lookup: Any, largest: int, group: int) -> Callable[..., Any]:
    return bind(_dot_halves if group == 16 else _dot_three_bits, f"dot_{name}",
                dot_first_half=inlined(bind(_dot_first_half, f"dot_first_half_{name}", lookup=lookup)),
                dot_second_half=inlined(bind(_dot_second_half, f"dot_second_half_{name}", lookup=lookup)))


def _two_bit_dot(name: str, lookup: Any, largest: int, group: int) -> Callable[..., Any]:
    return _dot_two_bits  # needs no lookup: levels are 8 apart


# Byte j of a word has codes of values 4 p + j. Nibbles: p = i and i + 4 in word i. Two bits: p = 4 i .. 4 i + 3 in word
# i. Three bits: p = 2 i and 2 i + 1 in word i, from the low bit up; the two top bits of words 0 and 1 are the low bits
# of p = 6 and 7, and the two top bits of word 2 are their third ones.
NIBBLES = Layout(4, _put_nibbles, _nibble, _nibble_dot)
TWO_BITS = Layout(2, _put_two_bits, _two_bits, _two_bit_dot)
THREE_BITS = Layout(3, _put_three_bits, _three_bits, _three_bit_dot)
