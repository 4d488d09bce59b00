"""Layers with a state: causal convolutions and gated delta nets, which read a sequence's state and leave its next one.

Spans [n][3] are the tokens of one sequence each: first token, number of tokens, slot of the state that they begin with,
below 0 for one of zeros. saves [tokens]: the slot that takes the state after a token, below 0 for none. A span may save
its last state where it began. Threads share channels and heads, never time: so a result depends on nothing but the
tokens before, in whatever pieces they come.
"""

from math import sqrt

from numba import float32

from .jit import device, kernel, row_kernel
from .math import exp
from .simd import LANES, atomic_add, bits_to_float, fma, get_f32, get_i64, load_f32, load_tile, put_f32, reduce_add
from .simd import splat_f32, store_f32, store_tile, zeros, zeros_f32

_VECTOR = 4 * LANES
_PIECE = 16  # vectors of channels that a thread takes at a time
_COLUMNS = 4  # vectors that are computed at once, of channels or of a state's columns


@device
def _tap(x, states, slot, state_bytes, stride, back, first, taps, row_bytes):
    """The address of a convolution's input `back` tokens before one, which is token `first` of its span; 0: zeros."""
    if back <= first:
        return x - back * stride
    if slot < 0:
        return 0
    return states + slot * state_bytes + (taps - 1 + first - back) * row_bytes


@device
def _convolve_some(like, at, span, saves, x, out, stride, weight, taps, silu, states, state_bytes, row_bytes):
    """As many vectors of channels as `like` has, `at` so many bytes, of all tokens of a span."""
    start, tokens, slot = get_i64(span), get_i64(span + 8), get_i64(span + 16)
    one, zero = splat_f32(float32(1.0)), zeros_f32(like)
    for t in range(tokens):
        row, sum = x + (start + t) * stride, zero
        for j in range(taps):
            source = _tap(row, states, slot, state_bytes, stride, taps - 1 - j, t, taps, row_bytes)
            if source != 0:
                factor = load_tile(like, weight + j * row_bytes + at, _VECTOR, 0)
                sum = fma(load_tile(like, source + at, _VECTOR, 0), factor, sum)
        if silu:
            sum = sum / (one + exp(zero - sum))
        store_tile(sum, out + (start + t) * stride + at, _VECTOR, 0)
        save = get_i64(saves + 8 * (start + t))
        if save >= 0:
            for j in range(taps - 1):
                source, value = _tap(row, states, slot, state_bytes, stride, taps - 2 - j, t, taps, row_bytes), zero
                if source != 0:
                    value = load_tile(like, source + at, _VECTOR, 0)
                store_tile(value, states + save * state_bytes + j * row_bytes + at, _VECTOR, 0)


@kernel
def convolve(work, thread, threads, count, spans, saves, x, out, stride, vectors, weight, taps, silu, states,
             state_bytes):
    """out = sum over j of weight[j] * x[token - taps + 1 + j], for each channel, or SiLU of that.

    weight: float32 [taps][channels]. A state is the inputs before, float32 [taps - 1][channels], the oldest first.
    """
    row_bytes = vectors * _VECTOR
    pieces = (vectors + _PIECE - 1) // _PIECE
    total = get_i64(count) * pieces
    item = atomic_add(work, 1)
    while item < total:
        span, i = spans + 24 * (item // pieces), item % pieces * _PIECE
        end = min(i + _PIECE, vectors)
        while i + _COLUMNS <= end:
            _convolve_some(zeros(_COLUMNS, 1), _VECTOR * i, span, saves, x, out, stride, weight, taps, silu,
                           states, state_bytes, row_bytes)
            i += _COLUMNS
        while i < end:
            _convolve_some(zeros(1, 1), _VECTOR * i, span, saves, x, out, stride, weight, taps, silu, states,
                           state_bytes, row_bytes)
            i += 1
        item = atomic_add(work, 1)


@row_kernel
def unit_heads(work, thread, threads, count, x, stride, heads, head_dim, epsilon, factor):
    """x *= factor / sqrt(sum(x ** 2) + epsilon), for each head of a row; head_dim: whole vectors."""
    for token in range(thread, get_i64(count), threads):
        for head in range(heads):
            at = x + token * stride + 4 * head_dim * head
            squares = splat_f32(float32(0.0))
            for i in range(0, 4 * head_dim, _VECTOR):
                squares = fma(load_f32(at + i), load_f32(at + i), squares)
            scale = bits_to_float(factor) / float32(sqrt(reduce_add(squares) + bits_to_float(epsilon)))
            for i in range(0, 4 * head_dim, _VECTOR):
                store_f32(at + i, load_f32(at + i) * splat_f32(scale))


@device
def _softplus(x):
    """log(1 + e ** x) of a float32, as max(x, 0) + 2 artanh(u / (u + 2)), where u = e ** -|x|."""
    u = reduce_add(exp(splat_f32(-abs(x)))) / float32(LANES)
    s = u / (u + float32(2.0))
    square, sum = s * s, float32(0.0)
    for n in range(8, -1, -1):
        sum = sum * square + float32(1.0) / float32(2 * n + 1)
    return max(x, float32(0.0)) + float32(2.0) * s * sum


@row_kernel
def decays(work, thread, threads, count, alpha, beta, stride, a, dt, heads):
    """alpha = e ** (a * softplus(alpha + dt)), and beta = sigmoid(beta), for each head. a, dt: float32 [heads]."""
    for token in range(thread, get_i64(count), threads):
        for head in range(heads):
            at = token * stride + 4 * head
            power = get_f32(a + 4 * head) * _softplus(get_f32(alpha + at) + get_f32(dt + 4 * head))
            put_f32(alpha + at, reduce_add(exp(splat_f32(power))) / float32(LANES))
            other = reduce_add(exp(splat_f32(float32(0.0) - get_f32(beta + at)))) / float32(LANES)
            put_f32(beta + at, float32(1.0) / (float32(1.0) + other))


@device
def _copy(source, target, source_stride, target_stride, rows, vectors):
    """Rows of vectors; a source of 0 is zeros."""
    for row in range(rows):
        for i in range(0, vectors * _VECTOR, _VECTOR):
            value = splat_f32(float32(0.0))
            if source != 0:
                value = load_f32(source + row * source_stride + i)
            store_f32(target + row * target_stride + i, value)


@device
def _step(like, state, width, rows, query, key, value, out, decay, beta):
    """One token on as many columns of a state as `like` has vectors: float32 [rows][width bytes]; rows: even.

    Sums are of even and of odd rows, so that more additions of each column are under way at once.
    """
    keep, write = splat_f32(decay), splat_f32(beta)
    even = odd = zeros_f32(like)
    for row in range(0, rows, 2):
        at, of = state + row * width, key + 4 * row
        even = fma(load_tile(like, at, _VECTOR, 0), splat_f32(get_f32(of)), even)
        odd = fma(load_tile(like, at + width, _VECTOR, 0), splat_f32(get_f32(of + 4)), odd)
    delta = (load_tile(like, value, _VECTOR, 0) - (even + odd) * keep) * write
    even = odd = zeros_f32(like)
    for row in range(0, rows, 2):
        at, of, by = state + row * width, key + 4 * row, query + 4 * row
        one = fma(splat_f32(get_f32(of)), delta, load_tile(like, at, _VECTOR, 0) * keep)
        other = fma(splat_f32(get_f32(of + 4)), delta, load_tile(like, at + width, _VECTOR, 0) * keep)
        store_tile(one, at, _VECTOR, 0)
        store_tile(other, at + width, _VECTOR, 0)
        even = fma(one, splat_f32(get_f32(by)), even)
        odd = fma(other, splat_f32(get_f32(by + 4)), odd)
    store_tile(even + odd, out, _VECTOR, 0)


@device
def _step_of_all(state, vectors, rows, query, key, value, out, decay, beta):
    """One token on so many columns: all that are usual at once, others one by one."""
    width = vectors * _VECTOR
    if vectors == _COLUMNS:
        _step(zeros(_COLUMNS, 1), state, width, rows, query, key, value, out, decay, beta)
    else:
        for i in range(0, width, _VECTOR):
            _step(zeros(1, 1), state + i, width, rows, query, key, value + i, out + i, decay, beta)


@kernel
def delta_net(work, thread, threads, count, spans, saves, qkv, qkv_stride, decay, beta, gate_stride, out, out_stride,
              key_heads, value_heads, head_dim, states, state_bytes, scratch, scratch_bytes):
    """The gated delta rule (Yang et al., arXiv:2412.06464), token after token:

    S *= decay; S += key (beta * (value - S^T key))^T; out = S^T query. A row of qkv is queries, keys and values, and
    value head h has key head h % key_heads. A state is float32 [value heads][head_dim][head_dim], keys by values.
    """
    vectors, row_bytes = head_dim // LANES, 4 * head_dim
    blocks = (vectors + _COLUMNS - 1) // _COLUMNS
    total = get_i64(count) * value_heads * blocks
    item = atomic_add(work, 1)
    state = scratch + thread * scratch_bytes
    while item < total:
        span = spans + 24 * (item // (value_heads * blocks))
        head, block = item // blocks % value_heads, item % blocks
        start, tokens, slot = get_i64(span), get_i64(span + 8), get_i64(span + 16)
        size = min(_COLUMNS, vectors - block * _COLUMNS)
        width, column = size * _VECTOR, block * _COLUMNS * _VECTOR
        place = states + head * head_dim * row_bytes + column
        _copy(place + slot * state_bytes if slot >= 0 else 0, state, row_bytes, width, head_dim, size)
        for token in range(start, start + tokens):
            query = qkv + token * qkv_stride + head % key_heads * row_bytes
            key = query + key_heads * row_bytes
            value = qkv + token * qkv_stride + (2 * key_heads + head) * row_bytes + column
            gates = token * gate_stride + 4 * head
            _step_of_all(state, size, head_dim, query, key, value, out + token * out_stride + head * row_bytes + column,
                         get_f32(decay + gates), get_f32(beta + gates))
            save = get_i64(saves + 8 * token)
            if save >= 0:
                _copy(state, place + save * state_bytes, width, row_bytes, head_dim, size)
        item = atomic_add(work, 1)


def delta_scratch_bytes(head_dim: int) -> int:
    """Of each thread."""
    return 4 * head_dim * _COLUMNS * LANES


@row_kernel
def multiply_by_sigmoid(work, thread, threads, count, x, stride, gate, gate_stride, heads, head_dim, gate_step):
    """x *= 1 / (1 + e ** -gate), for each head; those of gate are gate_step bytes apart; head_dim: whole vectors."""
    one, zero = splat_f32(float32(1.0)), splat_f32(float32(0.0))
    for token in range(thread, get_i64(count), threads):
        for head in range(heads):
            for i in range(0, 4 * head_dim, _VECTOR):
                at = x + token * stride + 4 * head_dim * head + i
                factor = load_f32(gate + token * gate_stride + gate_step * head + i)
                store_f32(at, load_f32(at) / (one + exp(zero - factor)))


@row_kernel
def take_heads(work, thread, threads, count, x, stride, out, out_stride, heads, head_dim, step):
    """out = the first head_dim values of each head of x, which are `step` bytes apart; head_dim: whole vectors."""
    for token in range(thread, get_i64(count), threads):
        for head in range(heads):
            for i in range(0, 4 * head_dim, _VECTOR):
                value = load_f32(x + token * stride + step * head + i)
                store_f32(out + token * out_stride + 4 * head_dim * head + i, value)
