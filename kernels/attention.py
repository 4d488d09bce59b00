"""Attention over the KV cache, and writing to it.

The cache of one head is two F16 matrices in panel layout: keys with a row for each position, values with a row for each
dimension. So the scores of a block of positions are one matmul, and the weighted sum of its values is another, both
with the tile for F16 weights. A query is summed over positions in the same order in every batch. As in llama.cpp,
queries and softmax weights are rounded to float16 first, as the cache is.
"""

from numba import float32

from .formats.f16 import tile
from .jit import device, kernel
from .math import exp
from .matmul import MAX_TOKENS, PANEL_GROUP, multiplier, whole_groups
from .simd import LANES, atomic_add, bits_to_float, get_f32, get_i64, load_f32, maximum, nearest_f16, put_f16, put_f32
from .simd import reduce_add, reduce_max, round_f16, splat_f32, store_f32

POSITIONS = 128  # how many positions a block has
_VECTOR = 4 * LANES
_GROUP = PANEL_GROUP * LANES  # rows of the smallest piece of a matrix
_MASKED = float32(-1e30)
_LARGEST_F16 = float32(65504.0)
_multiply = multiplier(tile, "kv")


@device
def _to_f16_range(x):
    """Clamp x: an infinity in the cache times a later weight of exactly zero would be NaN."""
    if x > _LARGEST_F16:
        return _LARGEST_F16
    return -_LARGEST_F16 if x < -_LARGEST_F16 else x


@device
def _rotate(row, table, pairs, step, distance):
    """Rotate pair i, at elements i * step and i * step + distance, by the angle whose (cos, sin) is table[i]."""
    for i in range(pairs):
        cos, sin = get_f32(table + 8 * i), get_f32(table + 8 * i + 4)
        at = row + 4 * i * step
        a, b = get_f32(at), get_f32(at + 4 * distance)
        put_f32(at, a * cos - b * sin)
        put_f32(at + 4 * distance, a * sin + b * cos)


@kernel
def rope(work, thread, threads, count, positions, x, x_stride, heads, head_dim, table, pairs, step, distance):
    """Rotary position embedding of `heads` heads of each row, in place (Su et al., "RoFormer").

    table: float32 [context][pairs][2], cos and sin. Pairs are neighbours (step 2, distance 1) or halves (step 1,
    distance pairs).
    """
    total = get_i64(count) * heads
    item = atomic_add(work, 1)
    while item < total:
        token, head = item // heads, item % heads
        angles = table + 8 * pairs * get_i64(positions + 8 * token)
        _rotate(x + token * x_stride + 4 * head_dim * head, angles, pairs, step, distance)
        item = atomic_add(work, 1)


@kernel
def store_kv(work, thread, threads, count, positions, slots, k, v, stride, heads, head_dim, keys, values, key_bytes,
             value_bytes, capacity):
    """Put the keys and values of a batch into the cache: [slot][head] regions of key_bytes and value_bytes."""
    total = get_i64(count) * heads
    item = atomic_add(work, 1)
    while item < total:
        token, head = item // heads, item % heads
        position = get_i64(positions + 8 * token)
        region = get_i64(slots + 8 * token) * heads + head
        source = token * stride + 4 * head_dim * head
        key = keys + region * key_bytes + 2 * (position // LANES * LANES * head_dim + position % LANES)
        value = values + region * value_bytes + 2 * LANES * position
        for d in range(head_dim):
            put_f16(key + 2 * LANES * d, _to_f16_range(get_f32(k + source + 4 * d)))
            put_f16(value + 2 * (d // LANES * LANES * capacity + d % LANES),
                    _to_f16_range(get_f32(v + source + 4 * d)))
        item = atomic_add(work, 1)


@device
def _softmax(scores, limit, vectors):
    """Softmax of `limit` scores, in place and rounded to float16. The rest of `vectors` vectors becomes zeros."""
    for i in range(limit, vectors * LANES):
        put_f32(scores + 4 * i, _MASKED)
    largest = splat_f32(_MASKED)
    for i in range(vectors):
        largest = maximum(load_f32(scores + _VECTOR * i), largest)
    shift, total = splat_f32(reduce_max(largest)), splat_f32(float32(0.0))
    for i in range(vectors):
        weight = exp(load_f32(scores + _VECTOR * i) - shift)
        store_f32(scores + _VECTOR * i, weight)
        total = total + weight
    inverse = splat_f32(float32(1.0) / reduce_add(total))
    for i in range(vectors):
        store_f32(scores + _VECTOR * i, round_f16(load_f32(scores + _VECTOR * i) * inverse))


@device
def _gather_queries(q, stride, rows, group, head_dim, out, out_stride, scale):
    """The queries of one KV head, [token][head of the group], as rows: rounded to float16, then multiplied by scale."""
    for row in range(rows):
        source = q + row // group * stride + 4 * head_dim * (row % group)
        for d in range(head_dim):
            put_f32(out + row * out_stride + 4 * d, nearest_f16(get_f32(source + 4 * d)) * scale)


@device
def _scatter_results(results, width, rows, group, head_dim, out, stride):
    """The reverse of _gather_queries."""
    for row in range(rows):
        target = out + row // group * stride + 4 * head_dim * (row % group)
        for d in range(head_dim):
            put_f32(target + 4 * d, get_f32(results + row * width + 4 * d))


@device
def _attend(heads, width, rows, group, head_dim, position, keys, values, value_panel_bytes, weights, weights_stride,
            results):
    """results = softmax(heads . keys) . values. Rows are [token][head of the group]; the first is at `position`."""
    panels = width // _VECTOR
    end = position + (rows + group - 1) // group
    for start in range(0, end, POSITIONS):  # the keys of a block stay in the first-level cache for all rows
        positions = min(POSITIONS, end - start)
        _multiply(keys + 2 * head_dim * start, heads, weights + 4 * start, width, weights_stride, rows, 0,
                  (positions + _GROUP - 1) // _GROUP * PANEL_GROUP, 2 * LANES * head_dim, head_dim, False)
    for row in range(rows):
        _softmax(weights + weights_stride * row, position + row // group + 1, (end + LANES - 1) // LANES)
    for start in range(0, end, POSITIONS):
        _multiply(values + 2 * LANES * start, weights + 4 * start, results, weights_stride, width, rows, 0, panels,
                  value_panel_bytes, min(POSITIONS, end - start), start > 0)


@kernel
def attention(work, thread, threads, count, jobs, q, out, stride, kv_heads, group, head_dim, keys, values, key_bytes,
              value_bytes, capacity, scratch, scratch_bytes, scale):
    """out = softmax(q . keys * scale) . values for every head, each query up to its own position.

    jobs: int64 [count][4], consecutive tokens of one slot: first token, number, slot, position of the first.
    keys, values: the cache of this layer, [slot][kv head] regions. `group` query heads share a KV head.
    scratch: scratch_bytes for each thread, see `scratch_size`.
    """
    width = (head_dim + _GROUP - 1) // _GROUP * 4 * _GROUP  # bytes of a padded head
    heads = scratch + thread * scratch_bytes
    total = get_i64(count) * kv_heads
    item = atomic_add(work, 1)
    while item < total:
        job, head = jobs + 32 * (item // kv_heads), item % kv_heads
        rows = get_i64(job + 8) * group
        results = heads + _whole_tiles(rows) * width
        weights = results + _whole_tiles(rows) * width
        at = get_i64(job) * stride + 4 * head_dim * group * head
        region = get_i64(job + 16) * kv_heads + head
        _gather_queries(q + at, stride, rows, group, head_dim, heads, width, bits_to_float(scale))
        _attend(heads, width, rows, group, head_dim, get_i64(job + 24), keys + region * key_bytes,
                values + region * value_bytes, 2 * LANES * capacity, weights, 4 * capacity, results)
        _scatter_results(results, width, rows, group, head_dim, out + at, stride)
        item = atomic_add(work, 1)


@device
def _whole_tiles(rows):
    return (rows + MAX_TOKENS - 1) // MAX_TOKENS * MAX_TOKENS


def scratch_size(rows: int, head_dim: int, capacity: int) -> int:
    """Bytes of scratch for each thread: for jobs of up to `rows` = tokens * group, and a cache of `capacity`."""
    width = 4 * LANES * whole_groups(head_dim)
    return -(-rows // MAX_TOKENS) * MAX_TOKENS * (2 * width + 4 * capacity)
