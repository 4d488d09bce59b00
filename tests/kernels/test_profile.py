"""A timed program computes what the program computes, and its times are those of its operations."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from lcpu.kernels import profile
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.jit import kernel
from lcpu.kernels.profile import clock_rate, timed
from lcpu.kernels.program import Program
from lcpu.kernels.simd import atomic_add, clock, get_i64, put_i64
from lcpu.kernels.team import Team

THREADS = 2


@kernel
def shift(work, thread, threads, source, target, count):
    """target[i] = source[(i + 1) % count] + 1, one element at a time."""
    i = atomic_add(work, 1)
    while i < count:
        put_i64(target + 8 * i, get_i64(source + 8 * ((i + 1) % count)) + 1)
        i = atomic_add(work, 1)


@kernel
def spin(work, thread, threads, ticks):
    """Thread t takes ticks[t] of the processor's clock."""
    end = clock() + get_i64(ticks + 8 * thread)
    while clock() < end:
        pass


def spins(*milliseconds: tuple[float, float]) -> list[np.ndarray]:
    """The operands of `spin`: how long each of the two threads takes."""
    return [(np.array(each) * clock_rate() / 1000).astype(np.int64) for each in milliseconds]


def comes_to(program: profile.TimedProgram, elapsed: list[float], work: list[list[float]]) -> None:
    """One of many runs takes these milliseconds, [operations] and [threads][operations]: others disturb many runs."""
    end = time.monotonic() + 60
    with Team(THREADS) as team:
        while True:
            team.run(program.program)
            found = [1000 * ticks / clock_rate() for ticks in (program.elapsed, program.work)]
            if all((abs(one - other) < 0.1).all() for one, other in zip(found, (elapsed, work), strict=True)):
                return
            assert time.monotonic() < end, found


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_computes_the_same(threads):
    a, b = np.arange(37), np.zeros(37, np.int64)
    program = Program()
    for _ in range(20):
        program.add(shift, source=a, target=b, count=37)
        program.add(shift, source=b, target=a, count=37)
    copy = timed(program, threads)
    with Team(threads) as team:
        for runs in (40, 80):
            team.run(copy.program)
            assert a.tolist() == [(i + runs) % 37 + runs for i in range(37)]
        assert (copy.work > 0).all()
        assert (copy.elapsed >= copy.work - 4000).all()  # the clocks of two virtual processors may differ by as much
        assert copy.work.shape == (threads, 40)
        team.run(program.finish())  # which is as it was
    assert a.tolist() == [(i + 120) % 37 + 120 for i in range(37)]


def test_operations_end_at_barriers():
    """The last one always does, and instructions without a barrier belong to those after them."""
    a = np.zeros(1, np.int64)
    program = Program()
    for name, barrier in (("a", False), ("b", True), ("c", True), ("d", False), ("e", False)):
        program.add(spin, barrier=barrier, name=name, ticks=a)
    copy = timed(program, 1)
    assert [[instruction.name for instruction in operation] for operation in copy.operations] == [
        ["a", "b"], ["c"], ["d", "e"]]  # fmt: skip
    barriers = [(instruction.name, instruction.barrier) for instruction in copy.program.instructions]
    stamp = ("write_time", False)
    assert barriers == [stamp, ("a", False), ("b", False), ("write_time", True), stamp, ("c", False),
                        ("write_time", True), stamp, ("d", False), ("e", False), ("write_time", True)]  # fmt: skip


def test_instructions_are_named_after_their_kernels():
    program = Program()
    program.add(spin, ticks=np.zeros(1, np.int64))
    program.add(spin, name="other", ticks=np.zeros(1, np.int64))
    assert [instruction.name for instruction in program.instructions] == ["spin", "other"]


def test_operations_end_when_the_last_thread_has_come():
    program = Program()
    first, second, third = spins((0.8, 0.2), (0.2, 0.6), (0.4, 0.4))
    program.add(spin, ticks=first)
    program.add(spin, barrier=False, ticks=second)
    program.add(spin, ticks=third)
    comes_to(timed(program, THREADS), elapsed=[0.8, 1.0], work=[[0.8, 0.6], [0.2, 1.0]])


def test_who_leaves_a_barrier_late_is_missed_in_the_next_operation():
    """From made-up times of two threads: the second one begins 50 late, and leaves the barrier 30 late."""
    times = np.array([[[100, 110], [181, 220]], [[150, 180], [210, 225]]])
    copy = profile.TimedProgram(Program(), ((), ()), times)
    assert copy.elapsed.tolist() == [80, 45]
    assert copy.work.tolist() == [[10, 39], [30, 15]]


def test_the_parts_are_the_whole():
    """Their times add up to the time of the run, as Python's clock has it."""
    program = Program()
    for ticks in spins((0.4, 0.2), (0.2, 0.4), (0.6, 0.2)):
        program.add(spin, ticks=ticks)
    copy = timed(program, THREADS)
    differences = []
    with Team(THREADS) as team:
        for _ in range(50):
            started = time.perf_counter()
            team.run(copy.program)
            elapsed = time.perf_counter() - started
            differences.append(elapsed - copy.elapsed.sum() / clock_rate())
    assert min(differences) > -0.0001
    assert min(differences) < 0.0005


def test_the_clock_has_a_rate():
    assert 1e6 < clock_rate() < 1e10
    started, first = time.perf_counter(), profile.read_clock.call()
    time.sleep(0.05)
    ticks, seconds = profile.read_clock.call() - first, time.perf_counter() - started
    assert ticks / clock_rate() == pytest.approx(seconds, rel=0.02)


def test_a_processor_without_a_clock(monkeypatch):
    monkeypatch.setattr(profile, "read_clock", SimpleNamespace(call=lambda: 0))
    with pytest.raises(LcpuError, match="no clock that programs can read: measure without --profile"):
        clock_rate.__wrapped__()


def test_who_does_not_profile_compiles_nothing_for_it():
    script = "import sys; from lcpu.engine import benchmark, llm; print('lcpu.kernels.profile' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
