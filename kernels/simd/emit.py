"""Helpers that emit LLVM IR. `b` is an llvmlite IRBuilder, and values are LLVM's."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError

from .types import F16, F32, I16, I32, I64, I8, ISA, LANES, PIECE, Tile


def literal_of(ty):
    if not isinstance(ty, types.IntegerLiteral):
        raise TypingError("this operand must be a literal or a global constant")
    return ty.literal_value


def vectors_of(b, value, tile):
    return [b.extract_value(value, i) for i in range(tile.size)]


def tile_of(b, vectors, tile):
    value = ir.Constant(ir.ArrayType(tile.vector, tile.size), ir.Undefined)
    for i, vector in enumerate(vectors):
        value = b.insert_value(value, vector, i)
    return value


def vector_at(vectors, tile, panel, token):
    """The vector at [panel][token], broadcast along axes of length one."""
    return vectors[(panel if tile.panels > 1 else 0) * tile.tokens + (token if tile.tokens > 1 else 0)]


def rows_of_matrix(b, vector, token):
    """A vector with a number for each row, as the sums at this token of a `matrix` tile need it."""
    first = token % 2 * 2
    order = ir.Constant(ir.VectorType(I32, 4), [first, first + 1] * 2)
    words = b.bitcast(vector, ir.VectorType(I32, 4))
    return b.bitcast(b.shuffle_vector(words, words, order), vector.type)


def operand(b, vectors, tile, out, panel, token):
    """`vector_at`, for a result of the form of `out`."""
    vector = vector_at(vectors, tile, panel, token)
    return rows_of_matrix(b, vector, token) if out.matrix and not tile.matrix else vector


def constant(vector, number):
    return ir.Constant(vector, [number] * vector.count)


def broadcast(b, scalar, count):
    undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    first = b.insert_element(undefined, scalar, I32(0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, count), [0] * count))


def load_from(b, address, ty):
    load = b.load(b.inttoptr(address, ty.as_pointer()))
    load.align = 1
    return load


def store_to(b, value, address):
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 1


def offset_by(b, address, stride, times):
    return address if times == 0 else b.add(address, b.mul(stride, I64(times)))


def stack_memory(b, nbytes):
    """Memory of the function, aligned to a cache line. Numba's own helper would fill it with zeros, value by value."""
    with b.goto_entry_block():
        memory = b.alloca(ir.ArrayType(I8, nbytes))
    memory.align = 64
    return memory


def hide(b, value):
    """A 64-bit number, or on Arm a vector, whose value LLVM does not know."""
    register = "r" if value.type == I64 else "w"
    hidden = b.asm(ir.FunctionType(value.type, [value.type]), "", f"={register},0", [value], False)
    hidden.attributes.add("readnone")  # so it may leave loops
    return hidden


class _LoadAgain(ir.LoadInstr):
    """A load that LLVM keeps where it is; llvmlite cannot say "volatile"."""

    def descr(self, buf):
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("load ", "load volatile ", 1))


def load_again(b, pointer):
    """What is at a pointer, each time from memory."""
    load = _LoadAgain(b.block, pointer, "")
    load.align = 4
    b._insert(load)
    return load


def load_lanes(b, address, element, count=4):
    """A vector of so many numbers from memory, for `lane_of`."""
    return load_from(b, address, ir.VectorType(element, count))


def lane_of(b, vector, lane):
    """One of a vector's numbers in all lanes. On Arm, the instruction that takes it can do that itself."""
    return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined),
                            ir.Constant(ir.VectorType(I32, LANES), [lane] * LANES))


def token_scale(b, address):
    """The float32 of a token, in all lanes. On Arm it comes with the 4 bytes that follow it, which must be readable."""
    if ISA.arm:
        return lane_of(b, load_lanes(b, address, F32, 2), 0)
    return broadcast(b, load_from(b, address, F32), LANES)


def row_of(b, address, stride, token, tile):
    """The address of a token's row; address: of the first token's."""
    if tile.paired and token % 2:
        return offset_by(b, b.add(address, I64(PIECE)), stride, token - 1)
    return offset_by(b, address, stride, token)


def token_at(b, address, stride, token, tile):
    """The same. LLVM would compute each from the one before, in a chain, if it knew how."""
    even = token - token % 2 if tile.paired else token
    if even in (0, 1, 2, 4):  # processors multiply an index by these
        return row_of(b, address, stride, token, tile)
    return row_of(b, b.add(address, hide(b, b.mul(stride, I64(even)))), stride, token - even, tile)


def call_function(b, name, result, *args, fastmath=()):
    function = ir.FunctionType(result, [a.type for a in args])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), args, fastmath=fastmath)


def type_name(vector):
    return f"v{vector.count}{ {I8: 'i8', I16: 'i16', I32: 'i32', F16: 'f16', F32: 'f32'}[vector.element] }"


def emit_fma(b, x, y, z):
    # Without FMA instructions llvm.fma would call libm once per lane: there, let LLVM multiply and add.
    operation = "fma" if ISA.dot != "generic" else "fmuladd"
    return call_function(b, f"llvm.{operation}.{type_name(x.type)}", x.type, x, y, z)


def result_tile(element, *tiles):
    return Tile(element, max(t.panels for t in tiles), max(t.tokens for t in tiles), any(t.paired for t in tiles),
                any(t.matrix for t in tiles))
