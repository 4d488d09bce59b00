"""A team runs a program in order, wakes up, rests and ends."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

from lcpu.kernels.errors import LcpuError
from lcpu.kernels.jit import kernel, row_kernel
from lcpu.kernels.program import OPERANDS, Program
from lcpu.kernels.simd import atomic_add, atomic_get, bits_to_float, get_i64, pause, put_f32, put_i64
from lcpu.kernels.team import Team

pytestmark = pytest.mark.timeout(120, method="thread")  # no signal reaches a thread that waits inside a kernel
threads_1_to_4 = pytest.mark.parametrize("threads", [1, 2, 3, 4])
REST = 0.2  # seconds after which a team that has nothing to do must be asleep


@kernel
def shift_and_add(work, thread, threads, source, target, count):
    """target[i] = source[(i + 1) % count] + 1, one element at a time."""
    i = atomic_add(work, 1)
    while i < count:
        put_i64(target + 8 * i, get_i64(source + 8 * ((i + 1) % count)) + 1)
        i = atomic_add(work, 1)


@kernel
def count_threads(work, thread, threads, counters, seen):
    """counters[thread] += 1; seen = threads"""
    put_i64(counters + 8 * thread, get_i64(counters + 8 * thread) + 1)
    put_i64(seen, threads)


@kernel
def put_float(work, thread, threads, out, value):
    put_f32(out, bits_to_float(value))


@kernel
def put_sixteen(work, thread, threads, out, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o):  # noqa: E741
    put_i64(out, a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j + 11 * k + 12 * l + 13 * m
            + 14 * n + 15 * o)


def chain(length: int, count: int) -> tuple[Program, np.ndarray]:
    """`length` instructions, each of which needs all that the one before has written; and the array they work on."""
    a, b = np.arange(count), np.zeros(count, np.int64)
    program = Program()
    for _ in range(length // 2):
        program.add(shift_and_add, source=a, target=b, count=count)
        program.add(shift_and_add, source=b, target=a, count=count)
    return program.finish(), a


@threads_1_to_4
def test_an_instruction_sees_all_of_the_one_before(threads):
    length, count, runs = 100, 37, 40
    program, a = chain(length, count)
    with Team(threads) as team:
        for _ in range(runs):
            team.run(program)
    moved = length * runs
    assert a.tolist() == [(i + moved) % count + moved for i in range(count)]


@threads_1_to_4
def test_every_thread_takes_part_once(threads):
    counters, seen = np.zeros(threads, np.int64), np.zeros(1, np.int64)
    program = Program()
    for barrier in (True, False, True):
        program.add(count_threads, barrier=barrier, counters=counters, seen=seen)
    with Team(threads) as team:
        for _ in range(50):
            team.run(program.finish())
    assert counters.tolist() == [150] * threads
    assert seen == threads


@threads_1_to_4
def test_without_barriers_all_is_done_at_the_end(threads):
    """The last instruction ends at a barrier whatever it was added with."""
    sources, targets = np.arange(20 * 16).reshape(20, 16), np.zeros((20, 16), np.int64)
    program = Program()
    for source, target in zip(sources, targets, strict=True):
        program.add(shift_and_add, barrier=False, source=source, target=target, count=16)
    with Team(threads) as team:
        for _ in range(100):
            targets[:] = 0
            team.run(program.finish())
            assert (targets == np.roll(sources, -1, axis=1) + 1).all()


def test_teams_and_programs_mix():
    with Team(2) as one, Team(3) as other:
        (long, a), (short, b) = chain(10, 5), chain(2, 5)
        for _ in range(20):
            one.run(long)
            other.run(long)
            one.run(short)
    assert a.tolist() == [(i + 400) % 5 + 400 for i in range(5)]
    assert b.tolist() == [(i + 40) % 5 + 40 for i in range(5)]


@threads_1_to_4
def test_an_empty_program(threads):
    """Between others, many times: a thread that comes late to it must not take part in the next one twice."""
    program, a = chain(2, 5)
    with Team(threads) as team:
        for _ in range(2000):
            team.run(Program().finish())
            team.run(program)
            team.run(Program())
    assert a.tolist() == [(i + 4000) % 5 + 4000 for i in range(5)]


def test_a_team_that_sleeps_wakes_up():
    program, a = chain(2, 5)
    with Team(3) as team:
        for pause in (0, REST, 0.001, 0.002, REST, 0):
            time.sleep(pause)
            team.run(program)
    assert a.tolist() == [(i + 12) % 5 + 12 for i in range(5)]


def test_an_idle_team_uses_no_processor():
    program, _ = chain(2, 5)
    with Team(3) as team:
        team.run(program)
        time.sleep(REST)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.03  # less than what spinning takes, even on a busy machine


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lcpu")}


@pytest.mark.parametrize("rest", [0, REST], ids=["awake", "asleep"])
def test_close_ends_the_threads(rest):
    before = workers()
    team = Team(3)
    assert len(workers() - before) == 2
    team.run(chain(2, 5)[0])
    time.sleep(rest)
    team.close()
    assert workers() == before
    team.close()  # once more does no harm


def test_close_of_a_team_that_never_ran():
    before = workers()
    Team(4).close()
    assert workers() == before


def test_an_error_inside_with_closes_too():
    before = workers()
    with pytest.raises(RuntimeError), Team(2):
        raise RuntimeError
    assert workers() == before


# ---- programs ----


def test_floats_go_as_float32():
    out = np.zeros(1, np.float32)
    program = Program()
    program.add(put_float, out=out, value=-0.1)
    with Team(1) as team:
        team.run(program.finish())
    assert out[0] == np.float32(-0.1)


def test_as_many_operands_as_there_may_be():
    names = "abcdefghijklmno"
    assert len(names) + 1 == OPERANDS
    out = np.zeros(1, np.int64)
    program = Program()
    program.add(put_sixteen, out=out, **{name: 10**i for i, name in enumerate(names)})
    with Team(1) as team:
        team.run(program.finish())
    assert out[0] == sum((i + 1) * 10**i for i in range(15))


def test_operands_must_be_those_of_the_kernel():
    with pytest.raises(TypeError, match="put_float"):
        Program().add(put_float, out=np.zeros(1))
    with pytest.raises(TypeError, match="put_float"):
        Program().add(put_float, out=np.zeros(1), value=1.0, other=2)


def test_a_program_keeps_its_arrays_alive():
    program = Program()
    out = np.zeros(3, np.int64)
    program.add(shift_and_add, source=np.arange(3), target=out, count=3)  # nobody else holds the source
    np.ones(3, np.int64)
    with Team(2) as team:
        team.run(program.finish())
    assert out.tolist() == [2, 3, 1]


def test_kernels_are_listed_once():
    program, _ = chain(4, 3)
    program.add(put_float, out=np.zeros(1, np.float32), value=0.0)
    assert program.kernels == [shift_and_add, put_float]


@pytest.mark.parametrize("asleep", [False, True])
def test_interrupted_before_a_step_begins(monkeypatch, asleep):
    """Ctrl-C between telling the threads and joining them: the next step still runs, and the team rests meanwhile."""
    program, a = chain(10, 37)
    with Team(3) as team:
        team.run(program)
        if asleep:
            time.sleep(REST)
        wake = team._workers.wake

        def interrupted():
            wake()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(team._workers, "wake", interrupted)
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt):
                    team.run(program)
        time.sleep(REST)
        used = time.process_time()
        time.sleep(REST)
        assert time.process_time() - used < REST / 2
        team.run(program)
    assert a.tolist() == [(i + 20) % 37 + 20 for i in range(37)]


def interrupted_after(opcodes: int, call: Callable[[], None]) -> bool:
    """Call, with a KeyboardInterrupt after so many opcodes of Python in it; False if it had ended before."""
    left = opcodes

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_interrupted_at_any_opcode_while_the_threads_sleep():
    """No Ctrl-C leaves a lock held that the threads need to wake up, wherever it strikes."""
    counters, seen = np.zeros(2, np.int64), np.zeros(1, np.int64)
    program = Program()
    program.add(count_threads, counters=counters, seen=seen)
    program.finish()
    with Team(2) as team:
        for opcodes in itertools.count():
            while not team._workers.sleeping[1]:
                time.sleep(0.001)
            before = counters[0]
            interrupted = interrupted_after(opcodes, lambda: team.run(program))
            assert counters[0] == counters[1] <= before + 1  # the step was executed by all threads, or by none
            team.run(program)
            assert counters[0] == counters[1]
            if not interrupted:
                break
    assert opcodes > 50


# ---- no more threads, no more users, and forks ----


def test_a_thread_that_is_refused_is_an_error(monkeypatch):
    before, start = workers(), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "lcpu-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LcpuError, match="refuses to start thread 3 of 4: take fewer threads"):
        Team(4)
    wait_until(lambda: workers() == before)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("rest", [0, REST], ids=["awake", "asleep"])
def test_threads_end_when_nobody_has_the_team(rest):
    before = workers()
    team = Team(3)
    team.run(chain(2, 5)[0])
    time.sleep(rest)
    assert len(workers() - before) == 2
    del team
    wait_until(lambda: workers() == before)


def outcome_in_a_child(work: Callable[[], bool]) -> bool:
    """What some work gives in a forked child. It must end soon."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, about forks beside threads
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(not work())
        finally:
            os._exit(2)
    end = time.monotonic() + 60
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.01)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@forks
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rest", [None, 0, REST], ids=["never used", "awake", "asleep"])
def test_a_team_works_in_the_child_of_a_fork(threads, rest):
    program, a = chain(10, 37)
    with Team(threads) as team:
        if rest is not None:
            team.run(program)
            time.sleep(rest)
        before = a.copy()

        def again() -> bool:
            for _ in range(3):
                team.run(program)
            team.close()
            return bool((a == np.roll(before, -30) + 30).all())

        assert outcome_in_a_child(again)
        assert outcome_in_a_child(lambda: team.close() is None)
        assert (a == before).all()
        assert again()


@kernel
def wait_for(work, thread, threads, flag, started):
    atomic_add(started, 1)
    while atomic_get(flag) == 0:
        pause()


@forks
def test_a_fork_in_the_middle_of_a_step():
    """Of another thread: the child has a free lock, and threads of its own; the step of the parent goes on."""
    flag, started = np.zeros(1, np.int64), np.zeros(1, np.int64)
    waiting = Program()
    waiting.add(wait_for, flag=flag, started=started)
    waiting.finish()
    program, a = chain(2, 5)
    with Team(2) as team:
        def step() -> None:
            with team.lock:
                team.run(waiting)

        other = threading.Thread(target=step)
        other.start()
        wait_until(lambda: started[0] == 2)

        def work() -> bool:
            with team.lock:
                team.run(program)
            return a.tolist() == [(i + 2) % 5 + 2 for i in range(5)]

        assert outcome_in_a_child(work)
        flag[0] = 1
        other.join()
        assert work()


@kernel
def note_thread(work, thread, threads, out):
    put_i64(out + 8 * thread, threads)


@row_kernel
def add_by_rows(work, thread, threads, count, values, number):
    for row in range(thread, get_i64(count), threads):
        put_i64(values + 8 * row, get_i64(values + 8 * row) * 10 + number)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_single_row_is_computed_before_the_others_go_on(threads, rows):
    """In the order of the instructions, once, also where a count changes from step to step."""
    count, other, values = np.array([rows]), np.array([1]), np.zeros(5, np.int64)
    seen = np.zeros((2, threads), np.int64)
    program = Program()
    program.add(add_by_rows, count=count, values=values, number=1)
    program.add(note_thread, out=seen[0])
    program.add(add_by_rows, count=count, values=values, number=2)
    program.add(add_by_rows, count=other, values=values, number=3)
    program.add(add_by_rows, count=count, values=values, number=4)
    program.add(note_thread, out=seen[1])
    program.finish()
    with Team(threads) as team:
        for _ in range(50):
            values[:] = 0
            team.run(program)
            expected = [1234] + [124] * 4 if rows else [3]
            assert values.tolist() == expected[: max(rows, 1)] + [0] * (5 - max(rows, 1))
        assert (seen == threads).all()
        count[0] = 1
        values[:] = 0
        team.run(program)
        assert values.tolist() == [1234, 0, 0, 0, 0]
