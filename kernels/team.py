"""A team of threads that walks a program: instructions one after another, meeting at barriers.

Python starts a step and waits for its end; in between, no thread holds the GIL. Threads spin for about a millisecond
between steps, then sleep, so an idle team uses no processor.
"""

from __future__ import annotations

import os
import threading
import weakref
from queue import SimpleQueue
from types import TracebackType

import numpy as np

from .errors import LcpuError
from .jit import OPERANDS, address_of, device, native
from .program import BARRIER_AT, COUNTER_BYTES, OPERANDS_AT, RECORD_BYTES, ROWS_AT, Program
from .simd import atomic_add, atomic_get, atomic_put, call_kernel, get_i64, pause, processor_of, sleep_while
from .simd import wake_sleepers

# Byte offsets in the control block: a cache line each, so that spinning on one does not slow the others.
_EPOCH, _PROGRAM, _LENGTH, _COUNTERS, _STOPPED, _ARRIVED, _GENERATION, _SINGLES, _SLEEPERS, _PLACES = (
    64 * i for i in range(10))
_CPUS = 1 << 16  # _PLACES [threads]: the generation of the barrier that a thread reached last * _CPUS + its processor
_PLACE = 64  # bytes from one to the next
_PATIENCE = 2_000  # spins at a barrier before a thread goes to sleep: about a tenth of a millisecond
_LOOKS = 64  # spins before it looks whether it is in the way, and again: most waits are shorter
_IDLE_SPINS = 30_000  # spins between steps before a thread goes to sleep: about a millisecond


@device
def _in_the_way(control, threads, generation, processor):
    """Whether a thread that has yet to reach this barrier was last seen on this processor: it waits for us to leave."""
    for other in range(threads):
        place = atomic_get(control + _PLACES + _PLACE * other)
        if place % _CPUS == processor and place // _CPUS != generation:
            return True
    return False


@device
def _wait(control, threads, generation, processor):
    """Spin until the generation changes, then sleep: at once where spinning keeps another thread from running."""
    for spin in range(1, _PATIENCE):
        if atomic_get(control + _GENERATION) != generation:
            return
        if spin % _LOOKS == 0 and _in_the_way(control, threads, generation, processor):
            break
        pause()
    atomic_add(control + _SLEEPERS, 1)
    while atomic_get(control + _GENERATION) == generation:
        sleep_while(control + _GENERATION, generation)
    atomic_add(control + _SLEEPERS, -1)


@device
def _call(record, work, thread, threads):
    call_kernel(get_i64(record), record + OPERANDS_AT, OPERANDS, work, thread, threads)


@device
def _execute_singles(record, work, end):
    """Execute the instructions from here on that have a single row. Returns how many."""
    count = 0
    while record < end and get_i64(record + ROWS_AT) != 0 and get_i64(get_i64(record + ROWS_AT)) == 1:
        _call(record, work, 0, 1)
        record += RECORD_BYTES
        work += COUNTER_BYTES
        count += 1
    return count


@device
def _barrier(control, thread, threads, record, work, end):
    """Meet all threads. Returns how many instructions the last one has executed before it let the others go on."""
    generation, processor = atomic_get(control + _GENERATION), processor_of(thread)
    atomic_put(control + _PLACES + _PLACE * thread, generation * _CPUS + processor)
    if atomic_add(control + _ARRIVED, 1) < threads - 1:
        _wait(control, threads, generation, processor)
        return atomic_get(control + _SINGLES)
    singles = _execute_singles(record, work, end)
    atomic_put(control + _SINGLES, singles)
    atomic_put(control + _ARRIVED, 0)
    atomic_add(control + _GENERATION, 1)  # not a plain store, which the next line could overtake
    if atomic_get(control + _SLEEPERS) != 0:
        wake_sleepers(control + _GENERATION)
    return singles


@device
def _execute(control, thread, threads):
    record, work = get_i64(control + _PROGRAM), get_i64(control + _COUNTERS)
    end = record + RECORD_BYTES * get_i64(control + _LENGTH)
    while record < end:
        _call(record, work, thread, threads)
        barrier = get_i64(record + BARRIER_AT)
        record += RECORD_BYTES
        work += COUNTER_BYTES
        if barrier != 0:
            singles = _barrier(control, thread, threads, record, work, end)
            record += singles * RECORD_BYTES
            work += singles * COUNTER_BYTES


@native
def _lead(control, threads):
    """Begin a step and execute it as the first thread: in one call, so that no signal comes in between."""
    atomic_add(control + _EPOCH, 1)
    _execute(control, 0, threads)
    return 0


@device
def _step_began(control, thread, seen):
    """Spin until a step other than `seen` begins; False if none came soon or the first thread needs this processor."""
    processor = processor_of(thread)
    for _ in range(_IDLE_SPINS):
        if atomic_get(control + _EPOCH) != seen:
            return True
        if atomic_get(control + _PLACES) % _CPUS == processor:
            return False
        pause()
    return False


@native
def _follow(control, thread, threads, seen):
    """Execute the steps after `seen` as they begin. Returns the last one seen, once none came soon or the team ends.

    In between, no thread returns to Python, where many would wait for the GIL, one after another.
    """
    while _step_began(control, thread, seen):
        seen += 1
        if atomic_get(control + _STOPPED) != 0:
            break
        _execute(control, thread, threads)
    return seen


class _Workers:
    """The threads of a team and what they share. They hold no reference to the team, which would keep it alive."""

    def __init__(self, threads: int) -> None:
        """Raises LcpuError if the system has no room for so many threads."""
        self.threads = threads
        self._control = np.zeros((_PLACES + 64 + _PLACE * threads) // 8, np.int64)
        self._address = -(-address_of(self._control) // 64) * 64
        self._slots = self._control[(self._address - address_of(self._control)) // 8 :]
        # What ends sleep must be whole or not at all when a Ctrl-C comes: a Condition could keep its lock for ever.
        self._calls: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(threads)]
        self.sleeping = [False] * threads
        self._due = 0  # the last step that threads should be awake for
        _lead.call, _follow.call  # noqa: B018  compile before threads race to it
        self.started: list[threading.Thread] = []
        for i in range(1, threads):
            worker = threading.Thread(target=self._work, args=(i,), name=f"lcpu-{i}", daemon=True)
            try:
                worker.start()
            except RuntimeError:
                self.stop()
                raise LcpuError(f"the system refuses to start thread {i + 1} of {threads}: take fewer threads (-t 1 "
                                "needs no other), or raise the limit on threads or memory (ulimit -u and -v, or the "
                                "container's)") from None
            self.started.append(worker)

    def run(self, program: Program) -> None:
        if not len(program.records):
            return  # without a barrier, a thread that is late would take the next step for this one
        program.counters[:] = 0
        self._slots[_PROGRAM // 8] = address_of(program.records)
        self._slots[_COUNTERS // 8] = address_of(program.counters)
        self._slots[_LENGTH // 8] = len(program.records)
        try:
            self.wake()
            _lead.call(self._address, self.threads)
        finally:  # a KeyboardInterrupt may have come before the step began
            self._due = self._epoch

    @property
    def _epoch(self) -> int:
        return int(self._slots[_EPOCH // 8])

    @property
    def _stopped(self) -> bool:
        return bool(self._slots[_STOPPED // 8])

    def wake(self) -> None:
        # `_due` changes before `sleeping` is read, a sleeper does it the other way round: no wake-up is lost.
        self._due = self._epoch + 1
        for call, sleeping in zip(self._calls, self.sleeping, strict=True):
            if sleeping:
                call.put(None)

    def _work(self, thread: int) -> None:
        seen = 0
        while True:
            seen = _follow.call(self._address, thread, self.threads, seen)
            if self._stopped:
                return
            self._sleep(thread, seen)

    def _sleep(self, thread: int, seen: int) -> None:
        """Sleep until a step other than `seen` is due; a call that came too late for the last sleep ends this one."""
        self.sleeping[thread] = True
        if self._due == seen:
            self._calls[thread].get()
        self.sleeping[thread] = False

    def stop(self) -> None:
        """Tell the threads to end, and do not wait for it."""
        if not self._stopped:
            self._slots[_STOPPED // 8] = 1
            self.wake()
            self._slots[_EPOCH // 8] += 1


class Team:
    """`threads` threads, of which the caller's is the first. They end with `close`, or when nobody uses the team.

    In the child of a fork, which has none of its parent's threads, they start anew with the next step.
    """

    def __init__(self, threads: int) -> None:
        """Raises LcpuError if the system has no room for so many threads."""
        self.threads = threads
        self.lock = threading.RLock()  # for the models that share the team: one step at a time
        self._closed = False
        self._start()
        _teams.add(self)

    def _start(self) -> _Workers:
        self._workers: _Workers | None = _Workers(self.threads)
        self._end = weakref.finalize(self, self._workers.stop)
        self._end.atexit = False  # the interpreter ends daemon threads itself, also in the middle of a step
        return self._workers

    def run(self, program: Program) -> None:
        """Execute the program once, on all threads. Raises LcpuError once they have ended."""
        if self._closed:
            raise LcpuError("the threads of this model have ended with the model that they belong to: load both again")
        (self._workers or self._start()).run(program)

    def close(self) -> None:
        """End the threads."""
        self._closed = True
        workers, self._workers = self._workers, None
        if workers:
            self._end()
            for worker in workers.started:
                worker.join()

    def forget(self) -> None:
        """Forget threads that are those of a parent process, and the state that they were in."""
        self._workers = None
        self.lock = threading.RLock()
        self._end.detach()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


_teams: weakref.WeakSet[Team] = weakref.WeakSet()


def _forget_all() -> None:
    for team in list(_teams):
        team.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
