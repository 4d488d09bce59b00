"""Registers of up to 16 rows of 64 bytes, and the product of two of them: AMX, or the same in vectors and memory.

A register is named by a literal number. `tiles` is what `begin_tiles` returned: the address of the registers where they
are in memory, for machines that have none.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .generic_products import generic_signed_dot
from .emit import broadcast, call_function, literal_of, load_from, stack_memory, store_to
from .types import I32, I64, I8, ISA, LANES

ROWS = 16
# Four for int32 sums of 16 tokens x 16 rows of weights, two for int8 values of 16 tokens, one token in a row, and two
# for those of 16 rows of weights, 4 values of each in a row.
_SUMS, _TOKENS, _CODES = (0, 1, 2, 3), (4, 5), (6, 7)
_BYTES = 1024  # of a register in memory
_STEPS = 8 * _BYTES  # place of the number of dot products that a product sums up, in memory
_NATIVE = ISA.tile_registers == "amx"


def _configuration(b, values):
    """The address of the 64 bytes that describe all shapes (Intel, Software Developer's Manual: LDTILECFG)."""
    described = bytearray(64)
    described[0] = 1  # the palette
    for i in _SUMS + _TOKENS + _CODES:
        described[16 + 2 * i] = values if i in _TOKENS else 64  # bytes of a row
        described[48 + i] = values // 4 if i in _CODES else ROWS
    constant = ir.Constant(ir.ArrayType(I8, 64), described)
    return cgutils.global_constant(b.module, f"lcpu_tiles_{values}", constant)


def _call_emulation(b, build, *numbers):
    """Call a function of int64 that build(builder, *numbers) writes, once for a module: it takes LLVM long."""
    name = f"lcpu_emulated{build.__name__}"
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [I64] * len(numbers)), name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        body = ir.IRBuilder(function.append_basic_block())
        build(body, *function.args)
        body.ret_void()
    b.call(function, numbers)


def _copy(b, source, source_stride, target, target_stride, rows, words):
    with cgutils.for_range(b, rows) as row, cgutils.for_range(b, words) as word:
        at = b.mul(word.index, I64(4))
        value = load_from(b, b.add(b.add(source, b.mul(row.index, source_stride)), at), I32)
        store_to(b, value, b.add(b.add(target, b.mul(row.index, target_stride)), at))


def _multiply(b, sums, tokens, codes, steps):
    with cgutils.for_range(b, I64(ROWS)) as row, cgutils.for_range(b, steps) as step:
        target = b.add(sums, b.mul(row.index, I64(64)))
        weights = load_from(b, b.add(codes, b.mul(step.index, I64(64))), ir.VectorType(I8, 4 * LANES))
        token = b.add(b.add(tokens, b.mul(row.index, I64(64))), b.mul(step.index, I64(4)))
        total = load_from(b, target, ir.VectorType(I32, LANES))
        store_to(b, generic_signed_dot(b, total, weights, broadcast(b, load_from(b, token, I32), LANES)), target)


def _clear(b, sums):
    with cgutils.for_range(b, I64(ROWS)) as row:
        store_to(b, ir.Constant(ir.VectorType(I8, 64), None), b.add(sums, b.mul(row.index, I64(64))))


def _place(b, tiles, number):
    return b.add(tiles, I64(_BYTES * number))


def _steps(b, tiles):
    return load_from(b, b.add(tiles, I64(_STEPS)), I64)


@intrinsic(prefer_literal=True)
def begin_tiles(context, values):
    """Set the registers up on this thread, for products over 64 or 32 (literal) values. `end_tiles` gives them back."""
    depth = literal_of(values)

    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.ldtilecfg", ir.VoidType(), _configuration(b, depth))
            return I64(0)
        tiles = b.ptrtoint(stack_memory(b, _STEPS + 64), I64)
        store_to(b, I64(depth // 4), b.add(tiles, I64(_STEPS)))
        return tiles

    return types.int64(values), generate


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
    """Zeros in a register of sums."""
    which = literal_of(number)

    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.tilezero", ir.VoidType(), I8(which))
        else:
            _call_emulation(b, _clear, _place(b, args[0], which))
        return context.get_dummy_value()

    return types.void(types.int64, number), generate


def _mover(instruction, into):
    @intrinsic(prefer_literal=True)
    def move(context, tiles, number, address, stride):
        """Between a register and memory, where its rows are `stride` bytes apart."""
        which = literal_of(number)

        def generate(context, b, sig, args):
            if _NATIVE:
                call_function(b, instruction, ir.VoidType(), I8(which), b.inttoptr(args[2], I8.as_pointer()), args[3])
                return context.get_dummy_value()
            inside, outside = (_place(b, args[0], which), I64(64)), args[2:]
            rows = _steps(b, args[0]) if which in _CODES else I64(ROWS)
            words = _steps(b, args[0]) if which in _TOKENS else I64(16)  # of tokens only the values that there are
            ends = (*outside, *inside) if into else (*inside, *outside)
            _call_emulation(b, _copy, *ends, rows, words)
            return context.get_dummy_value()

        return types.void(types.int64, number, types.int64, types.int64), generate

    return move


read_tile = _mover("llvm.x86.tileloadd64", into=True)
write_tile = _mover("llvm.x86.tilestored64", into=False)


@intrinsic(prefer_literal=True)
def multiply_tiles(context, tiles, sums, tokens, codes):
    """sums[t][lane] += the products of all values of token t and of a row of weights, int8 both, summed as int32."""
    numbers = [literal_of(number) for number in (sums, tokens, codes)]

    def generate(context, b, sig, args):
        if _NATIVE:
            call_function(b, "llvm.x86.tdpbssd", ir.VoidType(), *map(I8, numbers))
            return context.get_dummy_value()
        _call_emulation(b, _multiply, *(_place(b, args[0], number) for number in numbers), _steps(b, args[0]))
        return context.get_dummy_value()

    return types.void(types.int64, sums, tokens, codes), generate
