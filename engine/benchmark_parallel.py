"""What `lcpu bench -np` measures: many sequences at once, as llama.cpp's llama-batched-bench does.

First all prompts are computed, or the one that all share, and then in each step one token of every sequence. Tokens are
random and nothing is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.pages import POSITIONS
from .batch import Piece
from .benchmark import WARM_UP_STEPS, Case, Result, Steps
from .model import Model


class ParallelBenchmark:
    """Runs cases on a loaded model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._random = np.random.default_rng(0)

    def run(self, case: Case, repetitions: int, *, warm_up: bool = True,
            progress: Callable[[str], None] = lambda what: None) -> Result:
        """Measure. progress(what) is called before each run; the context must hold a sequence of the case.

        Raises LcpuError if the cache does not hold all of them.
        """
        self.prepare(case, warm_up=warm_up, progress=progress)
        samples, prompt_samples = [], []
        for repetition in range(repetitions):
            progress(f"run {repetition + 1}/{repetitions}")
            prompt, generation = self._measure(case)
            samples.append(prompt + generation)
            prompt_samples.append(prompt)
        return Result(case, tuple(samples), prompt_samples_ns=tuple(prompt_samples))

    def prepare(self, case: Case, *, warm_up: bool, progress: Callable[[str], None]) -> None:
        """Take some steps of a case. Raises LcpuError if the cache does not hold all of its sequences."""
        if cache_tokens(case) > self._model.pool.count * POSITIONS:
            raise LcpuError(f"{case.name}: the cache needs {cache_tokens(case)} tokens, and memory is left for "
                            f"{self._model.pool.count * POSITIONS}: take fewer sequences (-np) or shorter ones "
                            "(-p, -n), or store keys and values in Q8_0 (-ctk q8_0 -ctv q8_0)")
        slots = self._model.pool.states.slots
        if 0 < slots < case.sequences:
            raise LcpuError(f"{case.name}: memory is left for the states of {slots} sequences: take fewer (-np)")
        if warm_up:
            progress("warm-up")
            self._measure(replace(case, generated=min(case.generated, WARM_UP_STEPS),
                                  prompt=min(case.prompt, POSITIONS)))

    def _measure(self, case: Case) -> tuple[int, int]:
        """Nanoseconds of the prompts, and of what is generated after them."""
        start = time.perf_counter_ns()
        for pieces in self.prompt(case):
            self._model.step(pieces)
        between = time.perf_counter_ns()
        for pieces in self.generation(case):
            self._model.step(pieces)
        return between - start, time.perf_counter_ns() - between

    def prompt(self, case: Case) -> Steps:
        """The steps of all prompts of a case, or of the one that its sequences share."""
        pages = _pages(case)
        if case.prompt:
            yield from self._prefill(pages[:1] if case.shared_prompt else pages, case.prompt, case.batch)
            if case.shared_prompt and case.prompt % POSITIONS:  # a page that all go on to write is copied
                last = case.prompt // POSITIONS
                for own in pages[1:]:
                    self._model.pool.copy(pages[0][last], own[last])

    def generation(self, case: Case) -> Steps:
        """The steps after the prompts, each with one token of every sequence."""
        pages = _pages(case)
        for position in range(case.prompt, case.prompt + case.generated):
            tokens = self._tokens(case.sequences)
            yield [Piece([token], position, own, 1) for token, own in zip(tokens, pages, strict=True)]

    def _prefill(self, pages: Sequence[Sequence[int]], count: int, batch: int) -> Steps:
        """The steps of prompts of so many tokens, one prompt after another; the logits of each one's last token."""
        pieces: list[Piece] = []
        room = batch
        for own in pages:
            start = 0
            while start < count:
                size = min(room, count - start)
                pieces.append(Piece(self._tokens(size), start, own, 1 if start + size == count else 0))
                start, room = start + size, room - size
                if not room:
                    yield pieces
                    pieces, room = [], batch
        if pieces:
            yield pieces

    def _tokens(self, count: int) -> list[int]:
        return self._random.integers(0, self._model.h.vocab_size, count).tolist()


def cache_tokens(case: Case) -> int:
    """Tokens that the pages of all sequences hold."""
    return POSITIONS * len({page for own in _pages(case) for page in own})


def _pages(case: Case) -> list[list[int]]:
    """The pages of each sequence. Those of a shared prompt are the same, but for the last one if it is not full."""
    shared = list(range(case.prompt // POSITIONS)) if case.shared_prompt else []
    own = -(-case.context // POSITIONS) - len(shared)
    return [[*shared, *range(len(shared) + i * own, len(shared) + (i + 1) * own)] for i in range(case.sequences)]
