"""Making, loading and storing tiles, prefetching, and memory on the stack."""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..isa import TILES
from .types import F16, F32, I16, I32, I64, I8, ISA, LANES, PAIRS, Tile
from .emit import broadcast, call_function, constant, literal_of, load_from, offset_by, stack_memory, store_to, tile_of
from .emit import type_name, vectors_of
from .matrices import weights_of_matrix

_CACHE_LINE = 64


@intrinsic(prefer_literal=True)
def zeros(context, panels, tokens):
    """A float32 accumulator of literal shape [panels][tokens]."""
    return _constant_zeros(Tile("f32", literal_of(panels), literal_of(tokens)), panels, tokens)


@intrinsic(prefer_literal=True)
def zeros_of_pairs(context, panels, tokens):
    """The same, for activations that lie as PAIRS says."""
    return _constant_zeros(Tile("f32", literal_of(panels), literal_of(tokens), paired=PAIRS), panels, tokens)


def _constant_zeros(tile, *args):
    return tile(*args), lambda context, b, sig, values: ir.Constant(ir.ArrayType(tile.vector, tile.size), None)


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
        return tile(scalar), lambda context, b, sig, args: tile_of(b, [broadcast(b, args[0], LANES)], tile)

    return splat


splat_f32 = _splat_scalar(types.float32, "f32")
splat_i32 = _splat_scalar(types.int32, "i32")


@intrinsic(prefer_literal=True)
def splat_i16(context, number):
    """A literal."""
    tile = Tile("i16")
    return tile(number), lambda context, b, sig, args: tile_of(b, [constant(tile.vector, literal_of(number))], tile)


@intrinsic
def load_f32(context, address):
    """One vector."""
    tile = Tile("f32")
    return tile(types.intp), lambda context, b, sig, args: tile_of(b, [load_from(b, args[0], tile.vector)], tile)


def _panel_loader(element, stored, convert=lambda b, x: x):
    """load(like, address, panel stride) -> [panels of like][1]: a vector of each panel."""
    count = Tile(element).vector.count

    @intrinsic
    def load(context, like, address, stride):
        tile = Tile(element, like.panels)
        vector = ir.VectorType(stored, count)
        return tile(like, types.intp, types.intp), lambda context, b, sig, args: tile_of(
            b, [convert(b, load_from(b, offset_by(b, args[1], args[2], p), vector)) for p in range(tile.panels)], tile)

    return load


def _bf16_to_f32(b, x):
    wide = Tile("i32").vector
    return b.bitcast(b.shl(b.zext(x, wide), constant(wide, 16)), Tile("f32").vector)


def _u8_to_f32(b, x):
    return b.uitofp(x, Tile("f32").vector)


def _low_bf16(b, x):
    return b.bitcast(b.shl(x, constant(x.type, 16)), Tile("f32").vector)


def _high_bf16(b, x):
    return b.bitcast(b.and_(x, constant(x.type, -65536)), Tile("f32").vector)


def _e8m0_to_f32(b, x):
    wide = Tile("i32").vector
    x = b.zext(x, wide)
    normal = b.shl(b.sub(x, constant(wide, 1)), constant(wide, 23))
    subnormal = b.select(b.icmp_unsigned("<", x, constant(wide, 1)), constant(wide, 1 << 21), constant(wide, 1 << 22))
    return b.bitcast(b.select(b.icmp_unsigned("<", x, constant(wide, 2)), subnormal, normal), Tile("f32").vector)


def _e4m3_to_f32(b, x):
    """As the bits of a float16, which has the same mantissa and a larger exponent."""
    half = b.shl(b.zext(x, ir.VectorType(I16, LANES)), constant(ir.VectorType(I16, LANES), 7))
    return b.fpext(b.bitcast(half, Tile("f16").vector), Tile("f32").vector)


panel_bytes = _panel_loader("i8", I8)  # 4 bytes a lane
panel_f32 = _panel_loader("f32", F32)
panel_f16 = _panel_loader("f32", F16, lambda b, x: b.fpext(x, Tile("f32").vector))
panel_bf16 = _panel_loader("f32", I16, _bf16_to_f32)
panel_low_bf16 = _panel_loader("f32", I32, _low_bf16)  # of two bfloat16 in a lane
panel_high_bf16 = _panel_loader("f32", I32, _high_bf16)
panel_i8 = _panel_loader("f32", I8, lambda b, x: b.sitofp(x, Tile("f32").vector))  # one byte a lane
panel_e8m0 = _panel_loader("f32", I8, _e8m0_to_f32)  # byte x of each lane is 2 ** (x - 128)
panel_e4m3 = _panel_loader("f32", I8, _e4m3_to_f32)  # 7 bits of each lane: the number of type E4M3, times 2 ** -8
panel_i8_pairs = _panel_loader("i16", I8, lambda b, x: b.sext(x, Tile("i16").vector))  # two bytes a lane
panel_low_nibbles = _panel_loader("f32", I8, lambda b, x: _u8_to_f32(b, b.and_(x, constant(x.type, 15))))
panel_high_nibbles = _panel_loader("f32", I8, lambda b, x: _u8_to_f32(b, b.lshr(x, constant(x.type, 4))))


@intrinsic(prefer_literal=True)
def panel_vectors(context, like, address, stride, count):
    """`count` (literal) vectors of bytes that follow each other in each panel, as a tuple, in the form of `like`."""
    tile = Tile("i8", like.panels, matrix=like.matrix)
    result = types.UniTuple(tile, literal_of(count))

    def generate(context, b, sig, args):
        vectors = [[load_from(b, b.add(offset_by(b, args[1], args[2], p), I64(4 * LANES * i)), tile.vector)
                    for p in range(tile.panels)] for i in range(result.count)]
        if tile.matrix:
            vectors = weights_of_matrix(b, vectors)
        return context.make_tuple(b, result, [tile_of(b, of_panels, tile) for of_panels in vectors])

    return result(like, types.intp, types.intp, count), generate


@intrinsic
def load_tile(context, like, address, panel_stride, token_stride):
    """float32 vectors of like's shape: [panel][token] is at address + panel * panel_stride + token * token_stride."""
    def generate(context, b, sig, args):
        tile, (_, address, panel_stride, token_stride) = sig.return_type, args
        panels = [offset_by(b, address, panel_stride, p) for p in range(tile.panels)]
        return tile_of(b, [load_from(b, offset_by(b, panel, token_stride, t), tile.vector)
                           for panel in panels for t in range(tile.tokens)], tile)

    return like(like, types.intp, types.intp, types.intp), generate


@intrinsic
def store_tile(context, tile, address, panel_stride, token_stride):
    """Store each vector [panel][token] at address + panel * panel_stride + token * token_stride."""
    def generate(context, b, sig, args):
        tile, (value, address, panel_stride, token_stride) = sig.args[0], args
        vectors = vectors_of(b, value, tile)
        for p in range(tile.panels):
            for t in range(tile.tokens):
                store_to(b, vectors[p * tile.tokens + t],
                       offset_by(b, offset_by(b, address, panel_stride, p), token_stride, t))
        return context.get_dummy_value()

    return types.void(tile, types.intp, types.intp, types.intp), generate


def _storer(convert):
    @intrinsic
    def store(context, address, tile):
        def generate(context, b, sig, args):
            store_to(b, convert(b, b.extract_value(args[1], 0)), args[0])
            return context.get_dummy_value()

        return types.void(types.intp, tile), generate

    return store


@intrinsic
def append_within(context, address, x, low, high):
    """Store the lanes of a float32 vector that lie in low .. high side by side; how many they are.

    The rest of a whole vector behind them is overwritten.
    """
    def generate(context, b, sig, args):
        address, x, low, high = args
        vector = b.extract_value(x, 0)
        mask = b.and_(b.fcmp_ordered(">=", vector, broadcast(b, low, LANES)),
                      b.fcmp_ordered("<=", vector, broadcast(b, high, LANES)))
        name = f"llvm.experimental.vector.compress.{type_name(vector.type)}"
        store_to(b, call_function(b, name, vector.type, vector, mask, ir.Constant(vector.type, ir.Undefined)), address)
        bits = b.zext(b.bitcast(mask, ir.IntType(LANES)), I64)
        return call_function(b, "llvm.ctpop.i64", I64, bits)

    return types.int64(types.intp, x, types.float32, types.float32), generate


store_f32 = _storer(lambda b, x: x)
store_f16 = _storer(lambda b, x: b.fptrunc(x, Tile("f16").vector))  # rounded half to even
store_i8 = _storer(lambda b, x: b.trunc(x, ir.VectorType(I8, LANES)))  # from i32: one byte a lane


def _to_bf16(b, x):
    wide = Tile("i32").vector
    word = b.bitcast(x, wide)
    odd = b.and_(b.lshr(word, constant(wide, 16)), constant(wide, 1))
    nearest = b.add(b.add(word, constant(wide, 0x7FFF)), odd)
    quiet = b.or_(word, constant(wide, 0x400000))
    return b.trunc(b.lshr(b.select(b.fcmp_unordered("uno", x, x), quiet, nearest), constant(wide, 16)),
                   ir.VectorType(I16, LANES))


store_bf16 = _storer(_to_bf16)  # from float32, rounded half to even; a NaN stays one


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
        reach = literal_of(size)

        def generate(context, b, sig, args):
            for panel, (distance, level) in product(range(like.panels), distances[TILES.index(like.tokens)]):
                for i in range(distance, distance + reach, _CACHE_LINE):
                    pointer = b.inttoptr(b.add(offset_by(b, args[1], args[2], panel), I64(i)), I8.as_pointer())
                    call_function(b, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(4 - level), I32(1))
            return context.get_dummy_value()

        return types.void(like, types.intp, types.intp, size), generate

    return prefetch


prefetch_direct = _prefetcher(ISA.prefetch.direct)
prefetch_unpacked = _prefetcher(ISA.prefetch.unpacked)
prefetch_grouped = _prefetcher(ISA.prefetch.grouped)
prefetch_levels = _prefetcher(ISA.prefetch.levels)
prefetch_pages = _prefetcher(ISA.prefetch.pages)


@intrinsic(prefer_literal=True)
def prefetch_ahead(context, like, address, stride, size, ahead):
    """Prefetch `size` (literal) bytes for each panel of a tile, ahead[0] bytes from `address`, into the second level.

    Nothing, if the tuple `ahead` is empty.
    """
    reach, given = literal_of(size), len(ahead)

    def generate(context, b, sig, args):
        for panel, i in product(range(like.panels if given else 0), range(0, reach, _CACHE_LINE)):
            start = b.add(offset_by(b, args[1], args[2], panel), b.extract_value(args[4], 0))
            pointer = b.inttoptr(b.add(start, I64(i)), I8.as_pointer())
            call_function(b, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(2), I32(1))
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp, size, ahead), generate


@intrinsic(prefer_literal=True)
def alloca(context, size):
    """The address of `size` (literal) bytes on the stack of the calling function, aligned to a cache line."""
    nbytes = literal_of(size)

    def generate(context, b, sig, args):
        return b.ptrtoint(stack_memory(b, nbytes), I64)

    return types.int64(size), generate

