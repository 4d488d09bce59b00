"""Products of weights and activations.

Weights are values [panels][1]; activations stay in memory, one row for each token.
"""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .types import F32, I32, ISA, LANES, PAIRS, PIECE, RAISED, Tile
from .x86_products import add_pairs, maddubs_dot, maddubs_signed_dot, maddubs_unsigned_token, pmaddwd, vdpbf16ps
from .x86_products import vpdpbusd, vpdpbusd_unsigned_token, vpdpwssd
from .arm_products import arm_dot, bfdot, load_pair, smlal_pairs, smull_dot, usdot_unsigned_token
from .emit import broadcast, constant, emit_fma, lane_of, load_again, load_from, load_lanes, operand, row_of, tile_of
from .emit import token_at, token_scale, vector_at, vectors_of
from .generic_products import generic_dot, generic_signed_dot
from .matrices import multiply_matrix, weights_of_matrix
from .arithmetic import elementwise


BY_RUNS = ISA.arm or PAIRS  # whether `dot_run` is better than a loop of `dot4`
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
        if acc.matrix:
            raise TypingError("a tile in the form of matrices is multiplied by dot_run")

        def generate(context, b, sig, args):
            tile, (acc, weights, x, stride) = sig.return_type, args
            out, rows = vectors_of(b, acc, tile), vectors_of(b, weights, sig.args[1])
            for t in range(tile.tokens):
                token = load(b, token_at(b, x, stride, t, tile), element)
                for p in range(tile.panels):
                    row = vector_at(rows, sig.args[1], p, 0)
                    out[p * tile.tokens + t] = emit(b, out[p * tile.tokens + t], row, token)
            return tile_of(b, out, tile)

        return acc(acc, weights, types.intp, types.intp), generate

    return operation


def _load_run(b, address, element, tile):
    """16 bytes of a token, 4 of them in all lanes of each of four vectors."""
    if not tile.paired:
        token = load_lanes(b, address, element)
        return [lane_of(b, token, lane) for lane in range(4)]
    pieces = [load_lanes(b, b.add(address, address.type(2 * at)), element, 2) for at in (0, PIECE)]
    return [lane_of(b, piece, lane) for piece in pieces for lane in range(2)]


def _multiply_run(element, emit):
    """intrinsic(acc, weights, x, stride): `_multiply_accumulate` of several weights, a tuple of 4 or 8, in order.

    On Arm, 16 bytes of a token are loaded at once, and an instruction takes 4 of them. There, a token's products come
    one after another, so that few sums are in registers at a time. Products of matrices take weights up to 127.
    """

    @intrinsic
    def operation(context, acc, weights, x, stride):
        panels, runs = weights.dtype, range(weights.count // 4)

        def generate(context, b, sig, args):
            tile, (acc, weights, x, stride) = sig.return_type, args
            out = vectors_of(b, acc, tile)
            rows = [vectors_of(b, b.extract_value(weights, i), panels) for i in range(sig.args[1].count)]
            if tile.matrix:
                rows = rows if panels.matrix else weights_of_matrix(b, rows)
                return tile_of(b, multiply_matrix(b, out, tile, rows, x, stride), tile)

            def add(run, lane, t, token):
                for p in range(tile.panels):
                    at = p * tile.tokens + t
                    out[at] = emit(b, out[at], vector_at(rows[4 * run + lane], panels, p, 0), token)

            if ISA.arm or tile.paired:
                for t, run in product(range(tile.tokens), runs):
                    token = token_at(b, b.add(x, x.type(16 * run * (2 if tile.paired else 1))), stride, t, tile)
                    for lane, value in enumerate(_load_run(b, token, element, tile)):
                        add(run, lane, t, value)
            else:
                for lane, run, t in product(range(4), runs, range(tile.tokens)):
                    at = b.add(x, x.type(16 * run + 4 * lane))
                    add(run, lane, t, broadcast(b, load_from(b, token_at(b, at, stride, t, tile), element), LANES))
            return tile_of(b, out, tile)

        return acc(acc, weights, types.intp, types.intp), generate

    return operation


_DOT4 = {"vnni": vpdpbusd, "maddubs": maddubs_dot, "usdot": arm_dot("usdot"), "sdot": arm_dot("sdot"),
         "smull": smull_dot, "generic": generic_dot("zext")}[ISA.dot]
_DOT4_SIGNED = {"vnni": vpdpbusd, "maddubs": maddubs_signed_dot, "usdot": arm_dot("sdot"), "sdot": arm_dot("sdot"),
                "smull": smull_dot, "generic": generic_signed_dot}[ISA.dot]


def _emit_fma_token(b, acc, weights, token):
    return emit_fma(b, weights, token, acc)


fma_tokens = _multiply_accumulate(F32, _emit_fma_token)
fma_run = _multiply_run(F32, _emit_fma_token)
# acc[p][t] += sum of 2 products of bfloat16; only where ISA.bf16
dot2_bf16 = _multiply_accumulate(I32, bfdot if ISA.arm else vdpbf16ps)
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
    I32, {"vnni": vpdpbusd_unsigned_token, "maddubs": maddubs_unsigned_token, "usdot": usdot_unsigned_token,
          "sdot": arm_dot("sdot"), "smull": smull_dot, "generic": generic_dot("sext", "zext")}[ISA.dot])
# acc[p][t] += sum of 2 products of int16, with an int32 acc.
emit_dot2 = {"vnni": vpdpwssd, "maddubs": pmaddwd, "generic": generic_signed_dot}.get(ISA.dot, smlal_pairs)
dot2_i16 = _multiply_accumulate(I32, emit_dot2, load_pair if ISA.arm else _load_to_all_lanes)
LARGEST_UNSIGNED = 127 if ISA.arm or ISA.dot == "maddubs" else 255  # the same on Arm's paths, as bits are
SMALL_CODES = ISA.dot in ("maddubs", "sdot", "smull")  # whether `dot4` has no room for codes times their scale


def _beginning_with_bias(element, load):
    @intrinsic
    def begin(context, acc, bias, stride):
        """int32 accumulators of acc's shape. Those of token t start at the int32 at bias + t * stride."""
        def generate(context, b, sig, args):
            tile, (_, bias, stride) = sig.return_type, args
            return tile_of(b, [*numbers_of_tokens(b, bias, stride, tile, I32, load)] * tile.panels, tile)

        return acc.of(element)(acc, types.intp, types.intp), generate

    return begin


def numbers_of_tokens(b, address, stride, tile, element, load):
    """For each token of a tile a vector of its number; load(b, address of the number).

    In pairs, a number is there twice, 4 bytes each: so one load serves a `matrix` tile.
    """
    for t in range(tile.tokens):
        if tile.matrix:
            pair = row_of(b, address, stride, t - t % 2, tile)
            yield load_again(b, b.inttoptr(pair, ir.VectorType(element, LANES).as_pointer()))
        elif tile.paired:
            yield lane_of(b, load_lanes(b, row_of(b, address, stride, t, tile), element, 2), 0)
        else:
            yield load(b, row_of(b, address, stride, t, tile))


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


def accumulates_in_place(total):
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
        args[0] if accumulates_in_place(total) else ir.Constant(ir.ArrayType(tile.vector, tile.size), None))


@intrinsic
def add_partial_sums(context, total, partial):
    """total + partial, int32. On AVX2, pairs of 16-bit partial sums are widened and added first."""
    def emit(b, before, sums):
        if accumulates_in_place(total):
            return sums  # `total` is where they began
        return b.add(before, add_pairs(b, sums) if DOT_ELEMENT == "i16" else sums)

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
        for t, number in enumerate(numbers_of_tokens(b, scale, stride, tile, F32, token_scale)):
            for p in range(tile.panels):
                i, own = p * tile.tokens + t, operand(b, scales, sig.args[2], tile, p, t)
                out[i] = emit_fma(b, b.fmul(own, number), _to_float(b, sums[i], sig.args[1]), out[i])
        return tile_of(b, out, tile)

    return acc(acc, dots, weight_scale, types.intp, types.intp), generate


@intrinsic
def fma_numbers(context, acc, weights, number, stride):
    """acc[p][t] += weights[p] * number[t], all float32, where number is an address."""
    def generate(context, b, sig, args):
        tile, (acc, weights, number, stride) = sig.return_type, args
        out, rows = vectors_of(b, acc, tile), vectors_of(b, weights, sig.args[1])
        for t, value in enumerate(numbers_of_tokens(b, number, stride, tile, F32, token_scale)):
            for p in range(tile.panels):
                i = p * tile.tokens + t
                out[i] = emit_fma(b, operand(b, rows, sig.args[1], tile, p, t), value, out[i])
        return tile_of(b, out, tile)

    return acc(acc, weights, types.intp, types.intp), generate


@intrinsic
def add_scaled(context, acc, sums, scale, stride):
    """acc[p][t] += sums[p][t] * scale[t], all float32, where scale is an address."""
    def generate(context, b, sig, args):
        tile, (acc, sums, scale, stride) = sig.return_type, args
        out, terms = vectors_of(b, acc, tile), vectors_of(b, sums, tile)
        for t, factor in enumerate(numbers_of_tokens(b, scale, stride, tile, F32, token_scale)):
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
        for t, number in enumerate(numbers_of_tokens(b, args[5], args[6], tile, F32, token_scale)):
            for p in range(tile.panels):
                i = p * tile.tokens + t
                first = operand(b, one_scale, sig.args[3], tile, p, t)
                second = operand(b, two_scale, sig.args[4], tile, p, t)
                sums = b.fmul(first, _to_float(b, one[i], sig.args[1]))
                sums = emit_fma(b, second, _to_float(b, two[i], sig.args[2]), sums)
                out[i] = emit_fma(b, number, sums, out[i])
        return tile_of(b, out, tile)

    return acc(acc, first, second, first_scale, second_scale, types.intp, types.intp), generate
