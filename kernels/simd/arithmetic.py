"""Arithmetic on tiles, and sums and maxima over the lanes of a vector."""

from __future__ import annotations

import functools
import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from .types import F32, I16, I32, ISA, LANES, Tile
from .emit import broadcast, call_function, constant, emit_fma, literal_of, operand, result_tile, tile_of, type_name
from .emit import vectors_of


def elementwise(emit, result=None):
    """An intrinsic that applies emit(builder, *vectors) to broadcast tiles. result: the element type, if it differs."""

    def build(tiles):
        out = result_tile(result or tiles[0].element, *tiles)

        def generate(context, b, sig, args):
            parts = [vectors_of(b, value, tile) for value, tile in zip(args, sig.args, strict=True)]
            return tile_of(b, [emit(b, *(operand(b, v, t, out, p, n) for v, t in zip(parts, sig.args, strict=True)))
                               for p in range(out.panels) for n in range(out.tokens)], out)

        return out(*tiles), generate

    return build


def unary(emit, result=None):
    build = elementwise(emit, result)

    @intrinsic
    def operation(context, x):
        return build((x,))

    return operation


def _binary(emit, result=None):
    build = elementwise(emit, result)

    @intrinsic
    def operation(context, x, y):
        return build((x, y))

    return operation


def float_call(name):
    return lambda b, *args: call_function(b, f"llvm.{name}.{type_name(args[0].type)}", args[0].type, *args)


absolute = unary(float_call("fabs"))
rint = unary(float_call("rint"))  # half to even
square_root = unary(float_call("sqrt"))
# The larger and the smaller of two. The result is NaN where x is NaN.
maximum = _binary(lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), y, x))
minimum = _binary(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), y, x))
to_i32 = unary(lambda b, x: b.fptosi(x, Tile("i32").vector), "i32")
to_f32 = unary(lambda b, x: b.sitofp(x, Tile("f32").vector), "f32")
round_f16 = unary(lambda b, x: b.fpext(b.fptrunc(x, Tile("f16").vector), x.type))  # half to even
bits_as_f32 = unary(lambda b, x: b.bitcast(x, Tile("f32").vector), "f32")
f32_as_bits = unary(lambda b, x: b.bitcast(x, Tile("i32").vector), "i32")


def steps(thresholds, values):
    """An intrinsic: values[i] for each float32 that is above i of the ascending thresholds; values[0] for a NaN."""
    def emit(b, x):
        out = constant(x.type, values[0])
        for threshold, value in zip(thresholds, values[1:], strict=True):
            above = b.fcmp_ordered(">", x, constant(x.type, threshold))
            out = b.select(above, constant(x.type, value), out)
        return out

    return unary(emit)


@intrinsic
def fma(context, x, y, z):
    """x * y + z, rounded once."""
    return elementwise(emit_fma)((x, y, z))


@intrinsic(prefer_literal=True)
def bits(context, x, shift, mask):
    """x >> shift (x << -shift if negative) & mask, for each byte of x; shift and mask are literals."""
    count, by = -literal_of(shift), literal_of(mask)

    def emit(b, v):
        # x86 shifts no bytes: shift 16-bit lanes, the mask drops what crosses over.
        halves = v.type if ISA.arm else ir.VectorType(I16, v.type.count // 2)
        if count:
            amount = constant(halves, abs(count))
            wide = b.bitcast(v, halves)
            v = b.bitcast(b.shl(wide, amount) if count > 0 else b.lshr(wide, amount), v.type)
        return b.and_(v, constant(v.type, by))

    out, generate = elementwise(emit)((x,))
    return out.return_type(x, shift, mask), lambda context, b, sig, args: generate(context, b, out, args[:1])


@intrinsic(prefer_literal=True)
def add_to_bytes(context, x, number):
    """x + number for each byte of x; number is a literal."""
    amount = literal_of(number) & 255
    out, generate = elementwise(lambda b, v: b.add(v, constant(v.type, amount)))((x,))
    return out.return_type(x, number), lambda context, b, sig, args: generate(context, b, out, args[:1])


HIGH_SHIFT = 7  # a number of 14 bits is low + (high << HIGH_SHIFT), with -64 <= low < 64


def _plane(of):
    @intrinsic(prefer_literal=True)
    def plane(context, codes, scales, which, offset):
        """(code - offset) * scale for each byte, in 14 bits, of which it gives the low or the high ones as a byte.

        scales: two int16 in each lane, of which `which`, 0 or 1, names one. offset: a literal.
        """
        zero = literal_of(offset)

        def generate(context, b, sig, args):
            amount = broadcast(b, b.trunc(b.shl(args[2], args[2].type(4)), I32), LANES)

            def emit(b, v, s):
                scale = b.and_(b.lshr(b.bitcast(s, amount.type), amount), constant(amount.type, 0xFFFF))
                scale = b.bitcast(b.or_(scale, b.shl(scale, constant(scale.type, 16))), s.type)
                pairs = b.bitcast(v, s.type)
                halves = b.and_(pairs, constant(s.type, 255)), b.lshr(pairs, constant(s.type, 8))
                even, odd = (of(b, b.mul(b.sub(half, constant(s.type, zero)), scale)) for half in halves)
                both = b.or_(b.and_(even, constant(s.type, 255)), b.shl(odd, constant(s.type, 8)))
                return b.bitcast(both, v.type)

            out, apply = elementwise(emit)((codes, scales))
            return apply(context, b, out, args[:2])

        return codes(codes, scales, types.int64, offset), generate

    return plane


def _high(b, x):
    return b.ashr(b.add(x, constant(x.type, 1 << HIGH_SHIFT - 1)), constant(x.type, HIGH_SHIFT))


high_plane = _plane(_high)
low_plane = _plane(lambda b, x: b.sub(x, b.shl(_high(b, x), constant(x.type, HIGH_SHIFT))))


def _operator(op, on_float, on_int):
    """Define one of Python's operators for tiles."""
    build = elementwise(lambda b, x, y: getattr(b, on_float if x.type.element == F32 else on_int)(x, y))

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            return build(args)[0] if len(args) == 2 and all(isinstance(a, Tile) for a in args) else None

    @lower_builtin(op, Tile, Tile)
    def _lower(context, b, sig, args):
        return build(sig.args)[1](context, b, sig, args)


_operator(operator.add, "fadd", "add")
_operator(operator.sub, "fsub", "sub")
_operator(operator.mul, "fmul", "mul")
_operator(operator.truediv, "fdiv", "sdiv")
_operator(operator.or_, "or_", "or_")
_operator(operator.and_, "and_", "and_")
_operator(operator.lshift, "shl", "shl")
_operator(operator.rshift, "ashr", "ashr")


@intrinsic
def where_greater(context, x, y, one, other):
    """one where x > y, else other."""
    return elementwise(lambda b, x, y, one, other: b.select(b.fcmp_ordered(">", x, y), one, other), one.element)(
        (x, y, one, other))


@intrinsic
def select_or_zero(context, flag, tile):
    """The float32 tile if flag is 1, zeros if flag is 0, even where the tile has NaNs. There is no branch."""
    def generate(context, b, sig, args):
        wide = Tile("i32").vector
        mask = broadcast(b, b.neg(b.trunc(args[0], I32)), LANES)
        vectors = [b.bitcast(b.and_(b.bitcast(v, wide), mask), tile.vector) for v in vectors_of(b, args[1], tile)]
        return tile_of(b, vectors, tile)

    return tile(types.int64, tile), generate


def _reducer(name, scalar, combine, *start):
    @intrinsic
    def reduce(context, tile):
        """Reduce all lanes of a tile, in an order that depends on its shape only."""
        def generate(context, b, sig, args):
            vector = functools.reduce(functools.partial(combine, b), vectors_of(b, args[0], tile))
            operands = [ir.Constant(F32, number) for number in start] + [vector]
            # "reassoc" allows a tree instead of one long chain.
            return call_function(b, f"llvm.vector.reduce.{name}.{type_name(vector.type)}", vector.type.element,
                                 *operands, fastmath=("reassoc",) if start else ())

        return scalar(tile), generate

    return reduce


reduce_add = _reducer("fadd", types.float32, lambda b, x, y: b.fadd(x, y), -0.0)
reduce_add_i32 = _reducer("add", types.int32, lambda b, x, y: b.add(x, y))


@intrinsic
def reduce_max(context, tile):
    """The largest lane of a float32 tile without NaN, by halving. LLVM's own reduction compares lane by lane."""
    def generate(context, b, sig, args):
        vector, *others = vectors_of(b, args[0], tile)
        for other in others:
            vector = b.select(b.fcmp_ordered("<", vector, other), other, vector)
        while vector.type.count > 1:
            half = vector.type.count // 2
            parts = [ir.Constant(ir.VectorType(I32, half), list(range(i, i + half))) for i in (0, half)]
            low, high = (b.shuffle_vector(vector, vector, part) for part in parts)
            vector = b.select(b.fcmp_ordered("<", low, high), high, low)
        return b.extract_element(vector, I32(0))

    return types.float32(tile), generate


round_half_away = unary(float_call("round"))  # to whole numbers, halves away from zero


@intrinsic
def at_argmax(context, scores, x):
    """x at argmax(scores), over all lanes and vectors. Both are float32 of one shape; scores must have no NaN."""
    def better(b, one, other):
        behind = b.fcmp_ordered("<", one[0], other[0])
        return [b.select(behind, v, w) for v, w in zip(other, one, strict=True)]

    def generate(context, b, sig, args):
        parts = [vectors_of(b, value, tile) for value, tile in zip(args, sig.args, strict=True)]
        first, *rest = zip(*parts, strict=True)
        for pair in rest:
            first = better(b, first, pair)
        width = LANES
        while width > 1:
            width //= 2
            low, high = (ir.Constant(ir.VectorType(I32, width), list(range(i, i + width))) for i in (0, width))
            first = better(b, *([b.shuffle_vector(v, v, part) for v in first] for part in (low, high)))
        return b.extract_element(first[1], I32(0))

    return types.float32(scores, x), generate
