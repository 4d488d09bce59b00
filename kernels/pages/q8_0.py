"""Pages of Q8_0: int8 values, for keys with a scale for each 32 dimensions, for values with one for each position.

Both are used in int8 dot products, of 4 dimensions of keys and of 4 positions of values. A query is quantized as
activations are. The weights of a page's values, multiplied by their scales, become 8 bits with one scale.
"""

from numba import float32

from ..activations import BLOCK, Int8Blocks, quantize_block
from ..formats import q8_0
from ..jit import device
from ..matmul import multiplier, padded_width
from ..simd import LANES, LARGEST_UNSIGNED, SIGNED_OFFSET, absolute, alloca, dot4_unsigned, fma, get_u8, load_f32
from ..simd import maximum, minimum, panel_bytes, put_f32, put_u8, reduce_add, reduce_max, rint, scale_add, splat_f32
from ..simd import store_f32, store_i8, to_i32, zeros_f32, zeros_i32
from .page_type import POSITIONS, PageType

_KEY_BLOCK = 34  # bytes of 32 dimensions of a key
_BLOCK_FLOATS = 4 * BLOCK
_VECTOR = 4 * LANES
_ACTIVATION = Int8Blocks(offset=SIGNED_OFFSET)
_QUERY_BLOCK = _ACTIVATION.block_bytes
_VALUE_PANEL = LANES * POSITIONS
_GROUP = 4  # positions of a lane
_LARGEST = float32(3e38)


@device
def store_key(keys, position, x, head_dim):
    block = alloca(_KEY_BLOCK)
    panel = keys + position // LANES * LANES * _KEY_BLOCK * (head_dim // BLOCK)
    for i in range(head_dim // BLOCK):
        q8_0.quantize_block(x + 4 * BLOCK * i, block)
        q8_0.pack_block(block, panel + LANES * _KEY_BLOCK * i, position % LANES)


@device
def _finite(x):
    """Saturate: an infinite scale would turn weights of exactly zero into NaN. A NaN stays one."""
    return minimum(maximum(x, splat_f32(-_LARGEST)), splat_f32(_LARGEST))


@device
def store_value(values, position, x, head_dim, value_bytes):
    largest, poison = splat_f32(float32(0.0)), splat_f32(float32(0.0))
    for d in range(0, head_dim, LANES):
        value = _finite(load_f32(x + 4 * d))
        largest = maximum(absolute(value), largest)
        poison = fma(value, splat_f32(float32(0.0)), poison)
    peak = reduce_max(largest)
    inverse = splat_f32(float32(127.0) / peak if peak > 0 else float32(0.0))
    codes = alloca(LANES)
    target = values + LANES * (position - position % _GROUP) + position % _GROUP
    for d in range(0, head_dim, LANES):
        store_i8(codes, to_i32(rint(_finite(load_f32(x + 4 * d)) * inverse)))
        for lane in range(LANES):
            put_u8(target + _GROUP * lane, get_u8(codes + lane))
        target += _VALUE_PANEL
    put_f32(values + value_bytes + 4 * (position - POSITIONS), peak / float32(127.0) + reduce_add(poison))


@device
def put_query(x, out, head_dim, scale):
    scaled = alloca(_BLOCK_FLOATS)
    for i in range(head_dim // BLOCK):
        for d in range(0, BLOCK, LANES):
            store_f32(scaled + 4 * d, load_f32(x + 4 * (BLOCK * i + d)) * splat_f32(scale))
        quantize_block(scaled, out + _QUERY_BLOCK * i, SIGNED_OFFSET, BLOCK, False)


@device
def _values_tile(acc, panel, panel_stride, x, x_stride, groups):
    dots, scale, one = zeros_i32(acc), x + POSITIONS, zeros_f32(acc) + splat_f32(float32(1.0))
    for _ in range(groups):
        dots = dot4_unsigned(dots, panel_bytes(acc, panel, panel_stride), x, x_stride)
        panel += _GROUP * LANES
        x += _GROUP
    return scale_add(acc, dots, one, scale, x_stride)


_multiply_values = multiplier(_values_tile, "q8_0_values")


@device
def _quantize_weights(weights, scales, out, positions):
    """Weights times scales of a page's positions as codes of 0 to LARGEST_UNSIGNED, and the scale of these.

    A NaN makes that scale NaN.
    """
    largest, poison = splat_f32(float32(0.0)), splat_f32(float32(0.0))
    for i in range(0, positions, LANES):
        store_f32(weights + 4 * i, load_f32(weights + 4 * i) * load_f32(scales + 4 * i))
    for i in range(positions, (positions + LANES - 1) // LANES * LANES):  # whatever is in scales that nobody wrote
        put_f32(weights + 4 * i, float32(0.0))
    for i in range(0, positions, LANES):
        weight = load_f32(weights + 4 * i)
        largest = maximum(weight, largest)
        poison = fma(weight, splat_f32(float32(0.0)), poison)
    peak = reduce_max(largest)
    inverse = splat_f32(float32(LARGEST_UNSIGNED) / peak if peak > 0 else float32(0.0))
    for i in range(0, positions, LANES):
        store_i8(out + i, to_i32(rint(load_f32(weights + 4 * i) * inverse)))
    put_f32(out + POSITIONS, peak / float32(LARGEST_UNSIGNED) + reduce_add(poison))


@device
def weighted_sum(values, value_bytes, weights, quantized, out, weights_stride, out_stride, rows, panels, positions,
                 accumulate):
    scales = values + value_bytes - 4 * POSITIONS
    for row in range(rows):
        _quantize_weights(weights + row * weights_stride, scales, quantized + row * weights_stride, positions)
    _multiply_values(values, quantized, out, weights_stride, out_stride, rows, 0, panels, _VALUE_PANEL,
                     (positions + _GROUP - 1) // _GROUP, accumulate)


PAGES = PageType(
    "q8_0",
    multiple=BLOCK,
    key_block=BLOCK,
    value_size=_KEY_BLOCK / BLOCK,
    key_bytes=lambda head_dim: _KEY_BLOCK * head_dim // BLOCK * POSITIONS,
    value_bytes=lambda head_dim: (padded_width(head_dim) + 4) * POSITIONS,
    query_bytes=lambda head_dim: _QUERY_BLOCK * head_dim // BLOCK,
    store_key=store_key,
    store_value=store_value,
    put_query=put_query,
    multiply_keys=multiplier(q8_0.tile, "q8_0_keys"),
    weighted_sum=weighted_sum,
)
