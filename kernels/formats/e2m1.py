"""What formats of E2M1 share: 4-bit floats of the OCP Microscaling specification, a sign and 0, .5, 1, 1.5, 2, 3, 4, 6.

LEVELS are these numbers doubled, to be whole. They are multiplied with OFFSET added, to be unsigned.
"""

from numba import float32

from ..activations import Int8Blocks
from ..fitting import CANDIDATES
from ..jit import bind, device, hole, inlined, template
from ..simd import BY_RUNS, LANES, add_partial_sums, at_argmax, bits, dot4, dot_run, fma, get_f32, get_u8, load_tile
from ..simd import panel_bytes, panel_vectors, partial_sums, put_f32, splat_f32, table_lookup, zeros
from .levels import level_writer, nearest_level, run_of_levels

LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # ggml's kvalues_mxfp4
OFFSET = 12
VECTOR = 4 * LANES
TABLE = 8 * CANDIDATES
_VECTORS = CANDIDATES // LANES

_lookup = table_lookup([level + OFFSET for level in LEVELS])
_run = run_of_levels("e2m1", _lookup, dot_run)
_nearest, _nearest_number = nearest_level(LEVELS)
put_levels = level_writer("e2m1", _nearest_number)


def activation(group: int) -> Int8Blocks:
    """What a matmul takes, with a bias for each `group` of values."""
    return Int8Blocks(offset=OFFSET, group=group)


@inlined
def _dot_pair(total, panel, panel_stride, x, x_stride, half):
    """total + the products of two vectors: low nibbles with values from x on, high ones with those from x + half."""
    partial = partial_sums(total)
    for i in range(2):
        packed = panel_bytes(total, panel + VECTOR * i, panel_stride)
        partial = dot4(partial, _lookup(bits(packed, 0, 15)), x + 4 * i, x_stride)
        partial = dot4(partial, _lookup(bits(packed, 4, 15)), x + half + 4 * i, x_stride)
    return add_partial_sums(total, partial)


@inlined
def dot_16(total, panel, panel_stride, x, x_stride):
    """total + the products of 16 values: vectors of values 0 .. 3 and 4 .. 7, those 8 values later in high nibbles."""
    if not BY_RUNS:
        return _dot_pair(total, panel, panel_stride, x, x_stride, 8)
    a, b = panel_vectors(total, panel, panel_stride, 2)
    partial = dot_run(partial_sums(total), (_lookup(bits(a, 0, 15)), _lookup(bits(b, 0, 15)), _lookup(bits(a, 4, 15)),
                                            _lookup(bits(b, 4, 15))), x, x_stride)
    return add_partial_sums(total, partial)


@inlined
def dot_32(total, panel, panel_stride, x, x_stride):
    """total + the products of 32 values, as they lie in `nibbles`."""
    if not BY_RUNS:
        total = _dot_pair(total, panel, panel_stride, x, x_stride, 16)
        return _dot_pair(total, panel + 2 * VECTOR, panel_stride, x + 8, x_stride, 16)
    return add_partial_sums(total, _run(partial_sums(total), panel, panel_stride, x, x_stride))


@device
def put_values(nibbles, scale, out, half):
    """2 * half values of `half` bytes: byte i holds values i and i + half."""
    for i in range(half):
        byte = get_u8(nibbles + i)
        put_f32(out + 4 * i, scale * float32(LEVELS[byte & 15]))
        put_f32(out + 4 * (half + i), scale * float32(LEVELS[byte >> 4]))


weight_of = hole()


@template
def _best_code(x, weights, values, table):
    """Of CANDIDATES scales, the code of that with the smallest error of scale * level. All are float32.

    table: the address of the scales, and behind them their codes. It takes TABLE bytes.
    """
    like = errors = zeros(1, _VECTORS)
    scales = load_tile(like, table, 0, VECTOR)
    for i in range(values):
        value = splat_f32(get_f32(x + 4 * i))
        difference = value - _nearest(value / scales) * scales
        errors = fma(difference * splat_f32(weight_of(weights, i)), difference, errors)
    return at_argmax(like - errors, load_tile(like, table + 4 * CANDIDATES, 0, VECTOR))


@device
def _one(weights, i):
    return float32(1.0)


@device
def _given(weights, i):
    return get_f32(weights + 4 * i)


best_code = device(bind(_best_code, "best_code", weight_of=_one))
best_weighted_code = device(bind(_best_code, "best_weighted_code", weight_of=_given))
