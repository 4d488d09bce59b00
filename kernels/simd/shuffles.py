"""Vectors with the lanes of one or two others, in another order, and bytes that are looked up in a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from .types import I32, ISA, LANES, Tile
from .arithmetic import elementwise, unary
from .emit import call_function, constant, literal_of, tile_of


def _shuffle(b: Any, first: Any, second: Any, lane: Callable[[int], int]) -> Any:
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, LANES), [lane(i) for i in range(LANES)]))


def _of_one(lane: Callable[[int], int]) -> Any:
    @intrinsic
    def shuffle(context, x):
        def generate(context, b, sig, args):
            vector = b.extract_value(args[0], 0)
            return tile_of(b, [_shuffle(b, vector, vector, lane)], x)

        return x(x), generate

    return shuffle


def _of_two(lane: Callable[[int], int]) -> Any:
    @intrinsic
    def shuffle(context, x, y):
        def generate(context, b, sig, args):
            first, second = (b.extract_value(arg, 0) for arg in args)
            return tile_of(b, [_shuffle(b, first, second, lane)], x)

        return x(x, y), generate

    return shuffle


swap_neighbours = _of_one(lambda i: i ^ 1)  # lanes 1, 0, 3, 2, ...
even_twice = _of_one(lambda i: i - i % 2)  # lanes 0, 0, 2, 2, ...
odd_twice = _of_one(lambda i: i - i % 2 + 1)  # lanes 1, 1, 3, 3, ...
evens = _of_two(lambda i: 2 * i)  # lanes 0, 2, 4, ... of one vector after the other
odds = _of_two(lambda i: 2 * i + 1)
alternate = _of_two(lambda i: i if i % 2 == 0 else LANES + i)  # even lanes of one vector, odd lanes of the other


def _byte_spreader(places: Callable[[int, int], list[int]], element: str) -> Any:
    @intrinsic(prefer_literal=True)
    def spread(context, x, n):
        byte = literal_of(n)

        def emit(b, v):
            order = [place for lane in range(LANES) for place in places(4 * lane + byte, v.type.count)]
            mask = ir.Constant(ir.VectorType(I32, len(order)), order)
            return b.bitcast(b.shuffle_vector(v, constant(v.type, 0), mask), Tile(element).vector)

        out, generate = elementwise(emit, element)((x,))
        return out.return_type(x, n), lambda context, b, sig, args: generate(context, b, out, args[:1])

    return spread


byte_of_lane = _byte_spreader(lambda at, zero: 4 * [at], "i8")  # (x, n): byte n of each lane of x, four times
twice_of_lane = _byte_spreader(lambda at, zero: 2 * [at, zero], "i16")  # (x, n): the same, 0 .. 255, as two int16
even_bytes = unary(lambda b, x: b.and_(*_halves(b, x, 255)), "i16")  # bytes 0 and 2 of each lane, 0 .. 255
odd_bytes = unary(lambda b, x: b.lshr(*_halves(b, x, 8)), "i16")  # bytes 1 and 3


def _halves(b: Any, x: Any, number: int) -> tuple[Any, Any]:
    halves = b.bitcast(x, Tile("i16").vector)
    return halves, constant(halves.type, number)


def _table_lookup(b: Any, table: list[Any], numbers: Any) -> Any:
    """One instruction. That of x86 has a table for every 16 bytes."""
    count = numbers.type.count
    if ISA.arm:
        return call_function(b, "llvm.aarch64.neon.tbl1.v16i8", numbers.type, ir.Constant(numbers.type, table), numbers)
    if ISA.x86:
        name = {16: "ssse3.pshuf.b.128", 32: "avx2.pshuf.b", 64: "avx512.pshuf.b.512"}[count]
        repeated = ir.Constant(numbers.type, table * (count // 16))
        return call_function(b, f"llvm.x86.{name}", numbers.type, repeated, numbers)
    # LLVM knows this for a table lookup, which is one instruction on Arm.
    constants, out = ir.Constant(numbers.type, table * (count // 16)), ir.Constant(numbers.type, ir.Undefined)
    for i in range(count):
        entry = b.extract_element(constants, b.extract_element(numbers, I32(i)))
        out = b.insert_element(out, entry, I32(i))
    return out


def table_lookup(values: Sequence[int]) -> Any:
    """An intrinsic: values[i] for each byte i of a tile, 0 .. 15. `values` are 16 numbers, -128 .. 255."""
    table = [value % 256 for value in values]
    return unary(lambda b, numbers: _table_lookup(b, table, numbers))
