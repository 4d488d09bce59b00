"""Which steps the benchmark of many sequences takes, in which pages, and what it makes of their times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lcpu.engine.batch import Piece
from lcpu.engine.benchmark import WARM_UP_STEPS, Case
from lcpu.engine.benchmark_parallel import ParallelBenchmark, cache_tokens
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.model import Model
from lcpu.kernels.errors import LcpuError


class Recorder:
    """A model that remembers its steps and copies. A step takes a millisecond, and one more for each token."""

    h = SimpleNamespace(vocab_size=100)

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pages: int = 64) -> None:
        self.steps: list[list[Piece]] = []
        self.copies: list[tuple[int, int]] = []
        self.pool = SimpleNamespace(count=pages, copy=lambda source, target: self.copies.append((source, target)),
                                    states=SimpleNamespace(slots=0))
        self.now = 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)

    def step(self, pieces: Sequence[Piece]) -> None:
        self.steps.append(list(pieces))
        self.now += 1_000_000 * (1 + sum(len(piece.tokens) for piece in pieces))

    @property
    def shapes(self) -> list[list[tuple[int, int, int]]]:
        """Start, tokens and outputs of each piece of each step."""
        return [[(piece.start, len(piece.tokens), piece.outputs) for piece in step] for step in self.steps]


def test_prompts_and_then_a_token_of_each_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recorder(monkeypatch)
    case = Case(150, 2, batch=200, sequences=3)
    result = ParallelBenchmark(model).run(case, 2, warm_up=False)
    once = [[(0, 150, 1), (0, 50, 0)], [(50, 100, 1), (0, 100, 0)], [(100, 50, 1)],
            [(150, 1, 1)] * 3, [(151, 1, 1)] * 3]  # fmt: skip
    assert model.shapes == once * 2
    assert not model.copies
    pages = [piece.pages for piece in model.steps[3]]
    assert pages == [[0, 1], [2, 3], [4, 5]]
    assert [piece.pages for step in model.steps[:3] for piece in step] == [[0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]
    assert result.samples_ns == (461_000_000,) * 2
    assert result.prompt_samples_ns == (453_000_000,) * 2
    assert (result.prompt_seconds, result.generation_seconds) == pytest.approx((0.453, 0.008))
    assert (case.tokens, case.context, case.name) == (456, 152, "pp150+tg2 x3")
    assert result.avg_ts == pytest.approx(456 / 0.461)


def test_a_shared_prompt_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All read its whole pages; the last one, which is not full, is copied for each of the others."""
    model = Recorder(monkeypatch)
    case = Case(300, 1, sequences=3, shared_prompt=True)
    result = ParallelBenchmark(model).run(case, 1, warm_up=False)
    assert model.shapes == [[(0, 300, 1)], [(300, 1, 1)] * 3]
    assert [piece.pages for piece in model.steps[1]] == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
    assert model.copies == [(2, 3), (2, 4)]
    assert result.prompt_samples_ns == (301_000_000,)
    assert (case.tokens, case.name, cache_tokens(case)) == (303, "pp300+tg1 x3 shared", 5 * 128)
    model.copies.clear()
    ParallelBenchmark(model).run(Case(256, 1, sequences=3, shared_prompt=True), 1, warm_up=False)
    assert not model.copies
    assert [piece.pages for piece in model.steps[-1]] == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]


def test_prompts_only_and_generation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recorder(monkeypatch)
    result = ParallelBenchmark(model).run(Case(4, 0, sequences=2), 1, warm_up=False)
    assert (model.shapes, result.generation_seconds) == ([[(0, 4, 1), (0, 4, 1)]], pytest.approx(0))
    model.steps.clear()
    result = ParallelBenchmark(model).run(Case(0, 2, sequences=2), 1, warm_up=False)
    assert (model.shapes, result.prompt_seconds) == ([[(0, 1, 1)] * 2, [(1, 1, 1)] * 2], 0)


def test_warm_up_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = Recorder(monkeypatch), []
    ParallelBenchmark(model).run(Case(300, 9, sequences=2), 1, progress=said.append)
    assert said == ["warm-up", "run 1/1"]
    steps = [[(128 + i, 1, 1)] * 2 for i in range(WARM_UP_STEPS)]
    assert model.shapes[: 1 + WARM_UP_STEPS] == [[(0, 128, 1)] * 2, *steps]
    assert model.shapes[1 + WARM_UP_STEPS][0] == (0, 300, 1)


def test_too_few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recorder(monkeypatch, pages=5)
    with pytest.raises(LcpuError, match=r"pp150\+tg2 x3: the cache needs 768 tokens, and memory is left for 640: take"):
        ParallelBenchmark(model).run(Case(150, 2, sequences=3), 1)
    assert not model.steps


@pytest.mark.parametrize("shared", [False, True])
def test_a_real_model(tiny_gguf: Path, shared: bool) -> None:
    """Each sequence has its own positions: what they compute is what each would compute alone."""
    case = Case(140, 5, sequences=4, shared_prompt=shared)
    with GGUFFile.open(tiny_gguf) as file:
        model = Model(file, case.context, 2, cache_tokens=cache_tokens(case))
        step, steps, found = model.step, [], []

        def recorded(pieces: Sequence[Piece]) -> np.ndarray:
            steps.append(list(pieces))
            logits = step(pieces)
            found.append(logits.copy())
            return logits

        model.step = recorded  # type: ignore[method-assign]
        result = ParallelBenchmark(model).run(case, 1, warm_up=False)
        assert 0 < result.prompt_samples_ns[0] < result.samples_ns[0]
        generated = steps[-5:]
        for number in range(4):
            pages = generated[0][number].pages
            prompt = [token for pieces in steps[:-5] for piece in pieces if shared or piece.pages == pages
                      for token in piece.tokens]
            assert len(prompt) == 140
            alone = step([Piece([*prompt, *(each[number].tokens[0] for each in generated)], 0, range(2), 5)])
            assert np.array_equal(alone, [logits[number] for logits in found[-5:]])
        model.close()
