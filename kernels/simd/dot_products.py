"""Products of weights and activations.

Weights are values [panels][1]; activations stay in memory, one row for each token.
"""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .types import BFloatType, F32, I16, I32, ISA, LANES, RAISED, Tile
from .emit import broadcast, call_function, constant, emit_fma, hide, lane_of, literal_of, load_again, load_from
from .emit import load_lanes, offset_by, tile_of, token_at, token_scale, type_name, vector_at, vectors_of
from .arithmetic import elementwise

BY_RUNS = ISA.arm  # whether `dot_run` is better than a loop of `dot4`
_INDEPENDENT_SUMS = 8  # so many accumulators hide the latency of each other's dot products
DOT_ELEMENT = "i16" if ISA.dot == "maddubs" else "i32"  # the element type of `dot4`'s partial sums


def _load_to_all_lanes(b, address, element=I32):
    return broadcast(b, load_from(b, address, element), LANES)


def _multiply_accumulate(element, emit, load=_load_to_all_lanes):
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
                token = load(b, token_at(b, x, stride, t), element)
                for p in range(tile.panels):
                    row = vector_at(rows, sig.args[1], p, 0)
                    out[p * tile.tokens + t] = emit(b, out[p * tile.tokens + t], row, token)
            return tile_of(b, out, tile)

        return acc(acc, weights, types.intp, types.intp), generate

    return operation


def _multiply_run(element, emit):
    """intrinsic(acc, weights, x, stride): `_multiply_accumulate` of several weights, a tuple of 4 or 8, in order.

    On Arm, 16 bytes of a token are loaded at once, and an instruction takes 4 of them. There, a token's products come
    one after another, so that few sums are in registers at a time.
    """

    @intrinsic
    def operation(context, acc, weights, x, stride):
        panels, runs = weights.dtype, range(weights.count // 4)

        def generate(context, b, sig, args):
            tile, (acc, weights, x, stride) = sig.return_type, args
            out = vectors_of(b, acc, tile)
            rows = [vectors_of(b, b.extract_value(weights, i), panels) for i in range(sig.args[1].count)]

            def add(run, lane, t, token):
                for p in range(tile.panels):
                    at = p * tile.tokens + t
                    out[at] = emit(b, out[at], vector_at(rows[4 * run + lane], panels, p, 0), token)

            if ISA.arm:
                for t, run in product(range(tile.tokens), runs):
                    at = b.add(x, x.type(16 * run))
                    token = load_lanes(b, token_at(b, at, stride, t), element)
                    for lane in range(4):
                        add(run, lane, t, lane_of(b, token, lane))
            else:
                for lane, run, t in product(range(4), runs, range(tile.tokens)):
                    at = b.add(x, x.type(16 * run + 4 * lane))
                    add(run, lane, t, broadcast(b, load_from(b, token_at(b, at, stride, t), element), LANES))
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


def _arm_dot(name):
    def emit(b, acc, weights, token):
        return call_function(b, f"llvm.aarch64.neon.{name}.v4i32.v16i8", acc.type, acc, weights,
                             b.bitcast(token, weights.type))

    return emit


def _usdot_unsigned_token(b, acc, weights, token):
    return _arm_dot("usdot")(b, acc, b.bitcast(token, weights.type), weights)


def _smull_dot(b, acc, weights, token):
    """For processors without dot products. Weights are -128 to 127, and 2 * 128 * 127 < 2 ** 15."""
    token, products = b.bitcast(token, weights.type), []
    for half in (range(8), range(8, 16)):
        order = ir.Constant(ir.VectorType(I32, 8), list(half))
        parts = [b.shuffle_vector(v, v, order) for v in (weights, token)]
        products.append(call_function(b, "llvm.aarch64.neon.smull.v8i16", ir.VectorType(I16, 8), *parts))
    pairs = call_function(b, "llvm.aarch64.neon.addp.v8i16", products[0].type, *products)
    return b.add(acc, call_function(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", acc.type, pairs))


def _narrow_half(b, vector, odd):
    """Of two int16 in each lane, the first or the second."""
    order = ir.Constant(ir.VectorType(I32, LANES), list(range(int(odd), 2 * LANES, 2)))
    vector = b.bitcast(vector, ir.VectorType(I16, 2 * LANES))
    return b.shuffle_vector(vector, vector, order)


def _smlal(b, acc, x, y):
    return b.add(acc, call_function(b, "llvm.aarch64.neon.smull.v4i32", acc.type, x, y))


def _load_pair(b, address, element):
    """Two int16 at the beginning of a vector."""
    undefined = ir.Constant(ir.VectorType(I32, LANES // 2), ir.Undefined)
    pair = b.insert_element(undefined, load_from(b, address, element), I32(0))
    return b.bitcast(pair, ir.VectorType(I16, LANES))


def _smlal_pairs(b, acc, weights, token):
    for odd in (False, True):
        acc = _smlal(b, acc, _narrow_half(b, weights, odd), lane_of(b, token, int(odd)))
    return acc


def _bfdot(b, acc, weights, token):
    pairs = ir.VectorType(BFloatType(), 2 * LANES)
    return call_function(b, "llvm.aarch64.neon.bfdot.v4f32.v8bf16", acc.type, acc, b.bitcast(weights, pairs),
                         b.bitcast(token, pairs))


_DOT4 = {"vnni": _vpdpbusd, "maddubs": _maddubs_dot, "usdot": _arm_dot("usdot"), "sdot": _arm_dot("sdot"),
         "smull": _smull_dot, "generic": _generic_dot("zext")}[ISA.dot]
_DOT4_SIGNED = {"vnni": _vpdpbusd, "maddubs": _maddubs_signed_dot, "usdot": _arm_dot("sdot"), "sdot": _arm_dot("sdot"),
                "smull": _smull_dot, "generic": generic_signed_dot}[ISA.dot]


def _emit_fma_token(b, acc, weights, token):
    return emit_fma(b, weights, token, acc)


fma_tokens = _multiply_accumulate(F32, _emit_fma_token)
fma_run = _multiply_run(F32, _emit_fma_token)
# acc[p][t] += sum of 2 products of bfloat16; only where ISA.bf16
dot2_bf16 = _multiply_accumulate(I32, _bfdot if ISA.arm else _vdpbf16ps)
# acc[p][t] += sum of 4 products, with unsigned weights and int8 activations. acc comes from `partial_sums` and goes to
# `add_partial_sums`. On AVX2 it has 16 bits, which cannot overflow in 32 calls with weights up to 3, in 8 calls with
# weights up to 15, in 4 with weights up to 31, or in 2 with weights up to 63.
dot4 = _multiply_accumulate(I32, _DOT4)
dot_run = _multiply_run(I32, _DOT4)
# The same for int8 weights, which are stored with SIGNED_OFFSET added. acc is int32 on every path.
dot4_signed = _multiply_accumulate(I32, _DOT4_SIGNED)
dot_run_signed = _multiply_run(I32, _DOT4_SIGNED)
SIGNED_OFFSET = 128 if ISA.dot == "vnni" else 0
# The same for int8 weights as they are and activations of 0 to LARGEST_UNSIGNED. acc is int32 on every path.
dot4_unsigned = _multiply_accumulate(
    I32, {"vnni": _vpdpbusd_unsigned_token, "maddubs": _maddubs_unsigned_token, "usdot": _usdot_unsigned_token,
          "sdot": _arm_dot("sdot"), "smull": _smull_dot, "generic": _generic_dot("sext", "zext")}[ISA.dot])
# acc[p][t] += sum of 2 products of int16, with an int32 acc.
_emit_dot2 = {"vnni": _vpdpwssd, "maddubs": _pmaddwd, "generic": generic_signed_dot}.get(ISA.dot, _smlal_pairs)
dot2_i16 = _multiply_accumulate(I32, _emit_dot2, _load_pair if ISA.arm else _load_to_all_lanes)
LARGEST_UNSIGNED = 127 if ISA.arm or ISA.dot == "maddubs" else 255  # the same on Arm's paths, as bits are
SMALL_CODES = ISA.dot in ("maddubs", "sdot", "smull")  # whether `dot4` has no room for codes times their scale


def _beginning_with_bias(element, load):
    @intrinsic
    def begin(context, acc, bias, stride):
        """int32 accumulators of acc's shape. Those of token t start at the int32 at bias + t * stride."""
        def generate(context, b, sig, args):
            tile, (_, bias, stride) = sig.return_type, args
            return tile_of(b, [load(b, offset_by(b, bias, stride, t)) for t in range(tile.tokens)] * tile.panels, tile)

        return acc.of(element)(acc, types.intp, types.intp), generate

    return begin


def _load_vector(b, address):
    return load_from(b, address, Tile("i32").vector)


init_from_bias = _beginning_with_bias("i32", _load_to_all_lanes)
# The same for the biases of a block, whose sums `scale_add` or `scale_add_two` makes float32. A bias in memory is
# BIAS_LANES int32, BIAS_BASE + bias: on Arm, to load a vector and to subtract is cheaper than to copy and to convert.
BIAS_LANES, BIAS_BASE = (LANES, RAISED) if ISA.arm else (1, 0)
begin_block = _beginning_with_bias("raised", _load_vector) if ISA.arm else init_from_bias


def _to_float(b, sums, tile):
    """Sums of products, as float32."""
    if tile.element != "raised":
        return b.sitofp(sums, Tile("f32").vector)
    base = constant(Tile("f32").vector, 1.5 * 2.0**23)
    return b.fsub(b.bitcast(sums, base.type), base)


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
def group_sums(context, total):
    """`partial_sums` of a group of scaled codes."""
    tile = total.of(DOT_ELEMENT)
    return tile(total), lambda context, b, sig, args: (
        args[0] if _accumulates_in_place(total) and not SMALL_CODES
        else ir.Constant(ir.ArrayType(tile.vector, tile.size), None))


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
            number = token_scale(b, offset_by(b, scale, stride, t))
            for p in range(tile.panels):
                i = p * tile.tokens + t
                out[i] = emit_fma(b, b.fmul(scales[p], number), _to_float(b, sums[i], sig.args[1]), out[i])
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


def _loaded_zeros(b, tile):
    """Arm: zeros from memory, where the units that compute are busier than those that load."""
    zeros = cgutils.global_constant(b.module, "lcpu_zeros", ir.Constant(tile.vector, None))
    zeros.align, zeros.linkage = 16, "linkonce_odr"
    return tile_of(b, [load_again(b, zeros) for _ in range(tile.size)], tile)


@intrinsic
def zero_sums(context, like):
    """Zeros of like's shape."""
    tile = like.of(DOT_ELEMENT)
    return tile(like), lambda context, b, sig, args: (
        _loaded_zeros(b, tile) if ISA.arm else ir.Constant(ir.ArrayType(tile.vector, tile.size), None))


def _add_narrow(b, total, sums, scales, second=False):
    """Arm: total + the low halves of sums * one of two int16 in each lane."""
    return _smlal(b, total, _narrow_half(b, sums, False), _narrow_half(b, scales, second))


def _narrow_both(b, first, second):
    """The low halves of the lanes of one vector after those of the other."""
    parts = [b.bitcast(vector, ir.VectorType(I16, 2 * LANES)) for vector in (first, second)]
    order = [*range(0, 2 * LANES, 2), *range(2 * LANES, 4 * LANES, 2)]
    return b.shuffle_vector(*parts, ir.Constant(ir.VectorType(I32, 2 * LANES), order))


def _in_halves(b, pairs):
    """The first of two int16 in each lane, then the second ones."""
    order = [*range(0, 2 * LANES, 2), *range(1, 2 * LANES, 2)]
    return b.shuffle_vector(pairs, pairs, ir.Constant(ir.VectorType(I32, 2 * LANES), order))


def _half(b, vector, which):
    order = ir.Constant(ir.VectorType(I32, LANES), list(range(which * LANES, (which + 1) * LANES)))
    return b.shuffle_vector(vector, vector, order)


def _emit_pair(b, total, first, second, scales, biases=None):
    if ISA.arm:  # these take the narrow halves of sums; `begin_first` and `begin_second` have added biases
        # Or LLVM would take the scales from two registers, and have to move the second half of the sums.
        scales = hide(b, _in_halves(b, scales))
        sums = _narrow_both(b, first, second)
        for half in (0, 1):
            total = _smlal(b, total, _half(b, sums, half), _half(b, scales, half))
        return total
    if DOT_ELEMENT == "i16":
        total = _emit_add(True)(b, _emit_add(False)(b, total, first, scales), second, scales)
        return _emit_dot2(b, total, scales, biases) if biases else total
    both = b.or_(b.shl(second, constant(second.type, 16)), b.and_(first, constant(first.type, 0xFFFF)))
    both = b.bitcast(both, scales.type)
    return _emit_dot2(b, total, b.add(both, b.bitcast(biases, scales.type)) if biases else both, scales)


def _beginning(high):
    @intrinsic
    def begin(context, like, biases, stride):
        """Sums for `dot4` that go to `add_biased_pair` as its `first` or its `second`, with the same biases."""
        tile = like.of(DOT_ELEMENT)

        def generate(context, b, sig, args):
            if not ISA.arm:
                return ir.Constant(ir.ArrayType(tile.vector, tile.size), None)
            tokens = []
            for t in range(tile.tokens):
                pair = load_lanes(b, token_at(b, args[1], args[2], t), I16, 2)
                tokens.append(lane_of(b, b.sext(pair, ir.VectorType(I32, 2)), int(high)))
            return tile_of(b, tokens * tile.panels, tile)

        return tile(like, types.intp, types.intp), generate

    return begin


begin_first, begin_second = _beginning(False), _beginning(True)


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
    if SMALL_CODES:
        return codes
    products = b.mul(b.bitcast(codes, scales.type), scales)
    return b.bitcast(b.add(products, b.bitcast(added, scales.type)) if added else products, codes.type)


# Groups of 16 values whose codes and integer scale have few bits. Where `dot4` has room for it, the codes are
# multiplied by the scale, once for all tokens, and all products of a block are added up. With SMALL_CODES, sums of a
# group are multiplied.
@intrinsic
def scaled(context, codes, scales):
    """codes * scale, 0 .. 255. The scale is given as two equal int16 [panels][1]. With SMALL_CODES: only the codes."""
    return elementwise(_emit_scaled)((codes, scales))


@intrinsic
def scaled_above(context, codes, scales, added):
    """codes * scale + added, 0 .. 255, where `added` are bytes. With SMALL_CODES: only the codes."""
    return elementwise(_emit_scaled)((codes, scales, added))


@intrinsic
def add_group(context, total, partial, scales):
    """total + the products of a group that began with `group_sums`. With SMALL_CODES they fit in 16 bits."""
    def emit(b, before, sums, scale):
        if ISA.arm and SMALL_CODES:
            return _add_narrow(b, before, sums, scale)
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
            factor = token_scale(b, offset_by(b, scale, stride, t))
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
            number = token_scale(b, offset_by(b, args[5], args[6], t))
            for p in range(tile.panels):
                i = p * tile.tokens + t
                sums = b.fmul(one_scale[p], _to_float(b, one[i], sig.args[1]))
                sums = emit_fma(b, two_scale[p], _to_float(b, two[i], sig.args[2]), sums)
                out[i] = emit_fma(b, number, sums, out[i])
        return tile_of(b, out, tile)

    return acc(acc, first, second, first_scale, second_scale, types.intp, types.intp), generate
