"""The layouts of codes in the panels of `grids`, of 4, 3 and 2 bits a value, and the tiles that multiply them.

Codes become weights that are never negative: levels with an offset added, which the activations' biases take out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numba import float32

from ..activations import BIAS, SCALE, Int8Blocks
from ..jit import bind, device, hole, inlined, template
from ..simd import DOT_ELEMENT, LANES, add_partial_sums, bits, dot4, fma, get_u8, init_from_bias, panel_bytes
from ..simd import panel_f16, panel_high_nibbles, panel_low_nibbles, partial_sums, prefetch_address, prefetch_levels
from ..simd import scale_add, scale_add_two, splat_f32, table_lookup

_VECTOR = 4 * LANES
_NARROW = DOT_ELEMENT == "i16"  # then a partial sum can hold few products

lookup = per_sum = dot_half = dot = dots = step = codes = pair = twice = least = hole()


# ---- codes ----


@device
def _nibble(words, i):
    return get_u8(words + i % 16) >> 4 * (i // 16) & 15


@device
def _two_bits(words, i):
    return get_u8(words + 4 * (i // 16) + i % 4) >> 2 * (i % 16 // 4) & 3


@device
def _three_bits(words, i):
    return _two_bits(words, i) | (get_u8(words + 8 + i % 4) >> i // 4 & 1) << 2


# ---- products of 32 values ----


@template
def _dot_nibbles(total, panel, panel_stride, x, x_stride):
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
def _dot_half(total, pairs, thirds, x, x_stride):
    partial = partial_sums(total)
    partial = dot4(partial, lookup(bits(pairs, 0, 3) | bits(thirds, -2, 4)), x, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(pairs, 2, 3) | bits(thirds, -1, 4)), x + 4, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(pairs, 4, 3) | bits(thirds, 0, 4)), x + 8, x_stride)
    total, partial = _renew(total, partial)
    partial = dot4(partial, lookup(bits(pairs, 6, 3) | bits(thirds, 1, 4)), x + 12, x_stride)
    return add_partial_sums(total, partial)


@template
def _dot_halves(first, second, panel, panel_stride, x, x_stride):
    """Two totals, of 16 values each."""
    thirds = panel_bytes(first, panel + 2 * _VECTOR, panel_stride)
    first = dot_half(first, panel_bytes(first, panel, panel_stride), thirds, x, x_stride)
    pairs = panel_bytes(first, panel + _VECTOR, panel_stride)
    return first, dot_half(second, pairs, bits(thirds, 4, 15), x + 16, x_stride)


@template
def _dot_both_halves(total, panel, panel_stride, x, x_stride):
    thirds = panel_bytes(total, panel + 2 * _VECTOR, panel_stride)
    total = dot_half(total, panel_bytes(total, panel, panel_stride), thirds, x, x_stride)
    pairs = panel_bytes(total, panel + _VECTOR, panel_stride)
    return dot_half(total, pairs, bits(thirds, 4, 15), x + 16, x_stride)


def _dot_two_bits(total, panel, panel_stride, x, x_stride):
    """Weights are 8 times the code: 0, 8 or 16. The sum of all products fits 16 bits."""
    partial = partial_sums(total)
    for i in range(2):
        packed = panel_bytes(total, panel + _VECTOR * i, panel_stride)
        values = x + 16 * i
        partial = dot4(partial, bits(packed, -3, 24), values, x_stride)
        partial = dot4(partial, bits(packed, -1, 24), values + 4, x_stride)
        partial = dot4(partial, bits(packed, 1, 24), values + 8, x_stride)
        partial = dot4(partial, bits(packed, 3, 24), values + 12, x_stride)
    return add_partial_sums(total, partial)


# ---- tiles ----


@template
def _tile_by_32(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        step_scale, least_scale = scale * splat_f32(float32(twice)), scale * splat_f32(float32(least))
        scales, panel = panel + 2 * LANES, panel + 6 * LANES
        for _ in range(4):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, pair)
            low = fma(panel_low_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            high = fma(panel_high_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            scales += LANES
            sums = dot(init_from_bias(acc, x + BIAS, x_stride), panel, panel_stride, x, x_stride)
            acc = scale_add(acc, sums, low, x + SCALE, x_stride)
            x += step
            sums = dot(init_from_bias(acc, x + BIAS, x_stride), panel + codes, panel_stride, x, x_stride)
            acc = scale_add(acc, sums, high, x + SCALE, x_stride)
            x += step
            panel += 2 * codes
    return acc


@template
def _tile_by_16(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        step_scale, least_scale = scale * splat_f32(float32(twice)), scale * splat_f32(float32(least))
        scales, panel = panel + 2 * LANES, panel + 10 * LANES
        for _ in range(8):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, pair)
            low = fma(panel_low_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            high = fma(panel_high_nibbles(acc, scales, panel_stride), step_scale, least_scale)
            scales += LANES
            first, second = init_from_bias(acc, x + BIAS, x_stride), init_from_bias(acc, x + BIAS + 4, x_stride)
            first, second = dots(first, second, panel, panel_stride, x, x_stride)
            acc = scale_add_two(acc, first, second, low, high, x + SCALE, x_stride)
            panel += codes
            x += step
    return acc


# ---- layouts ----


@dataclass(frozen=True)
class Layout:
    """How the codes of 32 values of a row lie in a panel."""

    words: int  # 4 bytes of each row, which make a vector
    code: Callable[..., Any]  # code(words, i): the code of value i, for the words of one row
    dot: Callable[..., Any]  # dot(name, lookup, largest weight, group of a scale): the products of 32 values

    def tile(self, name: str, activation: Int8Blocks, levels: Sequence[int], unit: float,
             least: int) -> Callable[..., Any]:
        """A tile of values scale * unit * (2 c + least) * level; c: the 4-bit scale of activation.group values."""
        weights = [level + activation.offset for level in levels]
        lookup = table_lookup(weights + [0] * (16 - len(weights)))
        codes = _VECTOR * self.words
        sizes = {"codes": codes, "pair": codes * activation.group // 16, "step": activation.block_bytes,
                 "twice": 2 * unit, "least": least * unit}
        dot = inlined(self.dot(name, lookup, max(weights), activation.group))
        if activation.group == 16:
            return device(bind(_tile_by_16, f"tile_{name}", dots=dot, **sizes))
        return device(bind(_tile_by_32, f"tile_{name}", dot=dot, **sizes))


def _nibble_dot(name: str, lookup: Any, largest: int, group: int) -> Callable[..., Any]:
    per_sum = 4 if not _NARROW else 2 if largest < 32 else 1  # vectors of two products
    return bind(_dot_nibbles, f"dot_{name}", lookup=lookup, per_sum=per_sum)


def _three_bit_dot(name: str, lookup: Any, largest: int, group: int) -> Callable[..., Any]:
    half = inlined(bind(_dot_half, f"dot_half_{name}", lookup=lookup))
    return bind(_dot_halves if group == 16 else _dot_both_halves, f"dot_{name}", dot_half=half)


def _two_bit_dot(name: str, lookup: Any, largest: int, group: int) -> Callable[..., Any]:
    return _dot_two_bits


NIBBLES = Layout(4, _nibble, _nibble_dot)  # as in `nibbles`
TWO_BITS = Layout(2, _two_bits, _two_bit_dot)  # two words of 16 values: bits 2 p of byte j for value 4 p + j
THREE_BITS = Layout(3, _three_bits, _three_bit_dot)  # and a word of third bits: bit p of byte j for value 4 p + j
