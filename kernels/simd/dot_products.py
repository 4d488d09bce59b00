"""Products of weights and activations.

Weights are values [panels][1]; activations stay in memory, one row for each token.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .types import BFloatType, F32, I16, I32, ISA, LANES, Tile
from .emit import broadcast, call_function, constant, emit_fma, literal_of, load_from, offset_by, tile_of, token_at
from .emit import type_name, vector_at, vectors_of
from .arithmetic import elementwise

_INDEPENDENT_SUMS = 8  # so many accumulators hide the latency of each other's dot products
DOT_ELEMENT = "i16" if ISA.dot == "maddubs" else "i32"  # the element type of `dot4`'s partial sums


def _multiply_accumulate(element, emit):
    """intrinsic(acc, weights, x, stride) -> acc with acc[p][t] = emit(b, acc[p][t], weights[p], token t).

    Token t is the 4 bytes at x + t * stride, broadcast to every lane. The loop over tokens is the outer one: each token
    is loaded once, and its register is soon free again.
    """

    @intrinsic
    def operation(context, acc, weights, x, stride):
        def generate(context, b, sig, args):
            tile, (acc, weights, x, stride) = sig.return_type, args
            out, rows = vectors_of(b, acc, tile), vectors_of(b, weights, sig.args[1])
            for t in range(tile.tokens):
                token = broadcast(b, load_from(b, token_at(b, x, stride, t), element), LANES)
                for p in range(tile.panels):
                    row = vector_at(rows, sig.args[1], p, 0)
                    out[p * tile.tokens + t] = emit(b, out[p * tile.tokens + t], row, token)
            return tile_of(b, out, tile)

        return acc(acc, weights, types.intp, types.intp), generate

    return operation


def _vpdpbusd(b, acc, weights, token):
    token = b.bitcast(token, weights.type)
    return call_function(b, f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", acc.type, acc, weights, token)


def _maddubs(b, unsigned, signed):
    return call_function(b, "llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 2 * LANES), unsigned, signed)


def _multiply_pairs(b, x, y):
    return call_function(b, "llvm.x86.avx2.pmadd.wd", Tile("i32").vector, x, y)


def _add_pairs(b, x):
    return _multiply_pairs(b, x, constant(x.type, 1))


def _generic_dot(extend, extend_token="sext"):
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


generic_signed_dot = _generic_dot("sext")


def _maddubs_dot(b, acc, weights, token):
    return b.add(acc, _maddubs(b, weights, b.bitcast(token, weights.type)))


def _maddubs_signed_dot(b, acc, weights, token):
    signs = call_function(b, "llvm.x86.avx2.psign.b", weights.type, b.bitcast(token, weights.type), weights)
    magnitude = call_function(b, f"llvm.abs.{type_name(weights.type)}", weights.type, weights, ir.IntType(1)(0))
    return b.add(acc, _add_pairs(b, _maddubs(b, magnitude, signs)))


def _maddubs_unsigned_token(b, acc, weights, token):
    return b.add(acc, _add_pairs(b, _maddubs(b, b.bitcast(token, weights.type), weights)))


def _vpdpbusd_unsigned_token(b, acc, weights, token):
    return _vpdpbusd(b, acc, b.bitcast(token, weights.type), weights)


def _vpdpwssd(b, acc, weights, token):
    token = b.bitcast(token, weights.type)
    return call_function(b, f"llvm.x86.avx512.vpdpwssd.{32 * LANES}", acc.type, acc, weights, token)


def _pmaddwd(b, acc, weights, token):
    return b.add(acc, _multiply_pairs(b, weights, b.bitcast(token, weights.type)))


def _vdpbf16ps(b, acc, weights, token):
    pairs = ir.VectorType(BFloatType(), 2 * LANES)
    return call_function(b, f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}", acc.type, acc, b.bitcast(weights, pairs),
                 b.bitcast(token, pairs))


fma_tokens = _multiply_accumulate(F32, lambda b, acc, weights, token: emit_fma(b, weights, token, acc))
dot2_bf16 = _multiply_accumulate(I32, _vdpbf16ps)  # acc[p][t] += sum of 2 products of bfloat16; only where ISA.bf16
# acc[p][t] += sum of 4 products, with unsigned weights and int8 activations. acc comes from `partial_sums` and goes to
# `add_partial_sums`. On AVX2 it has 16 bits, which cannot overflow in 32 calls with weights up to 3, in 8 calls with
# weights up to 15, in 4 with weights up to 31, or in 2 with weights up to 63.
dot4 = _multiply_accumulate(I32, {"vnni": _vpdpbusd, "maddubs": _maddubs_dot, "generic": _generic_dot("zext")}[ISA.dot])
# The same for int8 weights, which are stored with SIGNED_OFFSET added. acc is int32 on every path.
dot4_signed = _multiply_accumulate(
    I32, {"vnni": _vpdpbusd, "maddubs": _maddubs_signed_dot, "generic": generic_signed_dot}[ISA.dot])
SIGNED_OFFSET = 128 if ISA.dot == "vnni" else 0
# The same for int8 weights as they are and activations of 0 to LARGEST_UNSIGNED. acc is int32 on every path.
dot4_unsigned = _multiply_accumulate(
    I32, {"vnni": _vpdpbusd_unsigned_token, "maddubs": _maddubs_unsigned_token,
          "generic": _generic_dot("sext", "zext")}[ISA.dot])
# acc[p][t] += sum of 2 products of int16, with an int32 acc.
_emit_dot2 = {"vnni": _vpdpwssd, "maddubs": _pmaddwd, "generic": generic_signed_dot}[ISA.dot]
dot2_i16 = _multiply_accumulate(I32, _emit_dot2)
LARGEST_UNSIGNED = 127 if ISA.dot == "maddubs" else 255


@intrinsic
def init_from_bias(context, acc, bias, stride):
    """int32 accumulators of acc's shape. Those of token t start at the int32 at bias + t * stride."""
    def generate(context, b, sig, args):
        tile, (_, bias, stride) = sig.return_type, args
        tokens = [broadcast(b, load_from(b, offset_by(b, bias, stride, t), I32), LANES) for t in range(tile.tokens)]
        return tile_of(b, tokens * tile.panels, tile)

    return acc.of("i32")(acc, types.intp, types.intp), generate


def _accumulates_in_place(total):
    """Whether `dot4` adds to the int32 total itself, without partial sums."""
    return DOT_ELEMENT == "i32" and total.size >= _INDEPENDENT_SUMS


@intrinsic
def partial_sums(context, total):
    """Accumulators for a few calls of `dot4`, whose sum `add_partial_sums` then adds to the int32 total.

    AVX2: zeros of 16 bits. Other paths: int32 zeros for small tiles, which breaks one long chain of dependent dot
    products into several short ones. Large tiles have enough independent chains and no spare registers: for them,
    `total` itself.
    """
    tile = total.of(DOT_ELEMENT)
    return tile(total), lambda context, b, sig, args: (
        args[0] if _accumulates_in_place(total) else ir.Constant(ir.ArrayType(tile.vector, tile.size), None))


@intrinsic
def add_partial_sums(context, total, partial):
    """total + partial, int32. On AVX2, pairs of 16-bit partial sums are widened and added first."""
    def emit(b, before, sums):
        if _accumulates_in_place(total):
            return sums  # `total` is where they began
        return b.add(before, _add_pairs(b, sums) if DOT_ELEMENT == "i16" else sums)

    return elementwise(emit)((total, partial))


@intrinsic
def scale_add(context, acc, dots, weight_scale, scale, stride):
    """acc[p][t] += (weight_scale[p] * scale[t]) * dots[p][t], where scale is the address of a float32.

    The product of two scales that are float16 values is exact.
    """
    def generate(context, b, sig, args):
        tile, (acc, dots, weight_scale, scale, stride) = sig.return_type, args
        out, sums = vectors_of(b, acc, tile), vectors_of(b, dots, tile)
        scales = vectors_of(b, weight_scale, sig.args[2])
        for t in range(tile.tokens):
            token_scale = broadcast(b, load_from(b, offset_by(b, scale, stride, t), F32), LANES)
            for p in range(tile.panels):
                i = p * tile.tokens + t
                out[i] = emit_fma(b, b.fmul(scales[p], token_scale), b.sitofp(sums[i], tile.vector), out[i])
        return tile_of(b, out, tile)

    return acc(acc, dots, weight_scale, types.intp, types.intp), generate


def _scale_of(b, scales, high):
    """Of two int16 in each lane, one as int32."""
    scales = b.bitcast(scales, Tile("i32").vector)
    amount = constant(scales.type, 16)
    return b.ashr(scales if high else b.shl(scales, amount), amount)


def _emit_add(high):
    def emit(b, total, sums, scales):
        scale = _scale_of(b, scales, high)
        if DOT_ELEMENT == "i32":
            return b.add(total, b.mul(sums, scale))
        twice = b.or_(b.shl(scale, constant(scale.type, 16)), b.and_(scale, constant(scale.type, 0xFFFF)))
        return b.add(total, _multiply_pairs(b, sums, b.bitcast(twice, sums.type)))

    return emit


def _group_adder(high):
    @intrinsic
    def add(context, total, sums, scales):
        """total + sums * scale, int32. The scale is the first or the second of two int16, scales [panels][1]."""
        return elementwise(_emit_add(high))((total, sums, scales))

    @intrinsic
    def make_room(context, total, sums, scales):
        """(total, sums) for the same group to go on. On AVX2 its 16 bits are full: `add` them, and start again."""
        result = types.Tuple((total, sums))

        def generate(context, b, sig, args):
            if DOT_ELEMENT == "i32":
                return context.make_tuple(b, result, args[:2])
            added = elementwise(_emit_add(high))((total, sums, scales))[1](context, b, sig, args)
            return context.make_tuple(b, result, [added, ir.Constant(ir.ArrayType(sums.vector, sums.size), None)])

        return result(total, sums, scales), generate

    return add, make_room


# Sums of a group of weights with an integer scale begin as `zero_sums`. `dot4` adds to them.
add_first, room_in_first = _group_adder(False)
add_second, room_in_second = _group_adder(True)


@intrinsic
def zero_sums(context, like):
    """Zeros of like's shape."""
    tile = like.of(DOT_ELEMENT)
    return tile(like), lambda context, b, sig, args: ir.Constant(ir.ArrayType(tile.vector, tile.size), None)


def _emit_pair(b, total, first, second, scales, biases=None):
    if DOT_ELEMENT == "i16":
        total = _emit_add(True)(b, _emit_add(False)(b, total, first, scales), second, scales)
        return _emit_dot2(b, total, scales, biases) if biases else total
    both = b.or_(b.shl(second, constant(second.type, 16)), b.and_(first, constant(first.type, 0xFFFF)))
    both = b.bitcast(both, scales.type)
    return _emit_dot2(b, total, b.add(both, b.bitcast(biases, scales.type)) if biases else both, scales)


@intrinsic
def add_pair(context, total, first, second, scales):
    """total + the sums of two groups, each times its scale, int32. The sums must fit in 16 bits."""
    return elementwise(_emit_pair)((total, first, second, scales))


@intrinsic
def add_biased_pair(context, total, first, second, scales, biases, stride):
    """The same for sums + biases, which must fit in 16 bits: for token t two int16, at biases + t * stride."""
    def generate(context, b, sig, args):
        pairs = [broadcast(b, load_from(b, token_at(b, args[4], args[5], t), I32), LANES) for t in range(total.tokens)]
        totals, firsts, seconds = (vectors_of(b, value, total) for value in args[:3])
        rows = vectors_of(b, args[3], scales)
        return tile_of(b, [_emit_pair(b, totals[i], firsts[i], seconds[i], rows[i // total.tokens],
                                      pairs[i % total.tokens]) for i in range(total.size)], total)

    return total(total, first, second, scales, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def subtracted_from(context, number, x):
    """number (a literal) - x, for each int16 of x."""
    out, generate = elementwise(lambda b, v: b.sub(constant(v.type, literal_of(number)), v))((x,))
    return out.return_type(number, x), lambda context, b, sig, args: generate(context, b, out, args[1:])


def _emit_scaled(b, codes, scales, added=None):
    if DOT_ELEMENT == "i16":
        return codes
    products = b.mul(b.bitcast(codes, scales.type), scales)
    return b.bitcast(b.add(products, b.bitcast(added, scales.type)) if added else products, codes.type)


# Groups of 16 values whose codes and integer scale have few bits. Where `dot4` has room for it, the codes are
# multiplied by the scale, once for all tokens, and all products of a block are added up. On AVX2, sums of a group are
# multiplied.
@intrinsic
def scaled(context, codes, scales):
    """codes * scale, 0 .. 255. The scale is given as two equal int16 [panels][1]. On AVX2: only the codes."""
    return elementwise(_emit_scaled)((codes, scales))


@intrinsic
def scaled_above(context, codes, scales, added):
    """codes * scale + added, 0 .. 255, where `added` are bytes. On AVX2: only the codes."""
    return elementwise(_emit_scaled)((codes, scales, added))


@intrinsic
def add_group(context, total, partial, scales):
    """total + the products of a group that began with `partial_sums`."""
    def emit(b, before, sums, scale):
        if DOT_ELEMENT == "i16":
            return b.add(before, _multiply_pairs(b, sums, scale))
        return sums if _accumulates_in_place(total) else b.add(before, sums)

    return elementwise(emit)((total, partial, scales))


@intrinsic
def add_scaled(context, acc, sums, scale, stride):
    """acc[p][t] += sums[p][t] * scale[t], all float32, where scale is an address."""
    def generate(context, b, sig, args):
        tile, (acc, sums, scale, stride) = sig.return_type, args
        out, terms = vectors_of(b, acc, tile), vectors_of(b, sums, tile)
        for t in range(tile.tokens):
            factor = broadcast(b, load_from(b, offset_by(b, scale, stride, t), F32), LANES)
            for i in range(t, tile.size, tile.tokens):
                out[i] = emit_fma(b, terms[i], factor, out[i])
        return tile_of(b, out, tile)

    return acc(acc, acc, types.intp, types.intp), generate


@intrinsic
def scale_add_two(context, acc, first, second, first_scale, second_scale, scale, stride):
    """acc[p][t] += scale[t] * (first_scale[p] * first[p][t] + second_scale[p] * second[p][t]), as in `scale_add`."""
    def generate(context, b, sig, args):
        tile = sig.return_type
        tiles = [vectors_of(b, value, ty) for value, ty in zip(args[:5], sig.args[:5], strict=True)]
        out, one, two, one_scale, two_scale = tiles
        for t in range(tile.tokens):
            token_scale = broadcast(b, load_from(b, offset_by(b, args[5], args[6], t), F32), LANES)
            for p in range(tile.panels):
                i = p * tile.tokens + t
                sums = b.fmul(one_scale[p], b.sitofp(one[i], tile.vector))
                sums = emit_fma(b, two_scale[p], b.sitofp(two[i], tile.vector), sums)
                out[i] = emit_fma(b, token_scale, sums, out[i])
        return tile_of(b, out, tile)

    return acc(acc, first, second, first_scale, second_scale, types.intp, types.intp), generate
