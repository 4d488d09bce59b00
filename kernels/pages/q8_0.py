"""Pages of Q8_0: int8 values, for keys with a scale for each 32 dimensions, for values with one for each position.

A query is quantized as activations are, and meets keys in int8 dot products. Values are multiplied as float32, by
weights that are multiplied by the position's scale first.
"""

from numba import float32

from ..activations import BLOCK, Int8Blocks, quantize_block
from ..formats import q8_0
from ..formats.floats import float_tile
from ..jit import device
from ..matmul import multiplier, padded_width
from ..simd import LANES, SIGNED_OFFSET, absolute, fma, load_f32, maximum, minimum, panel_i8, put_f32
from ..simd import reduce_add, reduce_max, rint, splat_f32, alloca, store_f32, store_i8, to_i32
from .page_type import POSITIONS, PageType

_KEY_BLOCK = 34  # bytes of 32 dimensions of a key
_BLOCK_FLOATS = 4 * BLOCK
_VECTOR = 4 * LANES
_ACTIVATION = Int8Blocks(offset=SIGNED_OFFSET)
_QUERY_BLOCK = _ACTIVATION.block_bytes
_VALUE_PANEL = LANES * POSITIONS
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
    for d in range(0, head_dim, LANES):
        code = to_i32(rint(_finite(load_f32(x + 4 * d)) * inverse))
        store_i8(values + d // LANES * _VALUE_PANEL + LANES * position, code)
    put_f32(values + value_bytes + 4 * (position - POSITIONS), peak / float32(127.0) + reduce_add(poison))


@device
def put_query(x, out, head_dim, scale):
    scaled = alloca(_BLOCK_FLOATS)
    for i in range(head_dim // BLOCK):
        for d in range(0, BLOCK, LANES):
            store_f32(scaled + 4 * d, load_f32(x + 4 * (BLOCK * i + d)) * splat_f32(scale))
        quantize_block(scaled, out + _QUERY_BLOCK * i, SIGNED_OFFSET, BLOCK, False)


_multiply_values = multiplier(float_tile("i8", 1, panel_i8), "q8_0_values")


@device
def weighted_sum(values, value_bytes, weights, scaled, out, weights_stride, out_stride, rows, panels, positions,
                 accumulate):
    scales = values + value_bytes - 4 * POSITIONS
    for row in range(rows):
        for at in range(row * weights_stride, row * weights_stride + 4 * positions, _VECTOR):
            scale = load_f32(scales + at - row * weights_stride)
            store_f32(scaled + at, load_f32(weights + at) * scale)
    _multiply_values(values, scaled, out, weights_stride, out_stride, rows, 0, panels, _VALUE_PANEL, positions,
                     accumulate)


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
