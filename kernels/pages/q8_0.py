"""Pages of Q8_0: keys and values as int8, with a float32 scale for each position of a head.

Both are used in int8 dot products, of 4 dimensions of keys and of 4 positions of values. What they are multiplied with
has two int8 parts, high and low, as its precision costs no memory: queries, and the weights of a page's values, which
are multiplied by the scales of the values first.

Dimensions of keys can differ by a factor of a thousand, where a projection has a bias, and one scale would not do for
all. So a key is multiplied by factors that make its dimensions alike, and a query by their inverses.
"""

import numpy as np
from numba import float32, int32

from ..jit import device
from ..matmul import multiplier, padded_width
from ..simd import LANES, LARGEST_UNSIGNED, SIGNED_OFFSET, absolute, alloca, dot4_signed, dot4_unsigned, fma, get_i32
from ..simd import get_u8, init_from_bias, load_f32, maximum, minimum, panel_bytes, panel_f32, prefetch_ahead
from ..simd import prefetch_pages, put_f32, put_i32, put_u8, reduce_add, reduce_add_i32, reduce_max, rint, scale_add
from ..simd import splat_f32, splat_i32, store_f32, store_i8, to_i32, zeros_f32, zeros_i32
from .page_type import NOBODY, POSITIONS, PageType, inverse_sum

_VECTOR = 4 * LANES
_GROUP = 4  # values that a dot product takes at once
_VALUE_PANEL = LANES * POSITIONS
_LARGEST = float32(1e30)

_QUERY_SHIFT = 7  # a query's value is high * 2 ** 7 + low
_QUERY_LARGEST = 127 * 128 + 63
_WEIGHT_SHIFT = LARGEST_UNSIGNED.bit_length()
_WEIGHT_LARGEST = (1 << 2 * _WEIGHT_SHIFT) - 1


@device
def _scaled(x, factors):
    """One vector, saturated: an infinite scale would turn weights of exactly zero into NaN. A NaN stays one."""
    value = load_f32(x) if factors is None else load_f32(x) * load_f32(factors)
    return minimum(maximum(value, splat_f32(-_LARGEST)), splat_f32(_LARGEST))


@device
def _peak(x, factors, count):
    """The largest magnitude, and 0, or NaN if there is a NaN."""
    largest, poison = splat_f32(float32(0.0)), splat_f32(float32(0.0))
    for i in range(0, 4 * count, _VECTOR):
        value = _scaled(x + i, None if factors is None else factors + i)
        largest = maximum(absolute(value), largest)
        poison = fma(value, splat_f32(float32(0.0)), poison)
    return reduce_max(largest), reduce_add(poison)


@device
def _per_unit(codes, peak):
    return splat_f32(float32(codes) / peak if peak > 0 else float32(0.0))


@device
def store_key(keys, position, x, head_dim, factors):
    peak, poison = _peak(x, factors, head_dim)
    inverse, codes = _per_unit(127, peak), alloca(LANES)
    panel = keys + position // LANES * LANES * (head_dim + 4)
    put_f32(panel + 4 * (position % LANES), peak / float32(127.0) + poison)
    target = panel + _VECTOR + 4 * (position % LANES)
    for d in range(0, head_dim, LANES):
        code = to_i32(rint(_scaled(x + 4 * d, factors + 4 * d) * inverse))
        store_i8(codes, code + splat_i32(int32(SIGNED_OFFSET)))
        for group in range(0, LANES, _GROUP):
            put_i32(target + LANES * (d + group), get_i32(codes + group))


@device
def store_value(values, position, x, head_dim, value_bytes):
    peak, poison = _peak(x, None, head_dim)
    inverse, codes = _per_unit(127, peak), alloca(LANES)
    target = values + LANES * (position - position % _GROUP) + position % _GROUP
    for d in range(0, head_dim, LANES):
        store_i8(codes, to_i32(rint(_scaled(x + 4 * d, None) * inverse)))
        for lane in range(LANES):
            put_u8(target + _GROUP * lane, get_u8(codes + lane))
        target += _VALUE_PANEL
    put_f32(values + value_bytes + 4 * (position - POSITIONS), peak / float32(127.0) + poison)


@device
def put_query(x, out, head_dim, scale, factors):
    """High parts [head_dim], low parts [head_dim], the scale, and the bias that takes out the offset of keys."""
    peak, poison = _peak(x, factors, head_dim)
    inverse, total = _per_unit(_QUERY_LARGEST, peak), splat_i32(int32(0))
    for d in range(0, head_dim, LANES):
        code = to_i32(rint(_scaled(x + 4 * d, factors + 4 * d) * inverse))
        high = (code + splat_i32(int32(1 << _QUERY_SHIFT - 1))) >> splat_i32(int32(_QUERY_SHIFT))
        store_i8(out + d, high)
        store_i8(out + head_dim + d, code - (high << splat_i32(int32(_QUERY_SHIFT))))
        total = total + code
    put_f32(out + 2 * head_dim, (peak / float32(_QUERY_LARGEST) + poison) * scale)
    put_i32(out + 2 * head_dim + 4, int32(-SIGNED_OFFSET) * reduce_add_i32(total))


@device
def _keys_tile(acc, panel, panel_stride, x, x_stride, groups, *ahead):
    low_parts, end = x + _GROUP * groups, x + 2 * _GROUP * groups
    codes, high, low = panel + _VECTOR, zeros_i32(acc), init_from_bias(acc, end + 4, x_stride)
    for _ in range(groups):
        prefetch_pages(acc, codes, panel_stride, _VECTOR)
        prefetch_ahead(acc, codes, panel_stride, _VECTOR, ahead)
        key = panel_bytes(acc, codes, panel_stride)
        high = dot4_signed(high, key, x, x_stride)
        low = dot4_signed(low, key, low_parts, x_stride)
        codes += _VECTOR
        x += _GROUP
        low_parts += _GROUP
    dots = (high << splat_i32(int32(_QUERY_SHIFT))) + low
    return scale_add(acc, dots, panel_f32(acc, panel, panel_stride), end, x_stride)


@device
def _values_tile(acc, panel, panel_stride, x, x_stride, groups, *ahead):
    high, low, one = zeros_i32(acc), zeros_i32(acc), zeros_f32(acc) + splat_f32(float32(1.0))
    scale = x + 2 * POSITIONS
    for _ in range(groups):
        prefetch_pages(acc, panel, panel_stride, _VECTOR)
        prefetch_ahead(acc, panel, panel_stride, _VECTOR, ahead)
        value = panel_bytes(acc, panel, panel_stride)
        high = dot4_unsigned(high, value, x, x_stride)
        low = dot4_unsigned(low, value, x + POSITIONS, x_stride)
        panel += _GROUP * LANES
        x += _GROUP
    dots = (high << splat_i32(int32(_WEIGHT_SHIFT))) + low
    return scale_add(acc, dots, one, scale, x_stride)


_multiply_values = multiplier(_values_tile, "q8_0_values")


@device
def _split_weights(weights, scales, out, positions, factor):
    """Weights times scales of a page's positions times a factor: high parts [POSITIONS], low parts [POSITIONS], and the
    scale of both."""
    for i in range(0, 4 * positions, _VECTOR):
        store_f32(weights + i, load_f32(weights + i) * load_f32(scales + i))
    for i in range(positions, (positions + LANES - 1) // LANES * LANES):  # whatever is in scales that nobody wrote
        put_f32(weights + 4 * i, float32(0.0))
    peak, poison = _peak(weights, None, positions)
    inverse = _per_unit(_WEIGHT_LARGEST, peak)
    for i in range(0, positions, LANES):
        code = to_i32(rint(load_f32(weights + 4 * i) * inverse))
        high = code >> splat_i32(int32(_WEIGHT_SHIFT))
        store_i8(out + i, high)
        store_i8(out + POSITIONS + i, code - (high << splat_i32(int32(_WEIGHT_SHIFT))))
    put_f32(out + 2 * POSITIONS, (peak / float32(_WEIGHT_LARGEST) + poison) * factor)


@device
def weighted_mean(values, value_bytes, weights, split, out, weights_stride, out_stride, rows, panels, positions,
                  accumulate, ahead):
    scales = values + value_bytes - 4 * POSITIONS
    for row in range(rows):
        _split_weights(weights + row * weights_stride, scales, split + row * weights_stride, positions,
                       inverse_sum(out + row * out_stride, panels))
    _multiply_values(values, split, out, weights_stride, out_stride, rows, 0, panels, _VALUE_PANEL,
                     (positions + _GROUP - 1) // _GROUP, accumulate, ahead)


def key_owners(head_dim: int) -> np.ndarray:
    """[panel]: the scales of all positions [LANES][4 bytes], then [group of dimensions][LANES][4]"""
    lanes = np.repeat(np.arange(POSITIONS), 4).reshape(-1, 1, _VECTOR)
    return np.broadcast_to(lanes, (len(lanes), 1 + head_dim // _GROUP, _VECTOR)).reshape(-1)


def value_owners(head_dim: int) -> np.ndarray:
    """[panel][group of positions][dimension of the panel][4], then a scale for each position [4 bytes]"""
    dimensions = np.arange(padded_width(head_dim)).reshape(-1, 1, LANES, 1)
    codes = np.where(dimensions < head_dim, np.arange(POSITIONS).reshape(1, -1, 1, _GROUP), NOBODY)
    return np.concatenate([codes.reshape(-1), np.repeat(np.arange(POSITIONS), 4)])


PAGES = PageType(
    "q8_0",
    multiple=16,
    balanced=True,
    key_block=_GROUP,
    value_size=1,
    scale_size=4,
    key_bytes=lambda head_dim: (head_dim + 4) * POSITIONS,
    value_bytes=lambda head_dim: (padded_width(head_dim) + 4) * POSITIONS,
    key_owners=key_owners,
    value_owners=value_owners,
    query_bytes=lambda head_dim: 2 * head_dim + 8,
    store_key=store_key,
    store_value=store_value,
    put_query=put_query,
    multiply_keys=multiplier(_keys_tile, "q8_0_keys"),
    weighted_mean=weighted_mean,
)
