"""The best of all measurements counts, and they are spread over a benchmark."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lcpu.engine import memory, peaks
from lcpu.engine.benchmark import Case, Result
from lcpu.engine.memory import Room
from lcpu.engine.peaks import PeakMeter
from lcpu.kernels.probe import MEMORY, Peaks
from lcpu.kernels.simd import LANES

SMALL, LARGE = 1000, MEMORY  # bytes of weights


def model(nbytes: int) -> SimpleNamespace:
    """With one matrix of so many bytes."""
    panels = np.broadcast_to(np.uint8(0), (1, LANES))
    matrix = SimpleNamespace(rows=nbytes, parts=(None,), panels=panels)
    return SimpleNamespace(matrices={"output.weight": matrix},
                           h=SimpleNamespace(expert_used_count=0), attended=[])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The measurements: their threads, and whether memory was read. Each is 1 higher in bandwidth and 1 lower in
    others. A clock that stands still."""
    found: list[tuple[int, bool]] = []

    def measure(threads: int, *, memory: bool) -> Peaks:
        found.append((threads, memory))
        count = float(len(found))
        return Peaks(threads, count if memory else 0.0, 20 - count, 20 - count, 20 - count)

    monkeypatch.setattr(peaks, "measure", measure)
    monkeypatch.setattr(peaks, "room", lambda: None)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    return found


def test_the_best_of_all(measured):
    meter = PeakMeter()
    meter.measure(2)
    assert meter.best(2) == Peaks(2, 1, 19, 19, 19)
    meter.measure(2)
    assert meter.best(2) == Peaks(2, 2, 19, 19, 19)


def test_more_threads_can_do_what_fewer_can(measured):
    meter = PeakMeter()
    for threads in (2, 1, 4):
        meter.measure(threads)
    assert meter.best(4) == Peaks(4, 3, 19, 19, 19)
    assert meter.best(2) == Peaks(2, 2, 19, 19, 19)
    assert meter.best(1) == Peaks(1, 2, 18, 18, 18)


def test_measurements_are_spread_over_the_tests(measured, monkeypatch):
    """One before a model's tests, one after the last, and others in between if these take long."""
    meter = PeakMeter()
    meter.measure(2)
    result = Result(Case(prompt=8), (1000,))
    for _ in range(3):
        assert meter.after_test(2, model(SMALL), result, last=False) == Peaks(2, 1, 19, 19, 19)
    assert len(measured) == 1
    monkeypatch.setattr(time, "monotonic", lambda: 110.0)
    for _ in range(3):
        assert meter.after_test(2, model(SMALL), result, last=False).bandwidth == 2
    assert meter.after_test(2, model(SMALL), None, last=True).bandwidth == 3


@pytest.mark.parametrize(("case", "nbytes", "expected"), [
    (Case(generated=2), LARGE, pytest.approx(2 * LARGE / 4e-9)),
    (Case(generated=2), SMALL, 1),  # that fits in caches
    (Case(prompt=2), LARGE, 1),
    (Case(generated=2, sequences=3), LARGE, 1),
    (Case(generated=2, acceptance=0.5), LARGE, 1),
], ids=["large", "small", "prompt", "sequences", "drafts"])
def test_steps_that_read_from_memory_measure_it(measured, case, nbytes, expected):
    meter = PeakMeter()
    meter.measure(2)
    found = meter.after_test(2, model(nbytes), Result(case, (6, 4, 5)), last=False)
    assert found.bandwidth == expected
    assert replace(found, bandwidth=1.0) == Peaks(2, 1, 19, 19, 19)


@pytest.mark.parametrize(("room", "expected"), [
    (None, True), (Room(2 * MEMORY), True), (Room(2 * MEMORY - 1), False),
])
def test_memory_that_is_short_is_left_alone(measured, monkeypatch, room, expected):
    monkeypatch.setattr(peaks, "room", lambda: room)
    PeakMeter().measure(1)
    assert measured == [(1, expected)]


def test_compiling_is_announced(measured, monkeypatch):
    said = []

    def measure(threads: int, *, memory: bool) -> Peaks:
        from lcpu.kernels import jit

        jit._listener("a kernel")
        return Peaks(threads, 1, 1, 1, 1)

    monkeypatch.setattr(peaks, "measure", measure)
    PeakMeter().measure(1, lambda *what: said.append(what))
    assert said == [("compiling", 0, 0)]


def test_what_is_left_is_known_here():
    assert memory.room() is None or memory.room().nbytes > 0
