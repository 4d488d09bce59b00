"""Attention over pages of keys and values, and storing into them.

A page holds 128 positions of a sequence, which need not be next to each other in memory. The scores of a page are one
matmul and its weighted values another. Positions are taken in spans of 512: each gives a maximum, a sum and a weighted
mean of its values, and spans are put together in their order (Milakov, Gimelshein, "Online normalizer calculation for
softmax"). So a result depends neither on the batch, nor on which threads compute its spans, nor on where pages lie.
"""

from __future__ import annotations

from functools import cache

from numba import float32

from .jit import Kernel, bind, device, hole, kernel, row_kernel, template
from .math import exp, tanh
from .matmul import MAX_TOKENS, PANEL_GROUP, padded_width
from .pages import POSITIONS, PageType
from .simd import LANES, atomic_add, bits_to_float, fma, get_f32, get_i64, load_f32, load_tile, maximum, put_f32
from .simd import put_i64, reduce_add, reduce_max, splat_f32, store_f32, store_tile, zeros

SPAN = 512  # positions; whole pages
SHARES = 4  # for each thread, where a few sequences are so long that threads share them
_VECTOR = 4 * LANES
_GROUP = PANEL_GROUP * LANES  # positions of the smallest piece of a page
_MASKED = float32(-1e30)

store_key = store_value = put_query = multiply_keys = weighted_mean = attend_span = hole()


@template
def _store(work, thread, threads, count, positions, slots, tables, table_bytes, k, v, stride, heads, head_dim, balance,
           pages, page_bytes, key_bytes, value_bytes):
    """Put the keys and values of a batch into the pages of their sequences. Operands as in `_attention`."""
    for token in range(thread, get_i64(count), threads):
        position = get_i64(positions + 8 * token)
        page = get_i64(tables + get_i64(slots + 8 * token) * table_bytes + 8 * (position // POSITIONS))
        for head in range(heads):
            keys = pages + page * page_bytes + head * (key_bytes + value_bytes)
            source = token * stride + 4 * head_dim * head
            store_key(keys, position % POSITIONS, k + source, head_dim, balance + 8 * head_dim * head + 4 * head_dim)
            store_value(keys + key_bytes, position % POSITIONS, v + source, head_dim, value_bytes)


@device
def _mask(scores, first, last):
    for i in range(first, last):
        put_f32(scores + 4 * i, _MASKED)


@device
def _softmax(scores, first, limit, vectors, cap, state):
    """Turn scores into weights e ** (score - m), m being their maximum, those outside [first, limit) into zeros.

    m and the sum of the weights go to state. cap: scores become cap * tanh(score / cap), unless it is 0.
    """
    first, limit = max(first, 0), min(limit, vectors * LANES)
    if cap > 0:
        for i in range(first // LANES, vectors):
            score = load_f32(scores + _VECTOR * i)
            store_f32(scores + _VECTOR * i, splat_f32(cap) * tanh(score / splat_f32(cap)))
    _mask(scores, 0, min(first, vectors * LANES))
    _mask(scores, max(limit, 0), vectors * LANES)
    four = zeros(PANEL_GROUP, 1)  # vectors at once, which do not wait for each other
    largest = four + splat_f32(_MASKED)
    for i in range(0, vectors, PANEL_GROUP):
        largest = maximum(load_tile(four, scores + _VECTOR * i, _VECTOR, 0), largest)
    peak = reduce_max(largest)
    # Where all is masked, weights must be zeros, not e ** 0.
    shift, total = splat_f32(peak if first < limit else float32(0.0)), four
    for i in range(0, vectors, PANEL_GROUP):
        weights = exp(load_tile(four, scores + _VECTOR * i, _VECTOR, 0) - shift)
        store_tile(weights, scores + _VECTOR * i, _VECTOR, 0)
        total = total + weights
    put_f32(state, peak)
    put_f32(state + 4, reduce_add(total))


@template
def _attend_span(queries, query_bytes, rows, group, head_dim, position, start, window, cap, table, pages, page_bytes,
                 key_bytes, value_bytes, key_blocks, scores, scaled, partial, width):
    """Attend to positions from `start` up to the end of the span. Queries are rows [token][head of the group].

    partial: float32 [rows][width], and after each row its maximum and sum.
    """
    end = min(start + SPAN, position + (rows + group - 1) // group)
    first = max(start, position - window + 1) // POSITIONS
    last = (end + POSITIONS - 1) // POSITIONS
    for page in range(first, last):
        keys = pages + get_i64(table + 8 * page) * page_bytes
        at = page * POSITIONS
        panels = (min(POSITIONS, end - at) + _GROUP - 1) // _GROUP * PANEL_GROUP
        # Memory is to be as busy as the processor: values come into the cache while keys are used, and then the keys of
        # the next span.
        multiply_keys(keys, queries, scores + 4 * (at - start), query_bytes, 4 * SPAN, rows, 0,
                      panels, key_bytes // (POSITIONS // LANES), key_blocks, False, key_bytes)
    vectors = (end - start + _GROUP - 1) // _GROUP * PANEL_GROUP
    for row in range(rows):
        now = position + row // group
        _softmax(scores + 4 * SPAN * row, now - window + 1 - start, now + 1 - start, vectors, cap,
                 partial + row * (width + _VECTOR) + width)
    for page in range(first, last):
        values = pages + get_i64(table + 8 * page) * page_bytes + key_bytes
        at = page * POSITIONS
        later = page + SPAN // POSITIONS if at + SPAN < position else page
        next_keys = pages + get_i64(table + 8 * later) * page_bytes
        weighted_mean(values, value_bytes, scores + 4 * (at - start), scaled, partial, 4 * SPAN, width + _VECTOR, rows,
                      width // _VECTOR, min(POSITIONS, end - at), page > first, next_keys - values)


@device
def _start(total, rows, group, width, sinks):
    """Begin the sums of all spans: with nothing, or with the weight of a head's sink, which has no value."""
    for row in range(rows):
        at = total + row * (width + _VECTOR)
        for i in range(0, width, _VECTOR):
            store_f32(at + i, splat_f32(float32(0.0)))
        put_f32(at + width, get_f32(sinks + 4 * (row % group)) if sinks != 0 else _MASKED)
        put_f32(at + width + 4, float32(1.0) if sinks != 0 else float32(0.0))


@device
def _add_span(total, partial, rows, width):
    """The weighted mean of both means. Each has the weight of its sum of e ** (score - its maximum)."""
    for row in range(rows):
        a, b = total + row * (width + _VECTOR), partial + row * (width + _VECTOR)
        before, here = splat_f32(get_f32(a + width)), splat_f32(get_f32(b + width))
        largest = maximum(before, here)
        keep = splat_f32(get_f32(a + width + 4)) * exp(before - largest)
        add = splat_f32(get_f32(b + width + 4)) * exp(here - largest)
        sum = reduce_max(keep + add)
        # Divided, so that a span in which nothing was seen leaves the other exactly as it is.
        divisor = splat_f32(sum if sum != 0 else float32(1.0))
        keep, add = keep / divisor, add / divisor
        for i in range(0, width, _VECTOR):
            store_f32(a + i, fma(load_f32(a + i), keep, load_f32(b + i) * add))
        put_f32(a + width, reduce_max(largest))
        put_f32(a + width + 4, sum)


@device
def _finish(total, rows, group, head_dim, width, out, stride):
    """The mean of each row, to its token and head."""
    for row in range(rows):
        source = total + row * (width + _VECTOR)
        target = out + row // group * stride + 4 * head_dim * (row % group)
        whole = head_dim // LANES * LANES
        for d in range(0, whole, LANES):
            store_f32(target + 4 * d, load_f32(source + 4 * d))
        for d in range(whole, head_dim):
            put_f32(target + 4 * d, get_f32(source + 4 * d))


@device
def _whole_tiles(rows):
    return (rows + MAX_TOKENS - 1) // MAX_TOKENS * MAX_TOKENS


@device
def _parts(items, threads, deepest):
    """Into how many parts of spans an item is cut, so that all threads have work."""
    if items >= SHARES * threads:
        return 1
    return max(1, min(deepest, (SHARES * threads + items - 1) // max(1, items)))


@template
def _attention(work, thread, threads, count, jobs, deepest, tables, table_bytes, q, out, stride, kv_heads, group,
               head_dim, balance, pages, page_bytes, key_bytes, value_bytes, query_bytes, key_blocks, scratch,
               scratch_bytes, partials, most_spans, partial_bytes, finished, scale, window, cap, sinks):
    """out = softmax(q . keys * scale) . values for every head, each query up to its own position.

    jobs: int64 [count][4], consecutive tokens of one sequence: first token, number, slot, position of the first.
    deepest: address of the most spans that a job has. tables: the page numbers of each slot, int64. balance: float32
    [kv_heads][2][head_dim], factors of queries and of keys, where the type of pages has them. pages: of this layer,
    page_bytes apart; in each, for every KV head, keys and then values. `group` query heads share a KV head. scratch:
    scratch_bytes for each thread. partials [SHARES * threads][most_spans][partial_bytes] and finished [SHARES *
    threads], a zeroed cache line each: for spans that threads share. window: positions that a query sees. sinks:
    float32 for each head, or 0.
    """
    width = 4 * ((head_dim + _GROUP - 1) // _GROUP * _GROUP)
    items = get_i64(count) * kv_heads
    parts = _parts(items, threads, get_i64(deepest))
    queries = scratch + thread * scratch_bytes
    item = atomic_add(work, 1)
    while item < items * parts:
        pair, part = item // parts, item % parts
        job, head = jobs + 32 * (pair // kv_heads), pair % kv_heads
        rows, position = get_i64(job + 8) * group, get_i64(job + 24)
        row_bytes = _whole_tiles(rows) * (width + _VECTOR)
        total = queries + (_whole_tiles(rows) * query_bytes + _VECTOR - 1) // _VECTOR * _VECTOR
        scores = total + 2 * row_bytes
        scaled = scores + _whole_tiles(rows) * 4 * SPAN
        at = get_i64(job) * stride + 4 * head_dim * group * head
        for row in range(rows):
            put_query(q + at + row // group * stride + 4 * head_dim * (row % group),
                      queries + row * query_bytes, head_dim, bits_to_float(scale), balance + 8 * head_dim * head)
        begin = max(0, position - window + 1) // SPAN
        spans = (position + get_i64(job + 8) - 1) // SPAN + 1 - begin
        shared = partials + pair * most_spans * partial_bytes
        own_sinks = sinks + 4 * group * head if sinks != 0 else 0
        if parts == 1:
            _start(total, rows, group, width, own_sinks)
        for span in range(part * spans // parts, (part + 1) * spans // parts):
            partial = total + row_bytes if parts == 1 else shared + span * partial_bytes
            attend_span(queries, query_bytes, rows, group, head_dim, position, (begin + span) * SPAN,
                        window, bits_to_float(cap), tables + get_i64(job + 16) * table_bytes,
                        pages + head * (key_bytes + value_bytes), page_bytes, key_bytes, value_bytes, key_blocks,
                        scores, scaled, partial, width)
            if parts == 1:
                _add_span(total, partial, rows, width)
        if parts == 1:
            _finish(total, rows, group, head_dim, width, out + at, stride)
        elif atomic_add(finished + 64 * pair, 1) == parts - 1:  # the last part: the others' results are there
            put_i64(finished + 64 * pair, 0)
            _start(total, rows, group, width, own_sinks)
            for span in range(spans):
                _add_span(total, shared + span * partial_bytes, rows, width)
            _finish(total, rows, group, head_dim, width, out + at, stride)
        item = atomic_add(work, 1)


def scratch_size(keys: PageType, rows: int, head_dim: int) -> int:
    """Bytes of scratch that a thread needs for jobs of up to `rows` = tokens * group."""
    whole = -(-rows // MAX_TOKENS) * MAX_TOKENS
    return whole * (keys.query_bytes(head_dim) + 2 * 4 * SPAN) + 2 * partial_size(rows, head_dim) + _VECTOR


def partial_size(rows: int, head_dim: int) -> int:
    """Bytes of what a span gives for so many rows."""
    return -(-rows // MAX_TOKENS) * MAX_TOKENS * (4 * padded_width(head_dim) + _VECTOR)


@cache
def store(keys: PageType, values: PageType) -> Kernel:
    """The instruction that puts keys and values into pages of these types."""
    return row_kernel(bind(_store, f"store_{keys.name}_{values.name}", store_key=keys.store_key,
                           store_value=values.store_value))


@cache
def attention(keys: PageType, values: PageType) -> Kernel:
    """The instruction that attends to keys and values in pages of these types."""
    name = f"{keys.name}_{values.name}"
    attend_span = device(bind(_attend_span, f"attend_span_{name}", multiply_keys=keys.multiply_keys,
                              weighted_mean=values.weighted_mean))
    return kernel(bind(_attention, f"attention_{name}", put_query=keys.put_query, attend_span=attend_span))
