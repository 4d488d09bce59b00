"""What threads need: atomic operations, waiting, and calls of kernels by their address."""

from __future__ import annotations

import ctypes
import platform
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .types import I32, I64, ISA
from .emit import call_function, literal_of, load_from, stack_memory, store_to


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
# macOS (xnu, bsd/sys/ulock.h): the system call below os_sync_wait_on_address, which only its newer versions have.
_ULOCK_COMPARE, _ULOCK_ALL = 1, 0x100
_FOREVER = 0xFFFFFFFF
_WINDOWS = ("WaitOnAddress", "WakeByAddressAll")
if sys.platform == "win32" and hasattr(ctypes, "WinDLL"):
    for _name in _WINDOWS:  # in a library that LLVM does not look into
        _function = getattr(ctypes.WinDLL("api-ms-win-core-synch-l1-2-0"), _name)
        llvm.add_symbol(_name, ctypes.cast(_function, ctypes.c_void_p).value)


def _futex(b, *args):
    function = ir.FunctionType(I64, [I64], var_arg=True)
    syscall = cgutils.get_or_insert_function(b.module, function, "syscall")
    b.call(syscall, [I64(_FUTEX), *args])


def _sleep(b, address, value):
    """Linux and macOS compare the low 32 bits."""
    if _FUTEX is not None:
        _futex(b, address, I64(_FUTEX_WAIT), value, I64(0))
    elif sys.platform == "darwin":
        call_function(b, "__ulock_wait", I32, I32(_ULOCK_COMPARE), address, value, I32(0))
    elif sys.platform == "win32":
        seen = b.ptrtoint(stack_memory(b, 8), I64)
        store_to(b, value, seen)
        call_function(b, "WaitOnAddress", I32, address, seen, I64(8), I32(_FOREVER))
    else:
        call_function(b, "sched_yield", I32)


def _wake(b, address):
    if _FUTEX is not None:
        _futex(b, address, I64(_FUTEX_WAKE), I64(2**31 - 1))
    elif sys.platform == "darwin":
        call_function(b, "__ulock_wake", I32, I32(_ULOCK_COMPARE | _ULOCK_ALL), address, I64(0))
    elif sys.platform == "win32":
        call_function(b, "WakeByAddressAll", ir.VoidType(), address)


@intrinsic
def processor_of(context, thread):
    """The number of the processor that runs this thread, or `thread` where the system has no such call."""
    def generate(context, b, sig, args):
        return b.sext(call_function(b, "sched_getcpu", I32), I64) if sys.platform == "linux" else args[0]

    return types.int64(types.int64), generate


@intrinsic
def sleep_while(context, address, value):
    """Sleep until `wake_sleepers(address)`, unless the int64 there differs from value; may also return at any time.

    Systems other than Linux, macOS and Windows only yield to another thread.
    """
    def generate(context, b, sig, args):
        _sleep(b, *args)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), generate


@intrinsic
def wake_sleepers(context, address):
    """Wake all threads that sleep at an address."""
    def generate(context, b, sig, args):
        _wake(b, args[0])
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
