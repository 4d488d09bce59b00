"""Attention over the KV cache, and writing to it.

The cache of one head is two F16 matrices in panel layout: keys with a row for each position, values with a row for each
dimension. So the scores of a block of positions are one matmul and their weighted values another, by the same tile that
multiplies F16 weights. Blocks lie at fixed positions and are folded in with a running maximum (Milakov and Gimelshein,
"Online normalizer calculation for softmax"; Dao et al., "FlashAttention"), in the same order for every batch.
"""

from numba import float32

from .formats.f16 import tile
from .jit import device, kernel
from .math import exp
from .matmul import multiplier
from .simd import LANES, atomic_add, bits_to_float, get_f32, get_i64, load_f32, maximum, put_f16, put_f32, reduce_add
from .simd import reduce_max, splat_f32, store_f32

POSITIONS = 128  # positions of a block
_VECTOR = 4 * LANES
_MASKED = float32(-1e30)
_LARGEST_F16 = float32(65504.0)
_multiply = multiplier(tile, "kv")


@device
def _to_f16_range(x):
    """Saturate: an infinity in the cache would turn later weights of exactly zero into NaN."""
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
def _softmax_block(scores, row, vectors, limit, state):
    """Turn `limit` scores, padded to `vectors`, into weights, and fold them into state = (maximum, sum).

    Returns what earlier results must be multiplied by, now that the maximum may be larger.
    """
    for i in range(max(limit, 0), vectors * LANES):
        put_f32(scores + 4 * i, _MASKED)
    largest = splat_f32(_MASKED)
    for i in range(vectors):
        largest = maximum(load_f32(scores + _VECTOR * i), largest)
    before = get_f32(state)
    now = max(before, reduce_max(largest))
    shift, total = splat_f32(now), splat_f32(float32(0.0))
    for i in range(vectors):
        weight = exp(load_f32(scores + _VECTOR * i) - shift)
        store_f32(scores + _VECTOR * i, weight)
        total = total + weight
    factor = reduce_max(exp(splat_f32(before - now)))
    put_f32(state, now)
    put_f32(state + 4, get_f32(state + 4) * factor + reduce_add(total))
    return factor


@device
def _gather_queries(q, stride, queries, group, head_dim, out, out_stride, scale):
    """The queries of one KV head, [queries][group], one below the other and multiplied by scale."""
    for row in range(queries * group):
        source = q + row // group * stride + 4 * head_dim * (row % group)
        for d in range(head_dim):
            put_f32(out + row * out_stride + 4 * d, get_f32(source + 4 * d) * scale)


@kernel
def attention(work, thread, threads, count, jobs, q, out, stride, kv_heads, group, head_dim, keys, values, key_bytes,
              value_bytes, scratch, scratch_bytes, scale):
    """out = softmax(q . keys * scale) . values for every head, each query up to its own position.

    jobs: int64 [count][4], consecutive queries of one slot: first token, number, slot, position of the first.
    keys, values: the cache of this layer, [slot][kv head] regions. `group` query heads share a KV head.
    scratch: scratch_bytes for each thread, see `scratch_size`.
    """
    panels = (head_dim + LANES - 1) // LANES
    width = panels * _VECTOR  # bytes of a padded head
    capacity_stride = value_bytes // panels
    mine = scratch + thread * scratch_bytes
    total = get_i64(count) * kv_heads
    item = atomic_add(work, 1)
    while item < total:
        job, head = jobs + 32 * (item // kv_heads), item % kv_heads
        token, queries, slot, position = get_i64(job), get_i64(job + 8), get_i64(job + 16), get_i64(job + 24)
        rows = queries * group
        padded = (rows + 7) // 8 * 8
        states = mine
        heads = states + 8 * padded
        weights = heads + padded * width
        results = weights + 4 * padded * POSITIONS
        region = slot * kv_heads + head
        key_panels, value_panels = keys + region * key_bytes, values + region * value_bytes
        first_head = 4 * head_dim * group * head
        _gather_queries(q + token * stride + first_head, stride, queries, group, head_dim, heads, width,
                        bits_to_float(scale))
        for row in range(rows):
            put_f32(states + 8 * row, _MASKED)
            put_f32(states + 8 * row + 4, float32(0.0))
            for i in range(panels):
                store_f32(results + row * width + _VECTOR * i, splat_f32(float32(0.0)))
        for start in range(0, position + queries, POSITIONS):
            size = min(POSITIONS, position + queries - start)
            vectors = (size + LANES - 1) // LANES
            _multiply(key_panels + 2 * head_dim * start, heads, weights, width, 4 * POSITIONS, rows, 0, vectors,
                     2 * LANES * head_dim, head_dim, False)
            for row in range(rows):
                limit = min(size, position + row // group + 1 - start)
                factor = splat_f32(_softmax_block(weights + 4 * POSITIONS * row, row, vectors, limit,
                                                  states + 8 * row))
                for i in range(panels):
                    at = results + row * width + _VECTOR * i
                    store_f32(at, load_f32(at) * factor)
            _multiply(value_panels + 2 * LANES * start, weights, results, 4 * POSITIONS, width, rows, 0, panels,
                     capacity_stride, size, True)
        for row in range(rows):
            divisor = get_f32(states + 8 * row + 4)
            target = out + (token + row // group) * stride + first_head + 4 * head_dim * (row % group)
            for d in range(head_dim):
                put_f32(target + 4 * d, get_f32(results + row * width + 4 * d) / divisor)
        item = atomic_add(work, 1)


def scratch_size(rows: int, head_dim: int) -> int:
    """Bytes of scratch that a thread needs for jobs of up to `rows` = queries * group."""
    padded = -(-rows // 8) * 8
    width = -(-head_dim // LANES) * _VECTOR
    return padded * (8 + 2 * width + 4 * POSITIONS)
