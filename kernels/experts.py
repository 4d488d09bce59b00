"""Mixtures of experts: choosing a token's experts, grouping tokens by expert, gathering rows, summing results.

A token and one of its experts are a pair. Pairs are grouped by expert, and in the grouped buffers each pair has a row.
A group has as many rows as the tiles of its matmul touch, so groups never share a tile: the result of a token does not
depend on which others have the same expert. `matmul_experts` (in matmul.py) multiplies every group with its expert.
"""

from math import inf, nan

from numba import float32

from .activations import row_address, spread
from .jit import device, kernel
from .math import exp
from .matmul import GROUP_BYTES, GROUPS, tile_rows
from .simd import LANES, PAIRS, PIECE, atomic_add, bits_to_float, fma, get_f32, get_i32, get_i64, load_f32, maximum
from .simd import put_f32, put_i32, put_i64, reduce_add, reduce_max, splat_f32, store_f32

SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = 1, 2, 3  # GGUF's `expert_gating_func`
_LEAST_SUM = float32(6.103515625e-05)  # of weights, before they are divided by it (llama.cpp's build_moe_ffn)
_LOWEST = float32(-3.4028235e38)
_VECTOR = 4 * LANES
_PIECE = 32  # vectors that a thread takes at a time


@device
def _softmax(x, count):
    """`count` float32 in place. The memory up to a whole vector is overwritten."""
    end = (count + LANES - 1) // LANES * LANES
    for i in range(count, end):
        put_f32(x + 4 * i, _LOWEST)
    largest, total = splat_f32(_LOWEST), splat_f32(float32(0.0))
    for i in range(0, end, LANES):
        largest = maximum(load_f32(x + 4 * i), largest)
    shift = splat_f32(reduce_max(largest))
    for i in range(0, end, LANES):
        power = exp(load_f32(x + 4 * i) - shift)
        store_f32(x + 4 * i, power)
        total = total + power
    sum = splat_f32(reduce_add(total))
    for i in range(0, end, LANES):
        store_f32(x + 4 * i, load_f32(x + 4 * i) / sum)


@device
def _sigmoid(x, count):
    """1 / (1 + e ** -x), in place, for whole vectors."""
    one, zero = splat_f32(float32(1.0)), splat_f32(float32(0.0))
    for i in range(0, count, LANES):
        store_f32(x + 4 * i, one / (one + exp(zero - load_f32(x + 4 * i))))


@device
def _put_ranks(scores, bias, experts, ranks):
    """What experts are chosen by: scores [+ bias]. A NaN, which no order has a place for, becomes the lowest."""
    for i in range(0, experts, LANES):
        rank = load_f32(scores + 4 * i)
        if bias != 0:
            rank = rank + load_f32(bias + 4 * i)
        store_f32(ranks + 4 * i, maximum(splat_f32(float32(-inf)), rank))
    for i in range(experts, (experts + LANES - 1) // LANES * LANES):
        put_f32(ranks + 4 * i, float32(nan))  # those do not exist


@device
def _take_highest(ranks, experts):
    """The expert of the highest rank, the first of equals. It becomes a NaN: so it is not found again."""
    highest = splat_f32(float32(-inf))
    for i in range(0, experts, LANES):
        highest = maximum(highest, load_f32(ranks + 4 * i))
    peak, expert = reduce_max(highest), 0
    while get_f32(ranks + 4 * expert) != peak:
        expert += 1
    put_f32(ranks + 4 * expert, float32(nan))
    return expert


@device
def _poison(scores, experts):
    """0, but NaN if any score is NaN or infinite."""
    total = splat_f32(float32(0.0))
    for i in range(0, experts, LANES):
        total = fma(load_f32(scores + 4 * i), splat_f32(float32(0.0)), total)
    return reduce_add(total)


@device
def _choose(scores, experts, used, scoring, bias, renormalize, factor, factors, ranks, chosen, weights):
    """Of one token: the ids of its experts, int64 [used], and their weights, float32. `scores` are overwritten."""
    poison = _poison(scores, experts)
    if scoring == SOFTMAX:
        _softmax(scores, experts)
    elif scoring == SIGMOID:
        _sigmoid(scores, experts)
    _put_ranks(scores, bias, experts, ranks)
    for i in range(used):
        expert = _take_highest(ranks, experts)
        put_i64(chosen + 8 * i, expert)
        put_f32(weights + 4 * i, get_f32(scores + 4 * expert))
    if scoring == SOFTMAX_OF_CHOSEN:
        _softmax(weights, used)
    total = float32(0.0)
    for i in range(used):
        total += get_f32(weights + 4 * i)
    divisor = max(total, _LEAST_SUM) if renormalize else float32(1.0)
    for i in range(used):
        own = get_f32(factors + 4 * get_i64(chosen + 8 * i)) if factors != 0 else float32(1.0)
        put_f32(weights + 4 * i, get_f32(weights + 4 * i) / divisor * factor * own + poison)


@device
def _count(tokens, experts, used, chosen, counts):
    """How many tokens have each expert: int64 [experts]."""
    for expert in range(experts):
        put_i64(counts + 8 * expert, 0)
    for pair in range(tokens * used):
        count = counts + 8 * get_i64(chosen + 8 * pair)
        put_i64(count, get_i64(count) + 1)


@device
def _group(tokens, experts, used, chosen, places, groups, rows, next_rows):
    """Give each pair its row: expert after expert, and for each expert in the order of tokens."""
    _count(tokens, experts, used, chosen, next_rows)
    group, row, largest = groups + GROUPS, 0, 0
    for expert in range(experts):
        count = get_i64(next_rows + 8 * expert)
        put_i64(next_rows + 8 * expert, row)
        if count > 0:
            put_i64(group, expert)
            put_i64(group + 8, row)
            put_i64(group + 16, count)
            group += GROUP_BYTES
            row += tile_rows(count)
            largest = max(largest, count)
    put_i64(groups, row)
    put_i64(groups + 8, (group - groups - GROUPS) // GROUP_BYTES)
    put_i64(groups + 16, largest)
    for pair in range(tokens * used):
        expert = get_i64(chosen + 8 * pair)
        row = get_i64(next_rows + 8 * expert)
        put_i64(next_rows + 8 * expert, row + 1)
        put_i64(places + 8 * pair, row)
        put_i64(rows + 16 * row, pair // used)
        put_i64(rows + 16 * row + 8, expert)


@device
def _fill(groups, rows):
    """The rows of a group after its last token: the first one's again, so that they hold numbers of this step."""
    for i in range(get_i64(groups + 8)):
        group = groups + GROUPS + GROUP_BYTES * i
        first, count = get_i64(group + 8), get_i64(group + 16)
        for row in range(first + count, first + tile_rows(count)):
            put_i64(rows + 16 * row, get_i64(rows + 16 * first))
            put_i64(rows + 16 * row + 8, get_i64(group))


@kernel
def route(work, thread, threads, count, scores, stride, experts, used, scoring, bias, renormalize, factor, factors,
          chosen, weights, weights_stride, places, groups, rows, ranks, ranks_bytes, next_rows, finished):
    """Choose `used` of the `experts` for each token by the router's scores, and group the pairs.

    scores: float32 rows [count][experts], `stride` bytes apart, which are overwritten. With SOFTMAX or SIGMOID, these
    functions of a token's scores rank its experts and are their weights; with SOFTMAX_OF_CHOSEN, the scores themselves
    rank, and weights are the softmax over those chosen. bias: float32 [experts], whole vectors, added for ranking
    alone, or 0. Equal ranks: the lower id. Weights are divided by their sum if `renormalize`, then multiplied by
    `factor`, and by that of the expert: factors, float32 [experts], or 0. A token with a score that is not finite has
    NaN for its weights.

    Results: chosen, places: int64 [count][used], the experts of a token from the highest rank on, and the rows of these
    pairs. weights: float32 [count][used], `weights_stride` bytes apart, whole vectors. groups: as in `matmul_experts`.
    rows: int64 [rows][2], token and expert of each. Scratch: ranks, float32 [experts] in whole vectors for each thread,
    ranks_bytes apart; next_rows, int64 [experts]; finished, a zeroed int64.
    """
    tokens = get_i64(count)
    token = atomic_add(work, 1)
    while token < tokens:
        _choose(scores + token * stride, experts, used, scoring, bias, renormalize, bits_to_float(factor), factors,
                ranks + thread * ranks_bytes, chosen + 8 * used * token, weights + weights_stride * token)
        if atomic_add(finished, 1) == tokens - 1:  # the last one: all others have chosen
            put_i64(finished, 0)
            _group(tokens, experts, used, chosen, places, groups, rows, next_rows)
            _fill(groups, rows)
        token = atomic_add(work, 1)


@device
def _copy_pieces(source, target, nbytes):
    """A row that lies in a pair with another one."""
    for at in range(0, nbytes, PIECE):
        put_i64(target + spread(at), get_i64(source + spread(at)))


@device
def _copy(source, target, nbytes):
    """A multiple of 4 bytes."""
    whole = nbytes // _VECTOR * _VECTOR
    for at in range(0, whole, _VECTOR):
        store_f32(target + at, load_f32(source + at))
    for at in range(whole, nbytes, 4):
        put_i32(target + at, get_i32(source + at))


@kernel
def gather_rows(work, thread, threads, groups, rows, x, x_stride, out, out_stride, nbytes, int8):
    """Of every row, its token's `nbytes`, a multiple of 4: activations in whatever form a matmul takes.

    int8: whether rows are of int8, which lie in memory two at a time where PAIRS is true.
    """
    count = get_i64(groups)
    row = atomic_add(work, 1)
    while row < count:
        token = get_i64(rows + 16 * row)
        if PAIRS and int8:
            _copy_pieces(row_address(x, token, x_stride), row_address(out, row, out_stride), nbytes)
        else:
            _copy(x + token * x_stride, out + row * out_stride, nbytes)
        row = atomic_add(work, 1)


@kernel
def add_expert_bias(work, thread, threads, groups, rows, x, stride, bias, bias_stride, vectors):
    """x += bias[expert of the row], for each row."""
    count = get_i64(groups)
    row = atomic_add(work, 1)
    while row < count:
        own = bias + get_i64(rows + 16 * row + 8) * bias_stride
        for i in range(vectors):
            at = x + row * stride + _VECTOR * i
            store_f32(at, load_f32(at) + load_f32(own + _VECTOR * i))
        row = atomic_add(work, 1)


@kernel
def add_weighted(work, thread, threads, count, used, places, weights, weights_stride, x, x_stride, out, out_stride,
                 vectors, accumulate):
    """out += the weighted sum of a token's rows of x, from its highest-ranked expert on, or = it."""
    pieces = (vectors + _PIECE - 1) // _PIECE
    total = get_i64(count) * pieces
    item = atomic_add(work, 1)
    while item < total:
        token, first = item // pieces, item % pieces * _PIECE
        own, target = weights + token * weights_stride, out + token * out_stride
        for i in range(first, min(first + _PIECE, vectors)):
            sum = splat_f32(float32(0.0))
            for j in range(used):
                place = get_i64(places + 8 * (token * used + j))
                sum = fma(load_f32(x + place * x_stride + _VECTOR * i), splat_f32(get_f32(own + 4 * j)), sum)
            if accumulate:
                sum = load_f32(target + _VECTOR * i) + sum
            store_f32(target + _VECTOR * i, sum)
        item = atomic_add(work, 1)
