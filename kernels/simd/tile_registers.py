"""Registers of 16 rows of 64 bytes, and the product of two of them: AMX, or the same in plain vectors and memory.

A register is named by a literal number, which also gives its shape. `tiles` is what `begin_tiles` returned: the address
of the registers where they are in memory, for machines that have none.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .dot_products import generic_signed_dot
from .emit import broadcast, call_function, literal_of, load_from, stack_memory, store_to
from .types import I32, I64, I8, ISA, LANES

ROWS = 16
TILE_SUMS, TILE_SUMS_2, TILE_TOKENS, TILE_CODES, TILE_CODES_2, TILE_HALF_TOKENS, TILE_HALF_CODES = range(7)
# (rows, bytes of a row): sums of 16 tokens x 16 rows of weights; 64 or 32 values of 16 tokens; those of 16 rows of
# weights, 4 values of each in a row
_SHAPES = ((16, 64), (16, 64), (16, 64), (16, 64), (16, 64), (16, 32), (8, 64))
_BYTES = 1024  # of a register in memory
_NATIVE = ISA.tile_registers == "amx"


def _configuration(b):
    """The address of the 64 bytes that describe all shapes (Intel, Software Developer's Manual: LDTILECFG)."""
    described = bytearray(64)
    described[0] = 1  # the palette
    for i, (rows, row_bytes) in enumerate(_SHAPES):
        described[16 + 2 * i], described[48 + i] = row_bytes, rows
    shape = ir.ArrayType(I8, 64)
    return cgutils.global_constant(b.module, "lcpu_tiles", ir.Constant(shape, described))


def _place(b, tiles, number, row=0):
    return b.add(tiles, I64(_BYTES * number + 64 * row))


@intrinsic
def begin_tiles(context):
    """Set the registers up on this thread. They must be given back with `end_tiles`."""
    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.ldtilecfg", ir.VoidType(), _configuration(b))
            return I64(0)
        return b.ptrtoint(stack_memory(b, _BYTES * len(_SHAPES)), I64)

    return types.int64(), generate


@intrinsic
def end_tiles(context):
    """Give the registers back, so that the system need not save them."""
    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.tilerelease", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def clear_tile(context, tiles, number):
    """Zeros in a register."""
    which = literal_of(number)

    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.tilezero", ir.VoidType(), I8(which))
        else:
            for row in range(ROWS):
                store_to(b, ir.Constant(ir.VectorType(I8, 64), None), _place(b, args[0], which, row))
        return context.get_dummy_value()

    return types.void(types.int64, number), generate


def _mover(instruction, emulate):
    @intrinsic(prefer_literal=True)
    def move(context, tiles, number, address, stride):
        """Between a register and memory, where its rows are `stride` bytes apart."""
        which = literal_of(number)

        def generate(context, b, sig, args):
            if _NATIVE:
                call_function(b, instruction, ir.VoidType(), I8(which), b.inttoptr(args[2], I8.as_pointer()), args[3])
                return context.get_dummy_value()
            rows, row_bytes = _SHAPES[which]
            for row in range(rows):
                outside = b.add(args[2], b.mul(args[3], I64(row)))
                emulate(b, _place(b, args[0], which, row), outside, ir.VectorType(I8, row_bytes))
            return context.get_dummy_value()

        return types.void(types.int64, number, types.int64, types.int64), generate

    return move


read_tile = _mover("llvm.x86.tileloadd64", lambda b, inside, outside, row: store_to(
    b, load_from(b, outside, row), inside))
write_tile = _mover("llvm.x86.tilestored64", lambda b, inside, outside, row: store_to(
    b, load_from(b, inside, row), outside))


@intrinsic(prefer_literal=True)
def multiply_tiles(context, tiles, sums, tokens, codes):
    """sums[t][lane] += the products of all values of token t and of a row of weights, int8 both, summed as int32."""
    numbers = out, left, right = [literal_of(number) for number in (sums, tokens, codes)]

    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.tdpbssd", ir.VoidType(), *map(I8, numbers))
            return context.get_dummy_value()
        with cgutils.for_range(b, I64(ROWS)) as loop:
            row = b.mul(loop.index, I64(64))
            target = b.add(_place(b, args[0], out), row)
            total = load_from(b, target, ir.VectorType(I32, LANES))
            for i in range(_SHAPES[right][0]):
                weights = load_from(b, _place(b, args[0], right, i), ir.VectorType(I8, 4 * LANES))
                token = load_from(b, b.add(b.add(_place(b, args[0], left), row), I64(4 * i)), I32)
                total = generic_signed_dot(b, total, weights, broadcast(b, token, LANES))
            store_to(b, total, target)
        return context.get_dummy_value()

    return types.void(types.int64, sums, tokens, codes), generate
