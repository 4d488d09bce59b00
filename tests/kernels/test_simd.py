"""Operations on vectors whose corner cases kernels rely on."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lcpu.kernels import simd
from lcpu.kernels.jit import bind, device, hole, kernel, template
from lcpu.kernels.simd import LANES, load_f32, put_f32, store_f32, store_i8

from .running import as_in_memory, operation_kernel, run

NAN, INF = np.nan, np.inf
SPECIAL = np.array([0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e-40, -3.25, 8388607.5, 1e30, -INF, INF, NAN], np.float32)
JUST_BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))

operation = tokens = hole()


@template
def _unary(work, thread, threads, x, out, count):
    for i in range(0, 4 * count, 4 * LANES):
        store_f32(out + i, operation(load_f32(x + i)))


@template
def _binary(work, thread, threads, x, y, out, count):
    for i in range(0, 4 * count, 4 * LANES):
        store_f32(out + i, operation(load_f32(x + i), load_f32(y + i)))


@template
def _reduction(work, thread, threads, x, out):
    put_f32(out, operation(load_f32(x)))


@template
def _tile_reduction(work, thread, threads, x, out):
    put_f32(out, operation(simd.load_tile(simd.zeros(2, 3), x, 12 * LANES, 4 * LANES)))


@template
def _dots(work, thread, threads, weights, x, x_stride, out):
    total = simd.zeros_i32(simd.to_matrix(simd.zeros_of_pairs(1, tokens)))
    codes = simd.panel_vectors(total, weights, 0, 4)
    total = simd.add_partial_sums(total, simd.dot_run(simd.partial_sums(total), codes, x, x_stride))
    simd.store_tile(simd.to_rows(simd.to_f32(total)), out, 0, 4 * LANES)


def _shift_right(work, thread, threads, x, out):
    store_i8(out, simd.to_i32(load_f32(x)) >> simd.splat_i32(np.int32(7)))


def _at_argmax(work, thread, threads, scores, x, out):
    put_f32(out, simd.at_argmax(load_f32(scores), load_f32(x)))


def _append_within(work, thread, threads, x, low, high, out, count):
    low, high = simd.bits_to_float(low), simd.bits_to_float(high)
    simd.put_i64(count, simd.append_within(out, load_f32(x), low, high))


def _where_greater(work, thread, threads, x, y, out):
    one, other = simd.splat_f32(np.float32(1)), simd.square_root(load_f32(y))
    store_f32(out, simd.where_greater(load_f32(x), load_f32(y), one, other))


_bytes_of_table = simd.table_address(lambda: bytes(range(200)))


def _copy_table(work, thread, threads, out):
    simd.put_i64(out, _bytes_of_table() % 64)
    for i in range(200):
        simd.put_u8(out + 8 + i, simd.get_u8(_bytes_of_table() + i))


LEVELS = [-128, -3, 0, 1, 5, 9, 17, 33, 65, 127, 128, 200, 255, -1, 77, 12]
STEPS = ([-1.5, 0.0, 2.0], [10.0, 20.0, -5.0, 0.25])  # thresholds, values
_lookup, _steps = simd.table_lookup(LEVELS), simd.steps(*STEPS)


def _table_lookup(work, thread, threads, x, one, out):
    numbers = simd.panel_bytes(simd.zeros(1, 1), x, 0)
    total = simd.dot4(simd.partial_sums(simd.zeros_i32(simd.zeros(1, 1))), _lookup(numbers), one, 0)
    simd.store_tile(simd.add_partial_sums(simd.zeros_i32(simd.zeros(1, 1)), total), out, 0, 0)


def _bytes_of_lanes(work, thread, threads, x, pair, four, out):
    like, row = simd.zeros(1, 1), 4 * LANES
    numbers = simd.panel_bytes(like, x, 0)
    pairs = (simd.twice_of_lane(numbers, 0), simd.twice_of_lane(numbers, 3), simd.even_bytes(numbers),
             simd.odd_bytes(numbers), simd.subtracted_from(31, simd.even_bytes(numbers)), simd.splat_i16(-7))
    for i in range(6):
        store_f32(out + row * i, simd.to_f32(simd.dot2_i16(simd.zeros_i32(like), pairs[i], pair, 0)))
    total = simd.zeros_i32(like)
    sums = simd.dot4(simd.partial_sums(total), simd.byte_of_lane(numbers, 1), four, 0)
    store_f32(out + row * 6, simd.to_f32(simd.add_partial_sums(total, sums)))


def _two_allocas(work, thread, threads, out):
    one, two = simd.alloca(256), simd.alloca(256)
    for i in range(64):
        put_f32(one + 4 * i, np.float32(i))
        put_f32(two + 4 * i, np.float32(-i))
    for i in range(64):
        put_f32(out + 8 * i, simd.get_f32(one + 4 * i))
        put_f32(out + 8 * i + 4, simd.get_f32(two + 4 * i))


def _divide(x, y):
    return x / y


UNARY = {"absolute": (simd.absolute, np.abs), "rint": (simd.rint, np.rint),
         "round_half_away": (simd.round_half_away, lambda x: np.copysign(np.floor(np.abs(x.astype(float)) + 0.5), x))}
BINARY = {"maximum": (simd.maximum, np.maximum), "minimum": (simd.minimum, np.minimum),
          "divide": (device(_divide), np.divide)}
UNARY_KERNELS = {name: operation_kernel(_unary, f"unary_{name}", pair[0]) for name, pair in UNARY.items()}
BINARY_KERNELS = {name: operation_kernel(_binary, f"binary_{name}", pair[0]) for name, pair in BINARY.items()}
REDUCTIONS = {"add": operation_kernel(_reduction, "reduction_add", simd.reduce_add),
              "max": operation_kernel(_reduction, "reduction_max", simd.reduce_max)}
TILE_REDUCTIONS = {"add": operation_kernel(_tile_reduction, "tile_reduction_add", simd.reduce_add),
                   "max": operation_kernel(_tile_reduction, "tile_reduction_max", simd.reduce_max)}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    x = np.resize(np.append(SPECIAL, JUST_BELOW_HALF), 4 * 16)
    out = np.zeros_like(x)
    run(UNARY_KERNELS[name], x=x, out=out, count=len(x))
    np.testing.assert_array_equal(out, UNARY[name][1](x))


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    pairs = np.array([pair for pair in product(SPECIAL, SPECIAL) if not np.isnan(pair[1])], np.float32)
    x, y = (np.resize(column, 16 * 13) for column in pairs.T)
    out = np.zeros_like(x)
    run(BINARY_KERNELS[name], x=x, y=y, out=out, count=len(x))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out, BINARY[name][1](x, y))  # where x is NaN, so is the result


def test_reductions_take_every_lane():
    for lane in range(LANES):
        x, out = np.full(LANES, -2, np.float32), np.zeros(1, np.float32)
        x[lane] = 3
        run(REDUCTIONS["max"], x=x, out=out)
        assert out[0] == 3
        run(REDUCTIONS["add"], x=x, out=out)
        assert out[0] == 3 - 2 * (LANES - 1)
    run(REDUCTIONS["add"], x=np.full(LANES, NAN, np.float32), out=out)
    assert np.isnan(out[0])


def test_reductions_of_tiles_take_all_vectors():
    out = np.zeros(1, np.float32)
    for where in range(6 * LANES):
        x = np.full(6 * LANES, -2, np.float32)
        x[where] = 3
        run(TILE_REDUCTIONS["max"], x=x, out=out)
        assert out[0] == 3
        run(TILE_REDUCTIONS["add"], x=x, out=out)
        assert out[0] == 3 - 2 * (6 * LANES - 1)


@pytest.mark.parametrize("count", [8, 2, 1])
def test_products_of_weights_and_tokens(count):
    """By matrices, on paths that have those, or by dot products."""
    random = np.random.default_rng(count)
    weights, x = random.integers(0, 16, (4, LANES, 4), np.uint8), random.integers(-127, 128, (8, 16)).astype(np.int8)
    out, memory = np.zeros((count, LANES), np.float32), as_in_memory(x)
    run(kernel(bind(_dots, f"dots_{count}", tokens=count)), weights=weights, x=memory, x_stride=x.strides[0], out=out)
    assert (out == x[:count].astype(int) @ weights.swapaxes(0, 1).reshape(LANES, 16).T.astype(int)).all()


def test_shifting_right_keeps_the_sign():
    x = np.resize(np.array([-16319, -1, -127, -128, 0, 127, 128, 16319], np.float32), LANES)
    out = np.zeros(LANES, np.int8)
    run(kernel(_shift_right), x=x, out=out)
    np.testing.assert_array_equal(out, x.astype(np.int32) >> 7)


def test_at_argmax_takes_the_lane_of_the_highest_score():
    at_argmax = kernel(_at_argmax)
    random = np.random.default_rng(1)
    for lane in range(LANES):
        scores, x, out = random.random(LANES, np.float32), random.random(LANES, np.float32), np.zeros(1, np.float32)
        scores[lane] = 2
        run(at_argmax, scores=scores, x=x, out=out)
        assert out[0] == x[lane]


def test_lanes_within_bounds_are_appended_in_order():
    append, random = kernel(_append_within), np.random.default_rng(2)
    for low, high in ((-0.5, 0.5), (0.9, 0.8), (-9.0, 9.0), (0.0, INF)):
        x, out, count = random.standard_normal(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(1, np.int64)
        x[LANES // 2] = NAN
        x[0] = low
        run(append, x=x, low=low, high=high, out=out, count=count)
        wanted = x[(x >= np.float32(low)) & (x <= np.float32(high))]
        assert count[0] == len(wanted)
        assert (out[: len(wanted)] == wanted).all()


def test_where_greater():
    x, y = (np.random.default_rng(seed).random(LANES, np.float32) for seed in (3, 4))
    x[0], x[1] = NAN, y[1]
    out = np.zeros(LANES, np.float32)
    run(kernel(_where_greater), x=x, y=y, out=out)
    assert (out == np.where(x > y, np.float32(1), np.sqrt(y))).all()


def test_a_table_of_bytes():
    out = np.zeros(208, np.uint8)
    run(kernel(_copy_table), out=out)
    assert (out[:8] == 0).all()  # it is aligned
    assert (out[8:] == np.arange(200)).all()


def test_allocas_do_not_overlap():
    out = np.zeros((64, 2), np.float32)
    run(kernel(_two_allocas), out=out)
    assert (out == np.arange(64)[:, None] * [1, -1]).all()


def test_every_entry_of_a_table_is_found():
    """By dot products with 1 in one place and 0 in the others, which leave one byte of each lane."""
    lookup = kernel(_table_lookup)
    numbers = np.random.default_rng(2).integers(0, 16, (LANES, 4), dtype=np.uint8)
    for place in range(4):
        for turn in range(16):
            one, out = np.zeros(4, np.int8), np.zeros(LANES, np.int32)
            one[place] = 1
            x = (numbers + turn) % 16
            run(lookup, x=x, one=one, out=out)
            np.testing.assert_array_equal(out, np.array(LEVELS)[x[:, place]] % 256)


def test_bytes_of_lanes():
    numbers = np.random.default_rng(0).integers(0, 256, (LANES, 4), np.uint8)
    out = np.zeros((7, LANES), np.float32)
    run(kernel(_bytes_of_lanes), x=numbers, pair=np.array([1, 100], np.int16), four=np.array([1, 2, 3, -1], np.int8),
        out=out)
    a, b, c, d = numbers.T.astype(np.float32)
    wanted = [101 * a, 101 * d, a + 100 * c, b + 100 * d, 31 * 101 - a - 100 * c, np.full(LANES, -707), 5 * b]
    assert (out == wanted).all()


def test_steps():
    x = np.resize(np.array([-INF, -1.5, -1.4, -0.0, 0.0, 1e-40, 2.0, 2.1, INF, NAN], np.float32), 5 * 16)
    out = np.zeros_like(x)
    run(operation_kernel(_unary, "unary_steps", _steps), x=x, out=out, count=len(x))
    thresholds, values = STEPS
    np.testing.assert_array_equal(out, np.array(values)[(x[:, None] > np.array(thresholds)).sum(axis=1)])
