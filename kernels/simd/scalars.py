"""Single numbers in memory, and tables of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .types import F16, F32, I16, I32, I64, I8
from .emit import hide, load_from, store_to


def _scalar_access(ty, element):
    @intrinsic
    def get(context, address):
        return ty(types.intp), lambda context, b, sig, args: load_from(b, args[0], element)

    @intrinsic
    def put(context, address, value):
        def generate(context, b, sig, args):
            store_to(b, args[1], args[0])
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
    return types.float32(types.intp), lambda context, b, sig, args: b.fpext(load_from(b, args[0], F16), F32)


@intrinsic
def nearest_f16(context, value):
    """A float32 rounded to the nearest float16 value, half to even."""
    return types.float32(types.float32), lambda context, b, sig, args: b.fpext(b.fptrunc(args[0], F16), F32)


@intrinsic
def put_f16(context, address, value):
    """Store a float32 as float16, rounded half to even."""
    def generate(context, b, sig, args):
        store_to(b, b.fptrunc(args[1], F16), args[0])
        return context.get_dummy_value()

    return types.void(types.intp, types.float32), generate


@intrinsic
def bits_to_float(context, number):
    """The float32 whose bits are the low half of an integer."""
    return types.float32(types.int64), lambda context, b, sig, args: b.bitcast(b.trunc(args[0], I32), F32)


@intrinsic
def opaque(context, number):
    """An int64 whose value LLVM does not know: it does not unroll a loop of so many rounds."""
    return types.int64(types.int64), lambda context, b, sig, args: hide(b, args[0])


def number_table(make: Callable[[], Sequence[int]]) -> Any:
    """An intrinsic: entry(i), number i of a table of numbers 0 .. 2**32 - 1, as int64. It does not check i.

    The table is made when a kernel that reads it is compiled, and is a part of that kernel.
    """
    @intrinsic
    def entry(context, index):
        def generate(context, b, sig, args):
            numbers = make()
            table = ir.Constant(ir.ArrayType(I32, len(numbers)), [int(number) for number in numbers])
            address = cgutils.global_constant(b, "table", table)
            return b.zext(b.load(b.gep(address, [I64(0), args[0]], inbounds=True)), I64)

        return types.int64(types.int64), generate

    return entry


def table_address(make: Callable[[], bytes]) -> Any:
    """An intrinsic: address(), that of such a table of bytes, aligned to 64 of them."""
    @intrinsic
    def address(context):
        def generate(context, b, sig, args):
            data = bytearray(make())
            table = cgutils.global_constant(b, "table", ir.Constant(ir.ArrayType(I8, len(data)), data))
            table.align = 64
            return b.ptrtoint(table, I64)

        return types.intp(), generate

    return address
