"""Explicit SIMD for Numba: vectors and tiles as Numba types, their operations as intrinsics.

A `Tile` is a small array of SIMD vectors, [panels][tokens], kept in registers. Operations broadcast over both axes as
NumPy does: a weight is [panels][1], an activation [1][tokens], an accumulator [panels][tokens], a plain vector [1][1].
Addresses are integers. All LLVM IR of the project is in this file, so that kernels are plain Python.
"""

from __future__ import annotations

import operator
import platform
import sys
from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from .isa import TILES, active

ISA = active()
LANES = ISA.lanes
_CACHE_LINE = 64
_INDEPENDENT_SUMS = 8  # so many accumulators hide the latency of each other's dot products
DOT_ELEMENT = "i16" if ISA.dot == "maddubs" else "i32"  # the element type of `dot4`'s partial sums

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()


class _BFloatType(ir.Type):
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloatType)

    def __hash__(self):
        return hash(_BFloatType)


_ELEMENTS = {"i8": I8, "i16": I16, "i32": I32, "f16": F16, "f32": F32}
_PER_LANE = {"i8": 4, "i16": 2, "i32": 1, "f16": 1, "f32": 1}  # i8 and i16 fill a whole vector, f16 is half of one


class Tile(types.Type):
    """[panels][tokens] vectors, each as wide as the machine's (f16: half as wide)."""

    def __init__(self, element: str, panels: int = 1, tokens: int = 1) -> None:
        self.element, self.panels, self.tokens = element, panels, tokens
        self.vector = ir.VectorType(_ELEMENTS[element], LANES * _PER_LANE[element])
        super().__init__(name=f"Tile({element}x{LANES}[{panels}][{tokens}])")

    @property
    def size(self) -> int:
        return self.panels * self.tokens

    def of(self, element: str) -> Tile:
        return Tile(element, self.panels, self.tokens)


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, tile):
        super().__init__(manager, tile, ir.ArrayType(tile.vector, tile.size))


# ---- helpers that emit IR ----


def _literal(ty):
    if not isinstance(ty, types.IntegerLiteral):
        raise TypingError("this operand must be a literal or a global constant")
    return ty.literal_value


def _unpack(b, value, tile):
    return [b.extract_value(value, i) for i in range(tile.size)]


def _pack(b, vectors, tile):
    value = ir.Constant(ir.ArrayType(tile.vector, tile.size), ir.Undefined)
    for i, vector in enumerate(vectors):
        value = b.insert_value(value, vector, i)
    return value


def _at(vectors, tile, panel, token):
    """The vector at [panel][token], broadcast along axes of length one."""
    return vectors[(panel if tile.panels > 1 else 0) * tile.tokens + (token if tile.tokens > 1 else 0)]


def _constant(vector, number):
    return ir.Constant(vector, [number] * vector.count)


def _splat(b, scalar, count):
    undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    first = b.insert_element(undefined, scalar, I32(0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, count), [0] * count))


def _load(b, address, ty):
    load = b.load(b.inttoptr(address, ty.as_pointer()))
    load.align = 1
    return load


def _store(b, value, address):
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 1


def _offset(b, address, stride, times):
    return address if times == 0 else b.add(address, b.mul(stride, I64(times)))


def _call(b, name, result, *args, fastmath=()):
    function = ir.FunctionType(result, [a.type for a in args])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), args, fastmath=fastmath)


def _name(vector):
    return f"v{vector.count}{ {I8: 'i8', I16: 'i16', I32: 'i32', F16: 'f16', F32: 'f32'}[vector.element] }"


def _fma(b, x, y, z):
    # Without FMA instructions llvm.fma would call libm once per lane: there, let LLVM multiply and add.
    operation = "fma" if ISA.dot != "generic" else "fmuladd"
    return _call(b, f"llvm.{operation}.{_name(x.type)}", x.type, x, y, z)


def _result(element, *tiles):
    return Tile(element, max(t.panels for t in tiles), max(t.tokens for t in tiles))


# ---- elementwise operations ----


def _elementwise(emit, result=None):
    """An intrinsic that applies emit(builder, *vectors) to broadcast tiles. result: the element type, if it differs."""

    def build(tiles):
        out = _result(result or tiles[0].element, *tiles)

        def generate(context, b, sig, args):
            parts = [_unpack(b, value, tile) for value, tile in zip(args, sig.args, strict=True)]
            return _pack(b, [emit(b, *(_at(v, t, p, n) for v, t in zip(parts, sig.args, strict=True)))
                             for p in range(out.panels) for n in range(out.tokens)], out)

        return out(*tiles), generate

    return build


def _unary(emit, result=None):
    build = _elementwise(emit, result)

    @intrinsic
    def operation(context, x):
        return build((x,))

    return operation


def _binary(emit, result=None):
    build = _elementwise(emit, result)

    @intrinsic
    def operation(context, x, y):
        return build((x, y))

    return operation


def _float_call(name):
    return lambda b, *args: _call(b, f"llvm.{name}.{_name(args[0].type)}", args[0].type, *args)


absolute = _unary(_float_call("fabs"))
rint = _unary(_float_call("rint"))  # half to even
# The larger and the smaller of two. The result is NaN where x is NaN.
maximum = _binary(lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), y, x))
minimum = _binary(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), y, x))
to_i32 = _unary(lambda b, x: b.fptosi(x, Tile("i32").vector), "i32")
round_f16 = _unary(lambda b, x: b.fpext(b.fptrunc(x, Tile("f16").vector), x.type))  # half to even
bits_as_f32 = _unary(lambda b, x: b.bitcast(x, Tile("f32").vector), "f32")


@intrinsic
def fma(context, x, y, z):
    """x * y + z, rounded once."""
    return _elementwise(_fma)((x, y, z))


@intrinsic(prefer_literal=True)
def bits(context, x, shift, mask):
    """x >> shift (x << -shift if negative) & mask, for each byte of x; shift and mask are literals."""
    count, by = -_literal(shift), _literal(mask)

    def emit(b, v):
        # x86 shifts no bytes: shift 16-bit lanes, the mask drops what crosses over.
        halves = ir.VectorType(I16, v.type.count // 2)
        if count:
            amount = _constant(halves, abs(count))
            wide = b.bitcast(v, halves)
            v = b.bitcast(b.shl(wide, amount) if count > 0 else b.lshr(wide, amount), v.type)
        return b.and_(v, _constant(v.type, by))

    out, generate = _elementwise(emit)((x,))
    return out.return_type(x, shift, mask), lambda context, b, sig, args: generate(context, b, out, args[:1])


def _operator(op, on_float, on_int):
    """Define one of Python's operators for tiles."""
    build = _elementwise(lambda b, x, y: getattr(b, on_float if x.type.element == F32 else on_int)(x, y))

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
_operator(operator.lshift, "shl", "shl")


# ---- making, loading and storing ----


@intrinsic(prefer_literal=True)
def zeros(context, panels, tokens):
    """A float32 accumulator of literal shape [panels][tokens]."""
    tile = Tile("f32", _literal(panels), _literal(tokens))
    return tile(panels, tokens), lambda context, b, sig, args: ir.Constant(ir.ArrayType(tile.vector, tile.size), None)


def _zeros_like(element):
    @intrinsic
    def zeros_like(context, like):
        tile = like.of(element)
        return tile(like), lambda context, b, sig, args: ir.Constant(ir.ArrayType(tile.vector, tile.size), None)

    return zeros_like


zeros_f32 = _zeros_like("f32")
zeros_i32 = _zeros_like("i32")


@intrinsic
def panels_of(context, tile):
    """The number of panels in a tile's shape: a constant when compiling."""
    return types.int64(tile), lambda context, b, sig, args: I64(sig.args[0].panels)


def _splat_scalar(scalar, element):
    @intrinsic
    def splat(context, x):
        tile = Tile(element)
        return tile(scalar), lambda context, b, sig, args: _pack(b, [_splat(b, args[0], LANES)], tile)

    return splat


splat_f32 = _splat_scalar(types.float32, "f32")
splat_i32 = _splat_scalar(types.int32, "i32")


@intrinsic
def load_f32(context, address):
    """One vector."""
    tile = Tile("f32")
    return tile(types.intp), lambda context, b, sig, args: _pack(b, [_load(b, args[0], tile.vector)], tile)


def _panel_loader(element, stored, convert=lambda b, x: x):
    """load(like, address, panel stride) -> [panels of like][1]: a vector of each panel."""
    count = Tile("i8").vector.count if element == "i8" else LANES

    @intrinsic
    def load(context, like, address, stride):
        tile = Tile(element, like.panels)
        vector = ir.VectorType(stored, count)
        return tile(like, types.intp, types.intp), lambda context, b, sig, args: _pack(
            b, [convert(b, _load(b, _offset(b, args[1], args[2], p), vector)) for p in range(tile.panels)], tile)

    return load


def _bf16_to_f32(b, x):
    wide = Tile("i32").vector
    return b.bitcast(b.shl(b.zext(x, wide), _constant(wide, 16)), Tile("f32").vector)


def _low_bf16(b, x):
    return b.bitcast(b.shl(x, _constant(x.type, 16)), Tile("f32").vector)


def _high_bf16(b, x):
    return b.bitcast(b.and_(x, _constant(x.type, -65536)), Tile("f32").vector)


panel_bytes = _panel_loader("i8", I8)  # 4 bytes a lane
panel_f32 = _panel_loader("f32", F32)
panel_f16 = _panel_loader("f32", F16, lambda b, x: b.fpext(x, Tile("f32").vector))
panel_bf16 = _panel_loader("f32", I16, _bf16_to_f32)
panel_low_bf16 = _panel_loader("f32", I32, _low_bf16)  # of two bfloat16 in a lane
panel_high_bf16 = _panel_loader("f32", I32, _high_bf16)
panel_i8 = _panel_loader("f32", I8, lambda b, x: b.sitofp(x, Tile("f32").vector))  # one byte a lane


@intrinsic
def select_or_zero(context, flag, tile):
    """The float32 tile if flag is 1, zeros if flag is 0, even where the tile has NaNs. There is no branch."""
    def generate(context, b, sig, args):
        wide = Tile("i32").vector
        mask = _splat(b, b.neg(b.trunc(args[0], I32)), LANES)
        vectors = [b.bitcast(b.and_(b.bitcast(v, wide), mask), tile.vector) for v in _unpack(b, args[1], tile)]
        return _pack(b, vectors, tile)

    return tile(types.int64, tile), generate


@intrinsic
def load_tile(context, like, address, panel_stride, token_stride):
    """float32 vectors of like's shape: [panel][token] is at address + panel * panel_stride + token * token_stride."""
    def generate(context, b, sig, args):
        tile, (_, address, panel_stride, token_stride) = sig.return_type, args
        return _pack(b, [_load(b, _offset(b, _offset(b, address, panel_stride, p), token_stride, t), tile.vector)
                         for p in range(tile.panels) for t in range(tile.tokens)], tile)

    return like(like, types.intp, types.intp, types.intp), generate


@intrinsic
def store_tile(context, tile, address, panel_stride, token_stride):
    """Store each vector [panel][token] at address + panel * panel_stride + token * token_stride."""
    def generate(context, b, sig, args):
        tile, (value, address, panel_stride, token_stride) = sig.args[0], args
        vectors = _unpack(b, value, tile)
        for p in range(tile.panels):
            for t in range(tile.tokens):
                _store(b, vectors[p * tile.tokens + t],
                       _offset(b, _offset(b, address, panel_stride, p), token_stride, t))
        return context.get_dummy_value()

    return types.void(tile, types.intp, types.intp, types.intp), generate


def _storer(convert):
    @intrinsic
    def store(context, address, tile):
        def generate(context, b, sig, args):
            _store(b, convert(b, b.extract_value(args[1], 0)), args[0])
            return context.get_dummy_value()

        return types.void(types.intp, tile), generate

    return store


store_f32 = _storer(lambda b, x: x)
store_f16 = _storer(lambda b, x: b.fptrunc(x, Tile("f16").vector))  # rounded half to even
store_i8 = _storer(lambda b, x: b.trunc(x, ir.VectorType(I8, LANES)))  # from i32: one byte a lane


def _to_bf16(b, x):
    wide = Tile("i32").vector
    word = b.bitcast(x, wide)
    odd = b.and_(b.lshr(word, _constant(wide, 16)), _constant(wide, 1))
    nearest = b.add(b.add(word, _constant(wide, 0x7FFF)), odd)
    quiet = b.or_(word, _constant(wide, 0x400000))
    return b.trunc(b.lshr(b.select(b.fcmp_unordered("uno", x, x), quiet, nearest), _constant(wide, 16)),
                   ir.VectorType(I16, LANES))


store_bf16 = _storer(_to_bf16)  # from float32, rounded half to even; a NaN stays one


def _reducer(name, scalar, *start):
    @intrinsic
    def reduce(context, tile):
        """Reduce the lanes of one vector, in an order that depends on its width only."""
        def generate(context, b, sig, args):
            vector = b.extract_value(args[0], 0)
            operands = [ir.Constant(F32, number) for number in start] + [vector]
            # "reassoc" allows a tree instead of one long chain.
            return _call(b, f"llvm.vector.reduce.{name}.{_name(vector.type)}", vector.type.element, *operands,
                         fastmath=("reassoc",) if start else ())

        return scalar(tile), generate

    return reduce


reduce_add = _reducer("fadd", types.float32, -0.0)
reduce_add_i32 = _reducer("add", types.int32)


@intrinsic
def reduce_max(context, tile):
    """The largest lane of a float32 vector without NaN, by halving. LLVM's own reduction compares lane by lane."""
    def generate(context, b, sig, args):
        vector = b.extract_value(args[0], 0)
        while vector.type.count > 1:
            half = vector.type.count // 2
            parts = [ir.Constant(ir.VectorType(I32, half), list(range(i, i + half))) for i in (0, half)]
            low, high = (b.shuffle_vector(vector, vector, part) for part in parts)
            vector = b.select(b.fcmp_ordered("<", low, high), high, low)
        return b.extract_element(vector, I32(0))

    return types.float32(tile), generate


# ---- matmul: weights are values [panels][1], activations stay in memory, one row for each token ----


def _multiply_accumulate(element, emit):
    """intrinsic(acc, weights, x, stride) -> acc with acc[p][t] = emit(b, acc[p][t], weights[p], token t).

    Token t is the 4 bytes at x + t * stride, broadcast to every lane. The loop over tokens is the outer one: each token
    is loaded once, and its register is soon free again.
    """

    @intrinsic
    def operation(context, acc, weights, x, stride):
        def generate(context, b, sig, args):
            tile, (acc, weights, x, stride) = sig.return_type, args
            out, rows = _unpack(b, acc, tile), _unpack(b, weights, sig.args[1])
            for t in range(tile.tokens):
                token = _splat(b, _load(b, _offset(b, x, stride, t), element), LANES)
                for p in range(tile.panels):
                    out[p * tile.tokens + t] = emit(b, out[p * tile.tokens + t], rows[p], token)
            return _pack(b, out, tile)

        return acc(acc, weights, types.intp, types.intp), generate

    return operation


def _vpdpbusd(b, acc, weights, token):
    return _call(b, f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", acc.type, acc, weights, b.bitcast(token, weights.type))


def _maddubs(b, unsigned, signed):
    return _call(b, "llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(I16, 2 * LANES), unsigned, signed)


def _add_pairs(b, x):
    wide = Tile("i32").vector
    return _call(b, "llvm.x86.avx2.pmadd.wd", wide, x, _constant(x.type, 1))


def _generic_dot(extend, extend_token="sext"):
    def emit(b, acc, weights, token):
        wide = ir.VectorType(I32, 4 * LANES)
        token = b.bitcast(token, weights.type)
        products = b.mul(getattr(b, extend)(weights, wide), getattr(b, extend_token)(token, wide))
        for _ in range(2):  # add neighbours, twice
            half = products.type.count // 2
            even, odd = (ir.Constant(ir.VectorType(I32, half), list(range(i, 2 * half, 2))) for i in (0, 1))
            products = b.add(b.shuffle_vector(products, products, even), b.shuffle_vector(products, products, odd))
        return b.add(acc, products)

    return emit


def _maddubs_dot(b, acc, weights, token):
    return b.add(acc, _maddubs(b, weights, b.bitcast(token, weights.type)))


def _maddubs_signed_dot(b, acc, weights, token):
    signs = _call(b, "llvm.x86.avx2.psign.b", weights.type, b.bitcast(token, weights.type), weights)
    magnitude = _call(b, f"llvm.abs.{_name(weights.type)}", weights.type, weights, ir.IntType(1)(0))
    return b.add(acc, _add_pairs(b, _maddubs(b, magnitude, signs)))


def _maddubs_unsigned_token(b, acc, weights, token):
    return b.add(acc, _add_pairs(b, _maddubs(b, b.bitcast(token, weights.type), weights)))


def _vpdpbusd_unsigned_token(b, acc, weights, token):
    return _vpdpbusd(b, acc, b.bitcast(token, weights.type), weights)


def _vdpbf16ps(b, acc, weights, token):
    pairs = ir.VectorType(_BFloatType(), 2 * LANES)
    return _call(b, f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}", acc.type, acc, b.bitcast(weights, pairs),
                 b.bitcast(token, pairs))


fma_tokens = _multiply_accumulate(F32, lambda b, acc, weights, token: _fma(b, weights, token, acc))
dot2_bf16 = _multiply_accumulate(I32, _vdpbf16ps)  # acc[p][t] += sum of 2 products of bfloat16; only where ISA.bf16
# acc[p][t] += sum of 4 products, with unsigned weights and int8 activations. acc comes from `partial_sums` and goes to
# `add_partial_sums`. On AVX2 it has 16 bits, which cannot overflow in 32 calls with weights up to 3, in 8 calls with
# weights up to 15, in 4 with weights up to 31, or in 2 with weights up to 63.
dot4 = _multiply_accumulate(I32, {"vnni": _vpdpbusd, "maddubs": _maddubs_dot, "generic": _generic_dot("zext")}[ISA.dot])
# The same for int8 weights, which are stored with SIGNED_OFFSET added. acc is int32 on every path.
dot4_signed = _multiply_accumulate(
    I32, {"vnni": _vpdpbusd, "maddubs": _maddubs_signed_dot, "generic": _generic_dot("sext")}[ISA.dot])
SIGNED_OFFSET = 128 if ISA.dot == "vnni" else 0
# The same for int8 weights as they are and activations of 0 to LARGEST_UNSIGNED. acc is int32 on every path.
dot4_unsigned = _multiply_accumulate(
    I32, {"vnni": _vpdpbusd_unsigned_token, "maddubs": _maddubs_unsigned_token,
          "generic": _generic_dot("sext", "zext")}[ISA.dot])
LARGEST_UNSIGNED = 127 if ISA.dot == "maddubs" else 255


@intrinsic
def init_from_bias(context, acc, bias, stride):
    """int32 accumulators of acc's shape. Those of token t start at the int32 at bias + t * stride."""
    def generate(context, b, sig, args):
        tile, (_, bias, stride) = sig.return_type, args
        tokens = [_splat(b, _load(b, _offset(b, bias, stride, t), I32), LANES) for t in range(tile.tokens)]
        return _pack(b, tokens * tile.panels, tile)

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

    return _elementwise(emit)((total, partial))


@intrinsic
def scale_add(context, acc, dots, weight_scale, scale, stride):
    """acc[p][t] += (weight_scale[p] * scale[t]) * dots[p][t], where scale is the address of a float32.

    The product of two scales that are float16 values is exact.
    """
    def generate(context, b, sig, args):
        tile, (acc, dots, weight_scale, scale, stride) = sig.return_type, args
        out, sums, scales = _unpack(b, acc, tile), _unpack(b, dots, tile), _unpack(b, weight_scale, sig.args[2])
        for t in range(tile.tokens):
            token_scale = _splat(b, _load(b, _offset(b, scale, stride, t), F32), LANES)
            for p in range(tile.panels):
                i = p * tile.tokens + t
                out[i] = _fma(b, b.fmul(scales[p], token_scale), b.sitofp(sums[i], tile.vector), out[i])
        return _pack(b, out, tile)

    return acc(acc, dots, weight_scale, types.intp, types.intp), generate


@intrinsic
def prefetch_address(context, like, panel, end, stride):
    """The address from which prefetch distances count, for a tile that has come to `panel`.

    It is `panel` itself; in the last bytes before the `end` of a panel, the same place in the next tile's panels.
    """
    def generate(context, b, sig, args):
        _, panel, end, stride = args
        if like.panels == 1:
            return panel
        inside = b.icmp_unsigned("<", b.add(panel, I64(ISA.prefetch.margin)), end)
        return b.select(inside, panel, b.add(panel, b.mul(stride, I64(like.panels - 1))))

    return types.intp(like, types.intp, types.intp, types.intp), generate


def _prefetcher(distances):
    @intrinsic(prefer_literal=True)
    def prefetch(context, like, address, stride, size):
        """Prefetch `size` (literal) bytes of each panel of a tile, at the processor's distances from `address`."""
        reach = _literal(size)

        def generate(context, b, sig, args):
            for panel, (distance, level) in product(range(like.panels), distances[TILES.index(like.tokens)]):
                for i in range(distance, distance + reach, _CACHE_LINE):
                    pointer = b.inttoptr(b.add(_offset(b, args[1], args[2], panel), I64(i)), I8.as_pointer())
                    _call(b, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(4 - level), I32(1))
            return context.get_dummy_value()

        return types.void(like, types.intp, types.intp, size), generate

    return prefetch


prefetch_direct = _prefetcher(ISA.prefetch.direct)
prefetch_unpacked = _prefetcher(ISA.prefetch.unpacked)
prefetch_grouped = _prefetcher(ISA.prefetch.grouped)


# ---- scalars in memory, calls by address, and what threads need ----


def _scalar_access(ty, element):
    @intrinsic
    def get(context, address):
        return ty(types.intp), lambda context, b, sig, args: _load(b, args[0], element)

    @intrinsic
    def put(context, address, value):
        def generate(context, b, sig, args):
            _store(b, args[1], args[0])
            return context.get_dummy_value()

        return types.void(types.intp, ty), generate

    return get, put


get_i64, put_i64 = _scalar_access(types.int64, I64)
get_i32, put_i32 = _scalar_access(types.int32, I32)
get_u16, put_u16 = _scalar_access(types.uint16, I16)
get_u8, put_u8 = _scalar_access(types.uint8, I8)
get_f32, put_f32 = _scalar_access(types.float32, F32)


@intrinsic
def get_f16(context, address):
    """A float16 in memory, as float32."""
    return types.float32(types.intp), lambda context, b, sig, args: b.fpext(_load(b, args[0], F16), F32)


@intrinsic
def nearest_f16(context, value):
    """A float32 rounded to the nearest float16 value, half to even."""
    return types.float32(types.float32), lambda context, b, sig, args: b.fpext(b.fptrunc(args[0], F16), F32)


@intrinsic
def put_f16(context, address, value):
    """Store a float32 as float16, rounded half to even."""
    def generate(context, b, sig, args):
        _store(b, b.fptrunc(args[1], F16), args[0])
        return context.get_dummy_value()

    return types.void(types.intp, types.float32), generate


@intrinsic
def bits_to_float(context, number):
    """The float32 whose bits are the low half of an integer."""
    return types.float32(types.int64), lambda context, b, sig, args: b.bitcast(b.trunc(args[0], I32), F32)


@intrinsic
def atomic_add(context, address, amount):
    """Add, and return the value from before."""
    return types.int64(types.intp, types.int64), lambda context, b, sig, args: b.atomic_rmw(
        "add", b.inttoptr(args[0], I64.as_pointer()), args[1], "acq_rel")


@intrinsic
def atomic_get(context, address):
    return types.int64(types.intp), lambda context, b, sig, args: b.load_atomic(
        b.inttoptr(args[0], I64.as_pointer()), "acquire", 8)


@intrinsic
def atomic_put(context, address, value):
    def generate(context, b, sig, args):
        b.store_atomic(args[1], b.inttoptr(args[0], I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), generate


@intrinsic
def pause(context):
    """The processor's hint that this is a spin loop."""
    def generate(context, b, sig, args):
        if ISA.dot != "generic":
            _call(b, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # of this process only
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None


def _futex(b, *args):
    function = ir.FunctionType(I64, [I64], var_arg=True)
    syscall = cgutils.get_or_insert_function(b.module, function, "syscall")
    b.call(syscall, [I64(_FUTEX), *args])


@intrinsic
def processor_of(context, thread):
    """The number of the processor that runs this thread, or `thread` where the system has no such call."""
    def generate(context, b, sig, args):
        return b.sext(_call(b, "sched_getcpu", I32), I64) if sys.platform == "linux" else args[0]

    return types.int64(types.int64), generate


@intrinsic
def sleep_while(context, address, value):
    """Sleep until `wake_sleepers(address)`, unless the int64 there differs from value; may also return at any time.

    Where the system has no futex, this only yields to another thread.
    """
    def generate(context, b, sig, args):
        if _FUTEX is None:
            _call(b, "SwitchToThread" if sys.platform == "win32" else "sched_yield", I32)
        else:  # it compares the low 32 bits
            _futex(b, args[0], I64(_FUTEX_WAIT), args[1], I64(0))
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), generate


@intrinsic
def wake_sleepers(context, address):
    """Wake all threads that sleep at an address."""
    def generate(context, b, sig, args):
        if _FUTEX is not None:
            _futex(b, args[0], I64(_FUTEX_WAKE), I64(2**31 - 1))
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic(prefer_literal=True)
def call_kernel(context, address, operands, count, work, thread, threads):
    """Call the C function at `address` with (work, thread, threads, *operands), `count` (literal) int64 from memory.

    A kernel may declare fewer operands: in C calling conventions the caller cleans up, and the callee reads only what
    it declares.
    """
    operand_count = _literal(count)

    def generate(context, b, sig, args):
        address, operands, _, *head = args
        values = [_load(b, b.add(operands, I64(8 * i)), I64) for i in range(operand_count)]
        function = ir.FunctionType(ir.VoidType(), [I64] * (len(head) + len(values)))
        b.call(b.inttoptr(address, function.as_pointer()), [*head, *values])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, count, types.intp, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def load_operands(context, address, count):
    """`count` (literal) int64 from memory, as a tuple."""
    operands = types.UniTuple(types.int64, _literal(count))

    def generate(context, b, sig, args):
        return context.make_tuple(b, operands, [_load(b, b.add(args[0], I64(8 * i)), I64)
                                                for i in range(operands.count)])

    return operands(types.intp, count), generate


# ---- fitting blocks ----

round_half_away = _unary(_float_call("round"))  # to whole numbers, halves away from zero


@intrinsic
def at_argmax(context, scores, x):
    """x at argmax(scores), over all lanes and vectors. Both are float32 of one shape; scores must have no NaN."""
    def better(b, one, other):
        behind = b.fcmp_ordered("<", one[0], other[0])
        return [b.select(behind, v, w) for v, w in zip(other, one, strict=True)]

    def generate(context, b, sig, args):
        first, *rest = zip(*(_unpack(b, value, tile) for value, tile in zip(args, sig.args, strict=True)), strict=True)
        for pair in rest:
            first = better(b, first, pair)
        width = LANES
        while width > 1:
            width //= 2
            low, high = (ir.Constant(ir.VectorType(I32, width), list(range(i, i + width))) for i in (0, width))
            first = better(b, *([b.shuffle_vector(v, v, part) for v in first] for part in (low, high)))
        return b.extract_element(first[1], I32(0))

    return types.float32(scores, x), generate


@intrinsic(prefer_literal=True)
def alloca(context, size):
    """The address of `size` (literal) bytes on the stack of the calling function, aligned to a cache line."""
    nbytes = _literal(size)

    def generate(context, b, sig, args):
        memory = cgutils.alloca_once(b, ir.ArrayType(I8, nbytes))
        memory.align = 64
        return b.ptrtoint(memory, I64)

    return types.int64(size), generate
