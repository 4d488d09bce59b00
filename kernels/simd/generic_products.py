"""Products of bytes in plain LLVM, which any processor can execute.

Functions emit(b, sums, weights, token) -> sums, as in `x86_products`.
"""

from __future__ import annotations

from llvmlite import ir

from .types import I32, LANES


def generic_dot(extend, extend_token="sext"):
    def emit(b, acc, weights, token):
        wide = ir.VectorType(I32, weights.type.count)
        token = b.bitcast(token, weights.type)
        products = b.mul(getattr(b, extend)(weights, wide), getattr(b, extend_token)(token, wide))
        while products.type.count > LANES:  # add neighbours
            half = products.type.count // 2
            even, odd = (ir.Constant(ir.VectorType(I32, half), list(range(i, 2 * half, 2))) for i in (0, 1))
            products = b.add(b.shuffle_vector(products, products, even), b.shuffle_vector(products, products, odd))
        return b.add(acc, products)

    return emit


generic_signed_dot = generic_dot("sext")


def generic_smmla(b, acc, tokens, weights):
    """As `arm_products.smmla`."""
    first, second = list(range(8)), list(range(8, 16))
    orders = first + first + second + second, first + second + first + second
    tokens, weights = (b.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, 32), order))
                       for v, order in zip((b.bitcast(tokens, weights.type), weights), orders, strict=True))
    return generic_signed_dot(b, acc, weights, tokens)
