"""Matrix multiplication over weight panels, generic over block formats and batch sizes.

A panel holds as many rows as a vector has lanes. A format's `tile` multiplies P panels with T tokens at once and
accumulates each (row, token) in the same order whatever P and T are, so results do not depend on the batch.
"""

from collections.abc import Callable
from typing import Any

from .jit import bind, device
from .simd import ISA, LANES, atomic_add, get_i64, keep_if, load_tile, panels_of, store_tile, zeros

_COLUMN = 4 * LANES  # bytes of a panel's results for one token
MAX_TOKENS = 8  # the widest tile: rows of scratch past the last token that a tile may read and write
PANEL_GROUP = 4  # panels of tiles, but for the tall one: matrices, their results and shares of them are whole groups
_PANELS_8, _PANELS_4, _PANELS_2, _PANELS_1 = ISA.tile_panels  # of a tile of so many tokens
_TALL = ISA.tall_panels


def _sweep(acc, weights, x, out, x_stride, out_stride, first, last, panel_stride, blocks, accumulate):
    """Panels [first, last) against the tokens of acc's shape, as many panels at a time as acc has."""
    while first < last:
        sums = tile(acc, weights + first * panel_stride, panel_stride, x, x_stride, blocks)  # noqa: F821
        target = out + first * _COLUMN
        # Not a branch: LLVM would move it out of the loop and compile the tile twice.
        before = keep_if(accumulate, load_tile(acc, target, _COLUMN, out_stride))
        store_tile(before + sums, target, _COLUMN, out_stride)
        first += panels_of(acc)


def _multiply(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate):
    """out[t][panel] (+)= panel . x[t] for panels [first, last) and all tokens, in tiles of 8, 4, 2 and 1 tokens.

    A tile may run past the last token: rows of x and out up to the next multiple of 8 are read and written.
    """
    token = 0
    while token < tokens:
        left = tokens - token
        a, o = x + token * x_stride, out + token * out_stride
        if left > 4:
            _sweep(zeros(_PANELS_8, 8), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                   accumulate)
            token += 8
        elif left > 2:
            _sweep(zeros(_PANELS_4, 4), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                   accumulate)
            token += 4
        elif left > 1:
            _sweep(zeros(_PANELS_2, 2), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                   accumulate)
            token += 2
        else:
            _sweep_one(weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks, accumulate)
            token += 1


def _sweep_one(weights, x, out, x_stride, out_stride, first, last, panel_stride, blocks, accumulate):
    """One token."""
    _sweep(zeros(_PANELS_1, 1), weights, x, out, x_stride, out_stride, first, last, panel_stride, blocks, accumulate)


def _sweep_tall(weights, x, out, x_stride, out_stride, first, last, panel_stride, blocks, accumulate):
    """One token, in taller tiles as far as the panels go."""
    rest = last - (last - first) % _TALL
    _sweep(zeros(_TALL, 1), weights, x, out, x_stride, out_stride, first, rest, panel_stride, blocks, accumulate)
    _sweep(zeros(_PANELS_1, 1), weights, x, out, x_stride, out_stride, rest, last, panel_stride, blocks, accumulate)


def multiplier(tile: Callable[..., Any], name: str, *, tall: bool = False) -> Callable[..., Any]:
    """`_multiply` for a format's tile, as a function that kernels call; `tall`: for matrices of many panels."""
    sweep = device(bind(_sweep, f"sweep_{name}", tile=tile))
    one = _sweep_tall if tall and _TALL > _PANELS_1 else _sweep_one
    return device(bind(_multiply, f"multiply_{name}", _sweep=sweep,
                       _sweep_one=device(bind(one, f"sweep_one_{name}", _sweep=sweep))))


def matmul(work, thread, threads, count, weights, x, out, x_stride, out_stride, panels, panel_stride, blocks, share,
           accumulate):
    """The template of every format's matmul kernel. Threads take `share` panels, whole groups, at a time."""
    tokens = get_i64(count)
    first = share * atomic_add(work, 1)
    while first < panels:
        last = min(first + share, panels)
        multiply(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate)  # noqa: F821
        first = share * atomic_add(work, 1)


def whole_groups(rows: int) -> int:
    """How many panels a matrix of so many rows has: those that no row fills are zeros."""
    return -(-rows // (PANEL_GROUP * LANES)) * PANEL_GROUP
