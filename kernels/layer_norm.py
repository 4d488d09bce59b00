"""Layer normalization (Ba, Kiros, Hinton, arXiv:1607.06450) of rows, or of each head of a row."""

from math import sqrt

from numba import float32

from .jit import device, row_kernel
from .simd import LANES, bits_to_float, fma, get_f32, get_i64, load_f32, put_f32, reduce_add, splat_f32, store_f32

_VECTOR = 4 * LANES


@device
def _mean(x, width):
    whole = width // LANES * LANES
    sums, rest = splat_f32(float32(0.0)), float32(0.0)
    for i in range(0, whole, LANES):
        sums = sums + load_f32(x + 4 * i)
    for i in range(whole, width):
        rest += get_f32(x + 4 * i)
    return (reduce_add(sums) + rest) / float32(width)


@device
def _inverse_deviation(x, mean, width, epsilon):
    """1 / sqrt(mean((x - mean) ** 2) + epsilon)"""
    whole = width // LANES * LANES
    squares, rest = splat_f32(float32(0.0)), float32(0.0)
    for i in range(0, whole, LANES):
        value = load_f32(x + 4 * i) - splat_f32(mean)
        squares = fma(value, value, squares)
    for i in range(whole, width):
        value = get_f32(x + 4 * i) - mean
        rest += value * value
    return float32(1.0) / float32(sqrt((reduce_add(squares) + rest) / float32(width) + epsilon))


@row_kernel
def layer_norm(work, thread, threads, count, x, weight, bias, out, stride, vectors, width, epsilon):
    """out = (x - mean) / deviation * weight + bias, for each row. width: values of a row, without padding."""
    for token in range(thread, get_i64(count), threads):
        source, target = x + token * stride, out + token * stride
        mean = _mean(source, width)
        scale = _inverse_deviation(source, mean, width, bits_to_float(epsilon))
        for i in range(0, _VECTOR * vectors, _VECTOR):
            value = (load_f32(source + i) - splat_f32(mean)) * splat_f32(scale)
            store_f32(target + i, fma(value, load_f32(weight + i), load_f32(bias + i)))


@row_kernel
def layer_norm_heads(work, thread, threads, count, x, weight, stride, heads, head_dim, epsilon):
    """The same of each of the `heads` heads of a row, in place, without a bias. weight: float32 [heads][head_dim]."""
    for token in range(thread, get_i64(count), threads):
        for head in range(heads):
            at, own = x + token * stride + 4 * head_dim * head, weight + 4 * head_dim * head
            mean = _mean(at, head_dim)
            scale = _inverse_deviation(at, mean, head_dim, bits_to_float(epsilon))
            whole = head_dim // LANES * LANES
            for i in range(0, 4 * whole, _VECTOR):
                store_f32(at + i, (load_f32(at + i) - splat_f32(mean)) * splat_f32(scale) * load_f32(own + i))
            for i in range(4 * whole, 4 * head_dim, 4):
                put_f32(at + i, (get_f32(at + i) - mean) * scale * get_f32(own + i))
