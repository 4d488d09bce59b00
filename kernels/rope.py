"""Rotary position embedding (Su et al., "RoFormer", arXiv:2104.09864)."""

from .jit import device, row_kernel
from .simd import LANES, alternate, even_twice, evens, get_f32, get_i64, load_f32, odd_twice, odds, put_f32
from .simd import store_f32, swap_neighbours

_VECTOR = 4 * LANES


@device
def _rotate_neighbours(head, table, pairs):
    """Rotate values 2i and 2i + 1. Returns how many pairs that were: vectors have no room for the last ones."""
    last = pairs // (LANES // 2) * (LANES // 2)
    for i in range(0, 8 * last, _VECTOR):
        angles, x = load_f32(table + i), load_f32(head + i)
        turned, crossed = x * even_twice(angles), swap_neighbours(x) * odd_twice(angles)
        store_f32(head + i, alternate(turned - crossed, turned + crossed))
    return last


@device
def _rotate_halves(head, table, pairs, distance):
    """Rotate values i and i + distance, likewise."""
    last = pairs // LANES * LANES
    for i in range(0, 4 * last, _VECTOR):
        first, second = load_f32(table + 2 * i), load_f32(table + 2 * i + _VECTOR)
        cos, sin = evens(first, second), odds(first, second)
        a, b = load_f32(head + i), load_f32(head + i + 4 * distance)
        store_f32(head + i, a * cos - b * sin)
        store_f32(head + i + 4 * distance, a * sin + b * cos)
    return last


@device
def _rotate(head, table, pairs, step, distance):
    """Rotate pair i, at elements i * step and i * step + distance, by the angle whose (cos, sin) is table[i]."""
    done = _rotate_neighbours(head, table, pairs) if step == 2 else _rotate_halves(head, table, pairs, distance)
    for i in range(done, pairs):
        cos, sin = get_f32(table + 8 * i), get_f32(table + 8 * i + 4)
        at = head + 4 * i * step
        a, b = get_f32(at), get_f32(at + 4 * distance)
        put_f32(at, a * cos - b * sin)
        put_f32(at + 4 * distance, a * sin + b * cos)


@row_kernel
def rope(work, thread, threads, count, positions, x, x_stride, heads, head_dim, table, pairs, step, distance):
    """Rotate `heads` heads of each row in place.

    table: float32 [context][pairs][2], cos and sin. Pairs are neighbours (step 2, distance 1) or halves (step 1,
    distance pairs).
    """
    for token in range(thread, get_i64(count), threads):
        angles = table + 8 * pairs * get_i64(positions + 8 * token)
        for head in range(heads):
            _rotate(x + token * x_stride + 4 * head_dim * head, angles, pairs, step, distance)
