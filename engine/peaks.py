"""The peak rates of this machine during a benchmark: measured before, between and after its tests.

Whatever else the machine does makes a measurement slower and never faster. So the best of all measurements counts.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ..kernels.jit import announcing
from ..kernels.probe import MEMORY, Peaks, measure
from .benchmark import Result, bytes_read
from .memory import room
from .model import Model, Progress
from .work import weight_bytes

_PERIOD = 3.0  # seconds of tests after which peaks are measured again


class PeakMeter:
    """The best rates so far, by numbers of threads."""

    def __init__(self) -> None:
        self._best: dict[int, Peaks] = {}
        self._measured = 0.0

    def measure(self, threads: int, progress: Progress | None = None) -> None:
        """progress("compiling", 0, 0) is called if kernels are compiled."""
        limit = room()
        with announcing(lambda name: progress("compiling", 0, 0) if progress else None):
            self._add(measure(threads, memory=limit is None or limit.nbytes >= 2 * MEMORY))
        self._measured = time.monotonic()

    def after_test(self, threads: int, model: Model, result: Result | None, *, last: bool) -> Peaks:
        """The best rates, measured again if the test was a model's last one or the last measurement is some time ago.

        A test whose steps read their weights from memory has measured the bandwidth, too.
        """
        if last or time.monotonic() - self._measured > _PERIOD:
            self.measure(threads)
        if result is not None and _reads_memory(model, result):
            fastest = bytes_read(model, result.case) * 1e9 / min(result.samples_ns)
            self._add(replace(self.best(threads), bandwidth=fastest))
        return self.best(threads)

    def best(self, threads: int) -> Peaks:
        """Of all measurements with so many threads or fewer: more threads can do what fewer can."""
        found = Peaks(threads, 0.0, 0.0, 0.0, 0.0)
        for count, peaks in self._best.items():
            found = found.best(peaks) if count <= threads else found
        return found

    def _add(self, peaks: Peaks) -> None:
        before = self._best.get(peaks.threads, peaks)
        self._best[peaks.threads] = before.best(peaks)


def _reads_memory(model: Model, result: Result) -> bool:
    """Whether a test's steps read more weights than caches hold."""
    case = result.case
    if case.prompt or case.sequences or case.acceptance is not None:
        return False
    return sum(weight_bytes(model, matrix, case.step or 1) for matrix in model.matrices.values()) >= MEMORY
