"""Convert tensors from one block format to another, on all threads. Each thread converts a piece in its own scratch.

A format's `encode` and `decode` are called by address, so that no pair of formats needs a kernel of its own.
"""

from numba import float32

from .fitting import weigh_large
from .jit import device, kernel
from .simd import LANES, alloca, atomic_add, bits_to_float, call_kernel, fma, get_f32, load_f32, maximum, minimum
from .simd import put_f32, put_i64, reduce_add, rint, splat_f32, store_f32

PIECE = 8192  # values: whole blocks of every format, and small enough for the caches
SCRATCH_BYTES = 2 * 4 * PIECE  # for each thread


@device
def _load(blocks, decode, values, block, scale, x):
    """x = the values of blocks as float32, times the scale of their tensor, padded with zeros to a whole vector."""
    call_kernel(decode, 0, 0, blocks, x, values // block)
    for i in range(values, -(-values // LANES) * LANES):
        put_f32(x + 4 * i, float32(0.0))
    if scale != 1:
        for i in range(0, values, LANES):
            store_f32(x + 4 * i, load_f32(x + 4 * i) * splat_f32(scale))


@device
def _all_within(x, values, limit):
    """Whether every magnitude is below about `limit`, and none is a NaN."""
    stretch = splat_f32(float32(3.4028235e38) / limit)  # larger values become infinite, and infinity * 0 is NaN
    nan_or_zero = zero = splat_f32(float32(0.0))
    for i in range(0, values, LANES):
        nan_or_zero = fma(load_f32(x + 4 * i) * stretch, zero, nan_or_zero)
    return reduce_add(nan_or_zero) == 0


@device
def _ternarize(x, values, unit):
    """x = unit * (-1, 0 or 1), whichever is nearest."""
    one = splat_f32(float32(1.0))
    for i in range(0, values, LANES):
        code = rint(load_f32(x + 4 * i) / splat_f32(unit))
        code = minimum(one, maximum(splat_f32(float32(-1.0)), code))
        store_f32(x + 4 * i, code * splat_f32(unit))


@kernel
def convert(work, thread, threads, values, source, source_bytes, source_block, source_scale, decode,
            target, target_bytes, target_block, encode, unit, limit, scratch, refused):
    """Convert `values` values from source blocks to target blocks. source_bytes, target_bytes: of a piece.

    unit: if it is not 0, values are first rounded to -unit, 0 or unit. limit: `refused` counts the pieces with a larger
    magnitude, an infinity or a NaN.
    """
    x = scratch + thread * SCRATCH_BYTES
    piece = atomic_add(work, 1)
    while piece * PIECE < values:
        count = min(PIECE, values - piece * PIECE)
        _load(source + piece * source_bytes, decode, count, source_block, bits_to_float(source_scale), x)
        if not _all_within(x, count, bits_to_float(limit)):
            atomic_add(refused, 1)
        elif bits_to_float(unit) != 0:
            _ternarize(x, count, bits_to_float(unit))
        call_kernel(encode, 0, 0, x, target + piece * target_bytes, count // target_block)
        piece = atomic_add(work, 1)


@device
def weigh(x, importance, values, block, weights):
    """weights = importance * what `fitting.weigh_large` gives the values of each block. values: whole blocks."""
    for start in range(0, 4 * values, 4 * block):
        weigh_large(x + start, block, weights + start)
    for i in range(0, 4 * values, 4 * LANES):
        store_f32(weights + i, load_f32(weights + i) * load_f32(importance + i))


@device
def _encode_rows(x, values, column, columns, importance, encode, target, block, block_bytes):
    """Encode values from a column of a row on, with the importance of the columns, which starts anew with each row.

    x: with room for the weights of a piece behind it.
    """
    operands, at, weights = alloca(8), 0, x + 4 * PIECE
    while at < values:
        count = min(values - at, columns - column)
        put_i64(operands, count // block)
        weigh(x + 4 * at, importance + 4 * column, count, block, weights)
        call_kernel(encode, operands, 1, x + 4 * at, weights, target + at // block * block_bytes)
        at += count
        column = 0


@kernel
def convert_weighted(work, thread, threads, values, source, source_bytes, source_block, source_scale, decode,
                     target, target_bytes, target_block, encode, importance, first, columns, limit, scratch, refused):
    """The same as `convert` without a unit, but `encode` is that of formats with weights, which `weigh` makes.

    importance: a float32 for each of the `columns` values of a row. first: where in a matrix of such rows the
    values begin.
    """
    x = scratch + thread * SCRATCH_BYTES
    piece = atomic_add(work, 1)
    while piece * PIECE < values:
        count = min(PIECE, values - piece * PIECE)
        _load(source + piece * source_bytes, decode, count, source_block, bits_to_float(source_scale), x)
        if not _all_within(x, count, bits_to_float(limit)):
            atomic_add(refused, 1)
        else:
            _encode_rows(x, count, (first + piece * PIECE) % columns, columns, importance, encode,
                         target + piece * target_bytes, target_block, target_bytes * target_block // PIECE)
        piece = atomic_add(work, 1)


@kernel
def survey(work, thread, threads, values, source, source_bytes, source_block, source_scale, decode, zero, scratch,
           highest, lowest, sums):
    """For each piece: the highest magnitude, the lowest one that is not below `zero`, and the sum of magnitudes.

    The sum is stored as two float32 that add up to it, to be nearly as exact as a float64.
    """
    x = scratch + thread * SCRATCH_BYTES
    piece = atomic_add(work, 1)
    while piece * PIECE < values:
        count = min(PIECE, values - piece * PIECE)
        _load(source + piece * source_bytes, decode, count, source_block, bits_to_float(source_scale), x)
        high, low, total = float32(0.0), float32(3.4028235e38), 0.0
        for i in range(count):
            magnitude = abs(get_f32(x + 4 * i))
            high = max(high, magnitude)
            low = min(low, magnitude) if magnitude >= bits_to_float(zero) else low
            total += magnitude
        put_f32(highest + 4 * piece, high)
        put_f32(lowest + 4 * piece, low)
        put_f32(sums + 8 * piece, float32(total))
        put_f32(sums + 8 * piece + 4, float32(total - float32(total)))
        piece = atomic_add(work, 1)


@kernel
def compare(work, thread, threads, values, source, source_bytes, source_block, source_scale, decode,
            target, target_bytes, target_block, target_scale, decode_target, scratch, errors, squares):
    """For each piece: the sum of squared differences between source and target, and the sum of the source's squares."""
    x = scratch + thread * SCRATCH_BYTES
    y = x + 4 * PIECE
    piece = atomic_add(work, 1)
    while piece * PIECE < values:
        count = min(PIECE, values - piece * PIECE)
        _load(source + piece * source_bytes, decode, count, source_block, bits_to_float(source_scale), x)
        _load(target + piece * target_bytes, decode_target, count, target_block, bits_to_float(target_scale), y)
        error = square = splat_f32(float32(0.0))
        for i in range(0, count, LANES):
            value = load_f32(x + 4 * i)
            difference = value - load_f32(y + 4 * i)
            error = fma(difference, difference, error)
            square = fma(value, value, square)
        put_f32(errors + 4 * piece, reduce_add(error))
        put_f32(squares + 4 * piece, reduce_add(square))
        piece = atomic_add(work, 1)
