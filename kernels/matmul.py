"""Matrix multiplication over weight panels, generic over block formats and batch sizes.

A panel holds as many rows as a vector has lanes. A format's `tile` multiplies P panels with T tokens at once and
accumulates each (row, token) in the same order whatever P and T are, so results do not depend on the batch.
"""

from collections.abc import Callable
from typing import Any

from .jit import bind, device, hole, template
from .simd import ISA, LANES, PAIRS, atomic_add, get_i64, load_tile, panels_of, select_or_zero, store_tile, zeros
from .simd import zeros_of_pairs

_COLUMN = 4 * LANES  # bytes of a panel's results for one token
WIDE_TOKENS = 16  # of a tile in registers of their own, where the path has these (`wide`)
LEAST_WIDE = 9  # of such a tile after others: fewer are faster in other tiles
# tokens of the largest tile: x and out must have as many rows of padding after the last token
MAX_TOKENS = WIDE_TOKENS if ISA.tile_registers else 8
PIECES = 8  # of a matmul for each thread, at least: the other threads take over the pieces of a slow one
_LEAST_TOKENS = 64 if ISA.tile_registers else 32  # of a piece, where there are more
_RUN = 75  # percent of an even share of a matrix, which each thread takes as one run
GROUPS, GROUP_BYTES = 24, 24  # of a table of groups: bytes before the first, and of each
PANEL_GROUP = 4  # panels of the largest tile: matrices, their results and shares are padded to a multiple

tile = sweep = multiply = hole()  # a format's tile, and the two templates around it, bound to this tile
wide = hole()  # the same as `_multiply` for as many tokens as it likes to take; it returns how many it took
start = hole()  # `zeros`, or `zeros_of_pairs` for int8 activations
panels_8 = panels_4 = panels_2 = panels_1 = hole()  # of a tile of so many tokens; panels_8 may be 0: no such tile


@template
def _sweep(acc, weights, x, out, x_stride, out_stride, first, last, panel_stride, blocks, accumulate, *others):
    """Multiply panels [first, last), acc.panels at a time, with acc.tokens tokens. others: what else the tile takes."""
    while first < last:
        sums = tile(acc, weights + first * panel_stride, panel_stride, x, x_stride, blocks, *others)
        target = out + first * _COLUMN
        # Without a branch, which LLVM would move out of the loop: it would compile the tile twice.
        before = select_or_zero(accumulate, load_tile(acc, target, _COLUMN, out_stride))
        store_tile(before + sums, target, _COLUMN, out_stride)
        first += panels_of(acc)


@template
def _multiply(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate, *others):
    """out[t][panel] (+)= panel . x[t] for panels [first, last) and all tokens, in tiles of 8, 4, 2 and 1 tokens.

    A tile may have more tokens than are left: `tile_rows` rows of x and out are read and written.
    """
    token = wide(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate)
    while token < tokens:
        left = tokens - token
        a, o = x + token * x_stride, out + token * out_stride
        if panels_8 and left > 4:
            sweep(start(panels_8, 8), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                  accumulate, *others)
            token += 8
        elif left > 2:
            sweep(start(panels_4, 4), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                  accumulate, *others)
            token += 4
        elif left > 1:
            sweep(start(panels_2, 2), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                  accumulate, *others)
            token += 2
        else:
            sweep(start(panels_1, 1), weights, a, o, x_stride, out_stride, first, last, panel_stride, blocks,
                  accumulate, *others)
            token += 1


@device
def _take_none(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate):
    return 0


@device
def tile_rows(tokens):
    """How many rows of x and out `_multiply` touches for so many tokens, at most."""
    if tokens % MAX_TOKENS >= LEAST_WIDE:
        return (tokens + MAX_TOKENS - 1) // MAX_TOKENS * MAX_TOKENS
    left = tokens % 8
    return tokens - left + (8 if left > 4 else 4 if left > 2 else 2 if PAIRS and left == 1 else left)


def multiplier(tile: Callable[..., Any], name: str,
               panels: tuple[int, int, int, int] = ISA.tile_panels,
               wide: Callable[..., Any] | None = None, int8: bool = False) -> Callable[..., Any]:
    """`_multiply` for a format's tile, as a function that kernels call. panels: of tiles of 8, 4, 2 and 1 tokens.
    The first may be 0: there is no tile of 8.

    wide: takes tokens before the tile does, as `..wide` makes it.
    int8: whether x has one of the forms of `activations.INT8`.
    """
    sizes = dict(zip(("panels_8", "panels_4", "panels_2", "panels_1"), panels, strict=True))
    return device(bind(_multiply, f"multiply_{name}", sweep=device(bind(_sweep, f"sweep_{name}", tile=tile)),
                       wide=wide or _take_none, start=zeros_of_pairs if int8 else zeros, **sizes))


@device
def _first_panel(piece, runs, run, share):
    """The first panel of a piece. The first `runs` pieces of a matrix have `run` panels each, the others `share`."""
    return run * min(piece, runs) + share * max(0, piece - runs)


@device
def piece_of(item, threads, tokens, panels, share):
    """What an item of a matmul is: (first panel, panel after the last, first token, number of tokens).

    Items are shares of panels, multiples of PANEL_GROUP. Where they are few for so many threads, each is cut into items
    of fewer tokens. After the last item, the first panel is `panels`. With a single tile of tokens, each panel is read
    once, and memory limits the speed: then each thread first takes one long run of panels, since sequential reads are
    fastest.
    """
    shares = (panels + share - 1) // share
    chunks = max(1, min((PIECES * threads + shares - 1) // shares, tokens // _LEAST_TOKENS))
    chunk = ((tokens + chunks - 1) // chunks + MAX_TOKENS - 1) // MAX_TOKENS * MAX_TOKENS
    piece, token = item // chunks, item % chunks * chunk
    runs = threads if tokens <= MAX_TOKENS else 0
    run = panels * _RUN // (100 * threads) // PANEL_GROUP * PANEL_GROUP
    first, last = _first_panel(piece, runs, run, share), _first_panel(piece + 1, runs, run, share)
    return min(first, panels), min(last, panels), token, max(0, min(chunk, tokens - token))


@template
def matmul(work, thread, threads, count, weights, x, out, x_stride, out_stride, panels, panel_stride, blocks, share,
           accumulate):
    """The template of every format's matmul kernel. Its pieces are those of `piece_of`."""
    tokens = get_i64(count)
    first, last, token, size = piece_of(atomic_add(work, 1), threads, tokens, panels, share)
    while first < panels:
        multiply(weights, x + token * x_stride, out + token * out_stride, x_stride, out_stride, size, first, last,
                 panel_stride, blocks, accumulate)
        first, last, token, size = piece_of(atomic_add(work, 1), threads, tokens, panels, share)


@template
def matmul_experts(work, thread, threads, groups, weights, x, out, x_stride, out_stride, panels, panel_stride, blocks,
                   share):
    """out[row] = panels of its group's expert . x[row]: of every expert's matrix only the groups' ones are read.

    weights: the matrices of all experts, `panels` panels each. groups, int64: number of rows, number of groups, tokens
    of the largest one; then for each group its expert, first row and number of tokens. Threads share the panels of all
    groups, one after another, as if they were those of one matrix.
    """
    total = get_i64(groups + 8) * panels
    runs = threads if get_i64(groups + 16) <= MAX_TOKENS else 0
    run = total * _RUN // (100 * threads) // PANEL_GROUP * PANEL_GROUP
    piece = atomic_add(work, 1)
    first = _first_panel(piece, runs, run, share)
    while first < total:
        last = min(_first_panel(piece + 1, runs, run, share), total)
        while first < last:
            group, panel = groups + GROUPS + GROUP_BYTES * (first // panels), first % panels
            end, row = min(panel + last - first, panels), get_i64(group + 8)
            multiply(weights + get_i64(group) * panels * panel_stride, x + row * x_stride, out + row * out_stride,
                     x_stride, out_stride, get_i64(group + 16), panel, end, panel_stride, blocks, False)
            first += end - panel
        piece = atomic_add(work, 1)
        first = _first_panel(piece, runs, run, share)


def whole_groups(rows: int) -> int:
    """How many panels a matrix of so many rows has: a multiple of PANEL_GROUP, padded with zeros."""
    return -(-rows // (PANEL_GROUP * LANES)) * PANEL_GROUP


def padded_width(width: int) -> int:
    """The rows of that many panels: a width with which whole tiles of results can be stored."""
    return whole_groups(width) * LANES
