"""Sums of squares by column of what matrices are multiplied with: importance matrices are made of them.

Rows are added one after another, and a thread has columns of its own. So the sums do not depend on the number of
threads, nor on how rows are divided into batches. A sum is two float32, its value and what rounding took from it, so
that millions of rows lose nothing that matters (Kahan, "Further remarks on reducing truncation errors").
"""

from .jit import device, kernel
from .matmul import GROUP_BYTES, GROUPS
from .simd import LANES, atomic_add, fma, get_i64, load_f32, put_i64, store_f32

_VECTOR = 4 * LANES
_PIECE = 16  # vectors that a thread takes at a time


@device
def _add_row(x, sums, rest, vectors):
    """sums + rest += x * x"""
    for at in range(0, _VECTOR * vectors, _VECTOR):
        value, before = load_f32(x + at), load_f32(sums + at)
        term = fma(value, value, load_f32(rest + at))
        total = before + term
        store_f32(sums + at, total)
        store_f32(rest + at, term - (total - before))


@kernel
def add_squares(work, thread, threads, count, x, stride, vectors, sums, sums_bytes, counts):
    """Add the squares of `count` rows, `stride` bytes apart.

    sums: float32 [2][columns], values and rests, `sums_bytes` bytes each. counts: an int64, the rows so far.
    """
    tokens, pieces = get_i64(count), (vectors + _PIECE - 1) // _PIECE
    piece = atomic_add(work, 1)
    while piece < pieces:
        first = _PIECE * piece
        size, at = min(_PIECE, vectors - first), _VECTOR * first
        for token in range(tokens):
            _add_row(x + token * stride + at, sums + at, sums + sums_bytes + at, size)
        if piece == 0:
            put_i64(counts, get_i64(counts) + tokens)
        piece = atomic_add(work, 1)


@kernel
def add_expert_squares(work, thread, threads, groups, rows, x, stride, vectors, sums, sums_bytes, counts):
    """The same for each expert, with its rows alone. groups, rows: as in `kernels.experts.route`.

    x: of each row of a group, or, with `rows`, of each token; without, that is 0. sums: [experts][2][columns];
    counts: [experts].
    """
    pieces = (vectors + _PIECE - 1) // _PIECE
    total = get_i64(groups + 8) * pieces
    item = atomic_add(work, 1)
    while item < total:
        group, first = groups + GROUPS + GROUP_BYTES * (item // pieces), _PIECE * (item % pieces)
        size, at = min(_PIECE, vectors - first), _VECTOR * first
        expert, start, tokens = get_i64(group), get_i64(group + 8), get_i64(group + 16)
        own = sums + 2 * sums_bytes * expert + at
        for row in range(start, start + tokens):
            source = get_i64(rows + 16 * row) if rows != 0 else row
            _add_row(x + source * stride + at, own, own + sums_bytes, size)
        if first == 0:
            put_i64(counts + 8 * expert, get_i64(counts + 8 * expert) + tokens)
        item = atomic_add(work, 1)
