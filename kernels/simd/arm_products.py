"""Products of bytes and of pairs in the instructions of 64-bit Arm, and of sums and integer scales.

Functions emit(b, sums, weights, token) -> sums, as in `x86_products`, and parts of such.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from .types import BFloatType, I16, I32, LANES
from .emit import call_function, lane_of, load_again, load_from, tile_of


def arm_dot(name):
    def emit(b, acc, weights, token):
        return call_function(b, f"llvm.aarch64.neon.{name}.v4i32.v16i8", acc.type, acc, weights,
                             b.bitcast(token, weights.type))

    return emit


def smmla(b, acc, tokens, weights):
    """acc [token 2][row 2] += tokens [2][8] . weights [row 2][8], all int8."""
    tokens = b.bitcast(tokens, weights.type)
    return call_function(b, "llvm.aarch64.neon.smmla.v4i32.v16i8", acc.type, acc, tokens, weights)


def usdot_unsigned_token(b, acc, weights, token):
    return arm_dot("usdot")(b, acc, b.bitcast(token, weights.type), weights)


def smull_dot(b, acc, weights, token):
    """For processors without dot products. Weights are -128 to 127, and 2 * 128 * 127 < 2 ** 15."""
    token, products = b.bitcast(token, weights.type), []
    for half in (range(8), range(8, 16)):
        order = ir.Constant(ir.VectorType(I32, 8), list(half))
        parts = [b.shuffle_vector(v, v, order) for v in (weights, token)]
        products.append(call_function(b, "llvm.aarch64.neon.smull.v8i16", ir.VectorType(I16, 8), *parts))
    pairs = call_function(b, "llvm.aarch64.neon.addp.v8i16", products[0].type, *products)
    return b.add(acc, call_function(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", acc.type, pairs))


def narrow_half(b, vector, odd):
    """Of two int16 in each lane, the first or the second."""
    order = ir.Constant(ir.VectorType(I32, LANES), list(range(int(odd), 2 * LANES, 2)))
    vector = b.bitcast(vector, ir.VectorType(I16, 2 * LANES))
    return b.shuffle_vector(vector, vector, order)


def smlal(b, acc, x, y):
    return b.add(acc, call_function(b, "llvm.aarch64.neon.smull.v4i32", acc.type, x, y))


def load_pair(b, address, element):
    """Two int16 at the beginning of a vector."""
    undefined = ir.Constant(ir.VectorType(I32, LANES // 2), ir.Undefined)
    pair = b.insert_element(undefined, load_from(b, address, element), I32(0))
    return b.bitcast(pair, ir.VectorType(I16, LANES))


def smlal_pairs(b, acc, weights, token):
    for odd in (False, True):
        acc = smlal(b, acc, narrow_half(b, weights, odd), lane_of(b, token, int(odd)))
    return acc


def bfdot(b, acc, weights, token):
    pairs = ir.VectorType(BFloatType(), 2 * LANES)
    return call_function(b, "llvm.aarch64.neon.bfdot.v4f32.v8bf16", acc.type, acc, b.bitcast(weights, pairs),
                         b.bitcast(token, pairs))


def loaded_zeros(b, tile):
    """Arm: zeros from memory, where the units that compute are busier than those that load."""
    zeros = cgutils.global_constant(b.module, "lcpu_zeros", ir.Constant(tile.vector, None))
    zeros.align, zeros.linkage = 16, "linkonce_odr"
    return tile_of(b, [load_again(b, zeros) for _ in range(tile.size)], tile)


def add_narrow(b, total, sums, scales, second=False):
    """Arm: total + the low halves of sums * one of two int16 in each lane."""
    return smlal(b, total, narrow_half(b, sums, False), narrow_half(b, scales, second))


def narrow_both(b, first, second):
    """The low halves of the lanes of one vector after those of the other."""
    parts = [b.bitcast(vector, ir.VectorType(I16, 2 * LANES)) for vector in (first, second)]
    order = [*range(0, 2 * LANES, 2), *range(2 * LANES, 4 * LANES, 2)]
    return b.shuffle_vector(*parts, ir.Constant(ir.VectorType(I32, 2 * LANES), order))


def in_halves(b, pairs):
    """The first of two int16 in each lane, then the second ones."""
    order = [*range(0, 2 * LANES, 2), *range(1, 2 * LANES, 2)]
    return b.shuffle_vector(pairs, pairs, ir.Constant(ir.VectorType(I32, 2 * LANES), order))


def half_of(b, vector, which):
    order = ir.Constant(ir.VectorType(I32, LANES), list(range(which * LANES, (which + 1) * LANES)))
    return b.shuffle_vector(vector, vector, order)
