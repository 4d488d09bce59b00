"""Products of bytes and of pairs in the instructions of x86. Functions emit(b, sums, weights, token) -> sums."""

from __future__ import annotations

from llvmlite import ir

from .types import BFloatType, I16, LANES, Tile
from .emit import call_function, constant, type_name


def vpdpbusd(b, acc, weights, token):
    token = b.bitcast(token, weights.type)
    return call_function(b, f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", acc.type, acc, weights, token)


def maddubs(b, unsigned, signed):
    return call_function(b, "llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 2 * LANES), unsigned, signed)


def multiply_pairs(b, x, y):
    return call_function(b, "llvm.x86.avx2.pmadd.wd", Tile("i32").vector, x, y)


def add_pairs(b, x):
    return multiply_pairs(b, x, constant(x.type, 1))


def maddubs_dot(b, acc, weights, token):
    return b.add(acc, maddubs(b, weights, b.bitcast(token, weights.type)))


def maddubs_signed_dot(b, acc, weights, token):
    signs = call_function(b, "llvm.x86.avx2.psign.b", weights.type, b.bitcast(token, weights.type), weights)
    magnitude = call_function(b, f"llvm.abs.{type_name(weights.type)}", weights.type, weights, ir.IntType(1)(0))
    return b.add(acc, add_pairs(b, maddubs(b, magnitude, signs)))


def maddubs_unsigned_token(b, acc, weights, token):
    return b.add(acc, add_pairs(b, maddubs(b, b.bitcast(token, weights.type), weights)))


def vpdpbusd_unsigned_token(b, acc, weights, token):
    return vpdpbusd(b, acc, b.bitcast(token, weights.type), weights)


def vpdpwssd(b, acc, weights, token):
    token = b.bitcast(token, weights.type)
    return call_function(b, f"llvm.x86.avx512.vpdpwssd.{32 * LANES}", acc.type, acc, weights, token)


def pmaddwd(b, acc, weights, token):
    return b.add(acc, multiply_pairs(b, weights, b.bitcast(token, weights.type)))


def vdpbf16ps(b, acc, weights, token):
    pairs = ir.VectorType(BFloatType(), 2 * LANES)
    return call_function(b, f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}", acc.type, acc, b.bitcast(weights, pairs),
                         b.bitcast(token, pairs))
