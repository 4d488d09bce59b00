"""Rotary position embedding (Su et al., "RoFormer", arXiv:2104.09864)."""

from .jit import device, kernel
from .simd import atomic_add, get_f32, get_i64, put_f32


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
    """Rotate `heads` heads of each row in place.

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
