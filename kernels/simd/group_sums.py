"""Sums of products of groups of weights, each with an integer scale of its own."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .types import I16, I32, I64, ISA, LANES, PIECE, Tile
from .x86_products import multiply_pairs
from .arm_products import add_narrow, half_of, in_halves, loaded_zeros, narrow_both, smlal
from .dot_products import DOT_ELEMENT, SMALL_CODES, accumulates_in_place, emit_dot2, numbers_of_tokens
from .emit import broadcast, constant, hide, lane_of, literal_of, load_from, load_lanes, operand, tile_of, token_at
from .emit import vectors_of
from .arithmetic import elementwise


@intrinsic
def group_sums(context, total):
    """`partial_sums` of a group of scaled codes."""
    tile = total.of(DOT_ELEMENT)
    return tile(total), lambda context, b, sig, args: (
        args[0] if accumulates_in_place(total) and not SMALL_CODES
        else ir.Constant(ir.ArrayType(tile.vector, tile.size), None))


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
        return b.add(total, multiply_pairs(b, sums, b.bitcast(twice, sums.type)))

    return emit


def _group_adder(high):
    @intrinsic
    def add(context, total, sums, scales):
        """total + sums * scale, int32. The scale is the first or the second of two int16, scales [panels][1]."""
        if not total.matrix:
            return elementwise(_emit_add(high))((total, sums, scales))

        def generate(context, b, sig, args):
            totals, parts = vectors_of(b, args[0], total), vectors_of(b, args[1], sums)
            rows = [_scale_of(b, vector, high) for vector in vectors_of(b, args[2], scales)]
            factors = [operand(b, rows, scales, total, p, t) for p in range(total.panels) for t in range(total.tokens)]
            return tile_of(b, [b.add(old, b.mul(part, factor))
                               for old, part, factor in zip(totals, parts, factors, strict=True)], total)

        return total(total, sums, scales), generate

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
    return tile(like), lambda context, b, sig, args: (
        loaded_zeros(b, tile) if ISA.arm else ir.Constant(ir.ArrayType(tile.vector, tile.size), None))


def _emit_pair(b, total, first, second, scales, biases=None):
    if ISA.arm:  # these take the narrow halves of sums; `begin_first` and `begin_second` have added biases
        # Or LLVM would take the scales from two registers, and have to move the second half of the sums.
        scales = hide(b, in_halves(b, scales))
        sums = narrow_both(b, first, second)
        for half in (0, 1):
            total = smlal(b, total, half_of(b, sums, half), half_of(b, scales, half))
        return total
    if DOT_ELEMENT == "i16":
        total = _emit_add(True)(b, _emit_add(False)(b, total, first, scales), second, scales)
        return emit_dot2(b, total, scales, biases) if biases else total
    both = b.or_(b.shl(second, constant(second.type, 16)), b.and_(first, constant(first.type, 0xFFFF)))
    both = b.bitcast(both, scales.type)
    return emit_dot2(b, total, b.add(both, b.bitcast(biases, scales.type)) if biases else both, scales)


def _beginning(high):
    @intrinsic
    def begin(context, like, biases, stride):
        """Sums for `dot4` that go to `add_biased_pair` as its `first` or its `second`, with the same biases."""
        tile = like.of(DOT_ELEMENT)

        def generate(context, b, sig, args):
            if not (ISA.arm or tile.paired):
                return ir.Constant(ir.ArrayType(tile.vector, tile.size), None)
            _, address, stride = args
            if tile.paired:
                own = b.add(address, I64(2 * PIECE * int(high)))
                return tile_of(b, [*numbers_of_tokens(b, own, stride, tile, I32, None)] * tile.panels, tile)
            tokens = []
            for t in range(tile.tokens):
                pair = load_lanes(b, token_at(b, address, stride, t, tile), I16, 2)
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
        pairs = [broadcast(b, load_from(b, token_at(b, args[4], args[5], t, total), I32), LANES)
                 for t in range(total.tokens)]
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
            return add_narrow(b, before, sums, scale)
        if DOT_ELEMENT == "i16":
            return b.add(before, multiply_pairs(b, sums, scale))
        return sums if accumulates_in_place(total) else b.add(before, sums)

    return elementwise(emit)((total, partial, scales))
