"""Instructions over rows of float32: norms, activation functions, biases, gathering.

Rows are `stride` bytes apart and padded with zeros to whole vectors. Widths are in vectors unless said otherwise.
"""

from math import sqrt

from numba import float32

from .jit import bind, device, hole, inlined, kernel, row_kernel, template
from .math import exp, tanh
from .simd import LANES, atomic_add, bits_to_float, fma, get_f32, get_i64, load_f32, maximum, minimum, put_f32
from .simd import reduce_add, splat_f32, store_f32

_VECTOR = 4 * LANES
_CLAMP = float32(7.0)
_PIECE = 32  # vectors that a thread takes at a time

activation = beside = hole()


@device
def _inverse_norm(x, vectors, width, epsilon):
    """1 / sqrt(mean(x ** 2) + epsilon) of a row with `width` values."""
    squares = splat_f32(float32(0.0))
    for i in range(vectors):
        value = load_f32(x + _VECTOR * i)
        squares = fma(value, value, squares)
    return float32(1.0) / float32(sqrt(reduce_add(squares) / float32(width) + epsilon))


@row_kernel
def rms_norm(work, thread, threads, count, x, weight, out, stride, vectors, width, epsilon):
    """out = x / sqrt(mean(x ** 2) + epsilon) * weight, for each row. width: values of a row, without padding."""
    for token in range(thread, get_i64(count), threads):
        source, target = x + token * stride, out + token * stride
        scale = splat_f32(_inverse_norm(source, vectors, width, bits_to_float(epsilon)))
        for i in range(vectors):
            store_f32(target + _VECTOR * i,
                      load_f32(source + _VECTOR * i) * scale * load_f32(weight + _VECTOR * i))


@row_kernel
def add_rms_norm(work, thread, threads, count, x, y, weight, stride, vectors, width, epsilon):
    """x += y / sqrt(mean(y ** 2) + epsilon) * weight, for each row. width: values of a row, without padding."""
    for token in range(thread, get_i64(count), threads):
        source, target = y + token * stride, x + token * stride
        scale = splat_f32(_inverse_norm(source, vectors, width, bits_to_float(epsilon)))
        for i in range(vectors):
            at = target + _VECTOR * i
            store_f32(at, load_f32(at) + load_f32(source + _VECTOR * i) * scale * load_f32(weight + _VECTOR * i))


@inlined
def _silu(x):
    """x / (1 + e ** -x)"""
    one = splat_f32(float32(1.0))
    return x / (one + exp(splat_f32(float32(0.0)) - x))


@inlined
def _relu_squared(x):
    """max(x, 0) ** 2"""
    positive = maximum(x, splat_f32(float32(0.0)))
    return positive * positive


@inlined
def _gelu(x):
    """By the approximation with tanh (Hendrycks, Gimpel, arXiv:1606.08415)."""
    inner = splat_f32(float32(0.7978845608028654)) * fma(x * x * x, splat_f32(float32(0.044715)), x)
    return splat_f32(float32(0.5)) * x * (splat_f32(float32(1.0)) + tanh(inner))


@inlined
def _gelu_erf(x):
    """x / 2 * (1 + erf(x / sqrt 2)), within 1e-7 |x|: Abramowitz, Stegun, "Handbook", 7.1.26."""
    size = maximum(x, splat_f32(float32(0.0)) - x)
    one = splat_f32(float32(1.0))
    t = one / fma(size, splat_f32(float32(0.23164189)), one)  # 0.3275911 / sqrt 2
    p = fma(t, splat_f32(float32(1.061405429)), splat_f32(float32(-1.453152027)))
    p = fma(t, p, splat_f32(float32(1.421413741)))
    p = fma(t, p, splat_f32(float32(-0.284496736)))
    p = fma(t, p, splat_f32(float32(0.254829592)))
    tail = t * p * exp(x * x * splat_f32(float32(-0.5)))
    return maximum(x, splat_f32(float32(0.0))) - splat_f32(float32(0.5)) * size * tail


@inlined
def _same(x):
    return x


@inlined
def _clamped_swish(x):
    """y / (1 + e ** -1.702 y), where y is x or at most 7 (gpt-oss)."""
    one, y = splat_f32(float32(1.0)), minimum(x, splat_f32(_CLAMP))
    return y / (one + exp(splat_f32(float32(-1.702)) * y))


@inlined
def _clamped_plus_one(x):
    return maximum(minimum(x, splat_f32(_CLAMP)), splat_f32(-_CLAMP)) + splat_f32(float32(1.0))


@template
def _gated(work, thread, threads, count, gate, up, up_stride, out, stride, vectors):
    """out = activation(gate) * beside(up). up_stride: bytes between rows of `up`."""
    pieces = (vectors + _PIECE - 1) // _PIECE
    total = get_i64(count) * pieces
    item = atomic_add(work, 1)
    while item < total:
        row, first = item // pieces, item % pieces * _PIECE
        for i in range(first, min(first + _PIECE, vectors)):
            at = row * stride + _VECTOR * i
            store_f32(out + at, activation(load_f32(gate + at)) * beside(load_f32(up + row * up_stride + _VECTOR * i)))
        item = atomic_add(work, 1)


@template
def _activate(work, thread, threads, count, x, stride, vectors):
    """x = activation(x), in place."""
    pieces = (vectors + _PIECE - 1) // _PIECE
    total = get_i64(count) * pieces
    item = atomic_add(work, 1)
    while item < total:
        row, first = x + item // pieces * stride, item % pieces * _PIECE
        for i in range(first, min(first + _PIECE, vectors)):
            store_f32(row + _VECTOR * i, activation(load_f32(row + _VECTOR * i)))
        item = atomic_add(work, 1)


ACTIVATIONS = {"silu": _silu, "relu_squared": _relu_squared, "gelu": _gelu, "gelu_erf": _gelu_erf}
ACTIVATES = {name: kernel(bind(_activate, name, activation=function)) for name, function in ACTIVATIONS.items()}
GATES = {name: kernel(bind(_gated, f"gate_{name}", activation=function, beside=other)) for name, function, other in (
    *((name, function, _same) for name, function in ACTIVATIONS.items()),
    ("none", _same, _same), ("clamped_swish", _clamped_swish, _clamped_plus_one))}


@kernel
def soft_cap(work, thread, threads, count, x, stride, vectors, cap):
    """x = cap * tanh(x / cap), in place."""
    limit = splat_f32(bits_to_float(cap))
    pieces = (vectors + _PIECE - 1) // _PIECE
    total = get_i64(count) * pieces
    item = atomic_add(work, 1)
    while item < total:
        row, first = item // pieces * stride, item % pieces * _PIECE
        for i in range(first, min(first + _PIECE, vectors)):
            at = x + row + _VECTOR * i
            store_f32(at, limit * tanh(load_f32(at) / limit))
        item = atomic_add(work, 1)


@row_kernel
def scale(work, thread, threads, count, x, stride, vectors, factor):
    """x *= factor"""
    times = splat_f32(bits_to_float(factor))
    for token in range(thread, get_i64(count), threads):
        for i in range(vectors):
            at = x + token * stride + _VECTOR * i
            store_f32(at, load_f32(at) * times)


@row_kernel
def scale_by_position(work, thread, threads, count, positions, factors, x, stride, vectors):
    """x *= factors[position], for each row. factors: float32 [context]."""
    for token in range(thread, get_i64(count), threads):
        times = splat_f32(get_f32(factors + 4 * get_i64(positions + 8 * token)))
        for i in range(vectors):
            at = x + token * stride + _VECTOR * i
            store_f32(at, load_f32(at) * times)


@row_kernel
def copy(work, thread, threads, count, x, out, stride, vectors):
    """out = x, for each row."""
    for token in range(thread, get_i64(count), threads):
        for i in range(vectors):
            at = token * stride + _VECTOR * i
            store_f32(out + at, load_f32(x + at))


@row_kernel
def add(work, thread, threads, count, x, y, stride, vectors, factor):
    """x += factor * y, for each row."""
    times = splat_f32(bits_to_float(factor))
    for token in range(thread, get_i64(count), threads):
        for i in range(vectors):
            at = token * stride + _VECTOR * i
            store_f32(x + at, fma(load_f32(y + at), times, load_f32(x + at)))


@row_kernel
def add_sigmoid_gated(work, thread, threads, count, x, y, stride, vectors, source, source_stride, weight,
                      source_vectors):
    """x += y / (1 + e ** -(weight . source)), for each row. weight: float32 [source_vectors], padded with zeros."""
    one, zero = splat_f32(float32(1.0)), splat_f32(float32(0.0))
    for token in range(thread, get_i64(count), threads):
        sum = zero
        for i in range(source_vectors):
            sum = fma(load_f32(source + token * source_stride + _VECTOR * i), load_f32(weight + _VECTOR * i), sum)
        share = one / (one + exp(zero - splat_f32(reduce_add(sum))))
        for i in range(vectors):
            at = token * stride + _VECTOR * i
            store_f32(x + at, fma(load_f32(y + at), share, load_f32(x + at)))


@device
def _norm_head(head, weight, head_dim, epsilon):
    vectors = head_dim // LANES
    squares, rest = splat_f32(float32(0.0)), float32(0.0)
    for i in range(vectors):
        value = load_f32(head + _VECTOR * i)
        squares = fma(value, value, squares)
    for i in range(vectors * LANES, head_dim):
        rest += get_f32(head + 4 * i) * get_f32(head + 4 * i)
    mean = (reduce_add(squares) + rest) / float32(head_dim)
    scale = float32(1.0) / float32(sqrt(mean + epsilon))
    for i in range(vectors):
        at = head + _VECTOR * i
        store_f32(at, load_f32(at) * splat_f32(scale) * load_f32(weight + _VECTOR * i))
    for i in range(vectors * LANES, head_dim):
        put_f32(head + 4 * i, get_f32(head + 4 * i) * scale * get_f32(weight + 4 * i))


@row_kernel
def rms_norm_heads(work, thread, threads, count, x, weight, stride, heads, head_dim, epsilon):
    """rms_norm of each of the `heads` heads of a row, in place. All heads have the same weight [head_dim]."""
    for token in range(thread, get_i64(count), threads):
        for head in range(heads):
            _norm_head(x + token * stride + 4 * head_dim * head, weight, head_dim, bits_to_float(epsilon))


@row_kernel
def add_bias(work, thread, threads, count, x, bias, stride, vectors):
    """x += bias, for each row."""
    for token in range(thread, get_i64(count), threads):
        for i in range(vectors):
            at = x + token * stride + _VECTOR * i
            store_f32(at, load_f32(at) + load_f32(bias + _VECTOR * i))


@kernel
def gather(work, thread, threads, count, indices, x, out, stride, vectors):
    """out[i] = x[indices[i]]."""
    wanted = get_i64(count)
    item = atomic_add(work, 1)
    while item < wanted:
        source = x + get_i64(indices + 8 * item) * stride
        for i in range(vectors):
            store_f32(out + item * stride + _VECTOR * i, load_f32(source + _VECTOR * i))
        item = atomic_add(work, 1)
