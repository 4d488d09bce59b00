"""Products of int8 matrices: of two tokens with two rows of weights, 8 values at a time.

`Tile.matrix` says how such tiles lie in registers.
"""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba.extending import intrinsic

from .types import I32, ISA, Tile
from .arm_products import smmla
from .emit import load_lanes, tile_of, token_at, vectors_of
from .generic_products import generic_smmla

_MULTIPLY = smmla if ISA.arm else generic_smmla


def _shuffled(b, first, second, order):
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, 4), order))


def weights_of_matrix(b, vectors):
    """Vectors [values / 4][panels], 4 values of each of 4 rows, as those of a `matrix` tile."""
    out = []
    for i in range(0, len(vectors), 2):
        pairs = [[b.bitcast(vector, ir.VectorType(I32, 4)) for vector in pair]
                 for pair in zip(vectors[i], vectors[i + 1], strict=True)]
        for row in (0, 2):
            rows = [_shuffled(b, first, second, [row, row + 4, row + 1, row + 5]) for first, second in pairs]
            out.append([b.bitcast(vector, vectors[i][0].type) for vector in rows])
    return out


def multiply_matrix(b, sums, tile, weights, x, stride):
    """sums + the products of weights and tokens: lists of vectors [panels * tokens], and [values / 4][panels]."""
    for t, i in product(range(0, tile.tokens, 2), range(0, len(weights), 2)):
        tokens = load_lanes(b, token_at(b, b.add(x, x.type(8 * i)), stride, t, tile), I32)
        for p, rows in product(range(tile.panels), (0, 1)):
            at = p * tile.tokens + t + rows
            sums[at] = _MULTIPLY(b, sums[at], tokens, weights[i + rows][p])
    return sums


def _form_changer(matrix):
    @intrinsic
    def change(context, x):
        """A tile of sums in the form of matrices, or with a vector for each token. It may have this form already."""
        if not x.paired or x.tokens == 1 or x.matrix == matrix:
            return x(x), lambda context, b, sig, args: args[0]
        tile = Tile(x.element, x.panels, x.tokens, paired=True, matrix=matrix)

        def generate(context, b, sig, args):
            out, old = [], vectors_of(b, args[0], x)
            for i in range(0, tile.size, 2):  # the first halves of two vectors, then the second ones
                out += [_shuffled(b, old[i], old[i + 1], order) for order in ([0, 1, 4, 5], [2, 3, 6, 7])]
            return tile_of(b, out, tile)

        return tile(x), generate

    return change


to_matrix, to_rows = _form_changer(True), _form_changer(False)
