"""What threads need: atomic operations, waiting, and calls of kernels by their address."""

from __future__ import annotations

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .types import I32, I64, ISA
from .emit import call_function, literal_of, load_from


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


_YIELD = 1


@intrinsic
def pause(context):
    """The processor's hint that this is a spin loop."""
    def generate(context, b, sig, args):
        if ISA.x86:
            call_function(b, "llvm.x86.sse2.pause", ir.VoidType())
        elif ISA.arm:
            call_function(b, "llvm.aarch64.hint", ir.VoidType(), I32(_YIELD))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def clock(context):
    """A counter of the processor that goes at one speed: x86's time stamps (rdtsc), Arm's virtual timer (CNTVCT)."""
    return types.int64(), lambda context, b, sig, args: call_function(b, "llvm.readcyclecounter", I64)


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
        return b.sext(call_function(b, "sched_getcpu", I32), I64) if sys.platform == "linux" else args[0]

    return types.int64(types.int64), generate


@intrinsic
def sleep_while(context, address, value):
    """Sleep until `wake_sleepers(address)`, unless the int64 there differs from value; may also return at any time.

    Where the system has no futex, this only yields to another thread.
    """
    def generate(context, b, sig, args):
        if _FUTEX is None:
            call_function(b, "SwitchToThread" if sys.platform == "win32" else "sched_yield", I32)
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
    operand_count = literal_of(count)

    def generate(context, b, sig, args):
        address, operands, _, *head = args
        values = [load_from(b, b.add(operands, I64(8 * i)), I64) for i in range(operand_count)]
        function = ir.FunctionType(ir.VoidType(), [I64] * (len(head) + len(values)))
        b.call(b.inttoptr(address, function.as_pointer()), [*head, *values])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, count, types.intp, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def load_operands(context, address, count):
    """`count` (literal) int64 from memory, as a tuple."""
    operands = types.UniTuple(types.int64, literal_of(count))

    def generate(context, b, sig, args):
        return context.make_tuple(b, operands, [load_from(b, b.add(args[0], I64(8 * i)), I64)
                                                for i in range(operands.count)])

    return operands(types.intp, count), generate
