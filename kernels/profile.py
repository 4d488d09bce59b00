"""Where the time of a program goes, measured while it runs as it always does.

An operation is all that lies between two barriers. The timed copy of a program has two more instructions for each, in
which every thread writes down the time: when it begins an operation, and when its share is done, before the barrier. A
barrier is over when the last thread has come, however long others need to notice: this time is the next operation's.
Where one thread executes an operation before it lets the others go on, only that thread's times are written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .errors import LcpuError
from .jit import kernel, native
from .program import Instruction, Program
from .simd import clock, put_i64

_CALIBRATION = 0.02  # seconds
_READINGS = 5  # of two clocks at once: the closest counts


@kernel
def write_time(work, thread, threads, times, thread_bytes):
    """times[thread] = now. `thread_bytes` lie between the times of two threads."""
    put_i64(times + thread * thread_bytes, clock())


@native
def read_clock():
    return clock()


@dataclass(frozen=True, eq=False)
class TimedProgram:
    """A program that computes the same as another, and the times of its last run."""

    program: Program
    operations: tuple[tuple[Instruction, ...], ...]  # the other's instructions, from barrier to barrier
    times: np.ndarray  # int64 [threads][operations][2]: begin and end of each; the clocks of all processors agree

    def clear(self) -> None:
        """Forget the times, which a run writes only where threads work."""
        self.times[:] = 0

    @property
    def elapsed(self) -> np.ndarray:
        """int64 [operations], ticks: from the barrier before each one, or the program's begin, to the one after it."""
        return np.diff(self.times[:, :, 1].max(axis=0), prepend=self.times[:, 0, 0].min())

    @property
    def work(self) -> np.ndarray:
        """int64 [threads][operations], ticks: what each thread has worked of that time."""
        return self.times[:, :, 1] - self.times[:, :, 0]


def timed(program: Program, threads: int) -> TimedProgram:
    """The timed copy of a program, for a team of so many threads."""
    operations = _operations(program)
    times = np.zeros((threads, len(operations), 2), np.int64)
    copy = Program()

    for number, operation in enumerate(operations):
        begin, end = times[:, number, 0], times[:, number, 1]
        row_count = operation[0].row_count
        copy.add(write_time, barrier=False, row_count=row_count, times=begin, thread_bytes=times.strides[0])
        for instruction in operation:
            copy.add(instruction.kernel, barrier=False, name=instruction.name, row_count=row_count,
                     **instruction.operands)
        copy.add(write_time, barrier=True, row_count=row_count, times=end, thread_bytes=times.strides[0])
    return TimedProgram(copy.finish(), operations, times)


def _operations(program: Program) -> tuple[tuple[Instruction, ...], ...]:
    operations: list[tuple[Instruction, ...]] = []
    before: list[Instruction] = []
    for instruction in program.instructions:
        before.append(instruction)
        if instruction.barrier:
            operations.append(tuple(before))
            before = []
    if before:  # a program always ends at a barrier
        operations.append((*before[:-1], replace(before[-1], barrier=True)))
    return tuple(operations)


@cache
def clock_rate() -> float:
    """Ticks of the processor's clock in a second. Raises LcpuError if it has none."""
    first, started = _both_clocks()
    time.sleep(_CALIBRATION)
    last, ended = _both_clocks()
    if last <= first:
        raise LcpuError("this processor has no clock that programs can read: measure without --profile")
    return (last - first) / (ended - started)


def _both_clocks() -> tuple[int, float]:
    """Ticks and seconds of the same moment."""
    read = read_clock.call
    found = []
    for _ in range(_READINGS):
        before, ticks, after = time.perf_counter(), read(), time.perf_counter()
        found.append((after - before, ticks, (before + after) / 2))
    return min(found)[1:]
