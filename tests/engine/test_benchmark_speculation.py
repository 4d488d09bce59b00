"""`lcpu bench --spec`: real steps, drafts that are right as often as they should be, and the model's own text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine.batch import Piece
from lcpu.engine.benchmark_speculation import SpeculationBenchmark, speculative
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.model import Model


class Watched:
    """A model that remembers its steps: how many tokens, from which position on."""

    def __init__(self, path: Path) -> None:
        self._file = GGUFFile.open(path)
        self._model = Model(self._file, None, 1)
        self.h, self.pool, self.steps = self._model.h, self._model.pool, []  # type: ignore[var-annotated]

    def step(self, pieces: Sequence[Piece]) -> np.ndarray:
        (piece,) = pieces
        self.steps.append((len(piece.tokens), piece.start))
        return self._model.step(pieces)

    def close(self) -> None:
        self._model.close()
        self._file.close()


@pytest.fixture
def model(tiny_gguf: Path) -> Iterator[Watched]:
    model = Watched(tiny_gguf)
    yield model
    model.close()


def greedy(model: Watched, count: int) -> list[int]:
    """Step by step, in the plainest way."""
    text = [0, 1, 2, 3]
    while len(text) < count:
        logits = model.step([Piece(text, 0, [0], 1)])
        text.append(int(np.argmax(logits[0])))
    return text


def test_every_draft_right(model: Watched) -> None:
    benchmark = SpeculationBenchmark(model)  # type: ignore[arg-type]
    result = benchmark.run(speculative(20, 4, 1.0), 2, warm_up=False)
    assert len(result.samples_ns) == 2
    assert result.speed_up is not None
    assert result.speed_up > 0
    measured = model.steps[1 + 20 :]  # after the prompt and the text
    assert measured == 2 * [step for position in (3, 8, 13, 18) for step in ((1, position), (5, position))]
    assert benchmark._text == greedy(model, 24)


def test_every_draft_wrong(model: Watched) -> None:
    benchmark = SpeculationBenchmark(model)  # type: ignore[arg-type]
    benchmark.run(speculative(10, 3, 0.0), 1, warm_up=False)
    sizes = [size for size, _ in model.steps[1 + 10 :]]
    assert sizes == [1, 4] * 7 + [1, 3, 1, 2, 1, 1]  # at the end there is no room for as many
    assert benchmark._text == greedy(model, 14)


def test_some_drafts_right(model: Watched) -> None:
    """Steps are as many as a geometric number of right tokens makes of them, and the text grows later as well."""
    benchmark = SpeculationBenchmark(model)  # type: ignore[arg-type]
    benchmark.run(speculative(20, 3, 0.7), 1)
    before = len(model.steps)
    benchmark.run(speculative(50, 3, 0.7), 40, warm_up=False)
    drafted = [size for size, _ in model.steps[before + 30 :][1::2]]
    mean = 40 * 50 / len(drafted)
    assert mean == pytest.approx(1 + 0.7 + 0.7**2 + 0.7**3, rel=0.08)
    assert benchmark._text == greedy(model, 54)


def test_as_many_as_pay(model: Watched) -> None:
    benchmark = SpeculationBenchmark(model)  # type: ignore[arg-type]
    benchmark.run(speculative(50, 0, 0.0), 1)
    assert {size for size, _ in model.steps} <= set(range(1, 18))
    assert benchmark._text == greedy(model, 54)


def test_a_draft_model_takes_its_steps(model: Watched, tiny_gguf: Path) -> None:
    draft = Watched(tiny_gguf)
    SpeculationBenchmark(model, draft).run(speculative(10, 4, 1.0), 1, warm_up=False)  # type: ignore[arg-type]
    assert draft.steps == [(1, 3), (1, 4), (1, 5), (1, 6), (2, 7), (1, 9), (1, 10), (1, 11)]
    draft.close()
