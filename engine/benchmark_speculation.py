"""What `lcpu bench --spec` measures: generation with drafts that are right as often as it says.

The model's own greedy continuation is drafted, each token of it replaced by a wrong one with some probability. So the
model does all the work of real speculation, and only the drafter's skill is made up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np

from .batch import Piece
from .benchmark import SPECULATION_PROMPT, Case, Result
from .model import BATCH, Model
from .options import GenerationOptions
from .sampler import Sampler
from .speculation import Acceptance, Draft, Experience, Offer, Speculator, StepCosts, verify

_WARM_UP_TOKENS = 8

Timed = tuple[int, float]  # a step's tokens, and its seconds with the drafting


def speculative(generated: int, draft: int, acceptance: float) -> Case:
    """Generation with drafts of so many tokens, or with 0 as many as the engine chooses at each step."""
    return Case(generated=generated, draft=draft, acceptance=acceptance)


class SpeculationBenchmark:
    """Runs cases on a loaded model, and where there is a draft model, lets it take the steps of drafting."""

    def __init__(self, model: Model, draft_model: Model | None = None) -> None:
        self._model, self._draft_model = model, draft_model
        self._sampler = Sampler(GenerationOptions(temperature=0.0))
        self._costs, self._draft_costs = StepCosts(), StepCosts()
        self._text = list(range(SPECULATION_PROMPT))

    def run(self, case: Case, repetitions: int, *, warm_up: bool = True,
            progress: Callable[[str], None] = lambda what: None) -> Result:
        """Measure. progress(what) is called before each run; the context must hold the case's tokens and a prompt."""
        progress("generating the text to draft from")
        self._extend(SPECULATION_PROMPT + case.generated)
        if warm_up:
            progress("warm-up")
            self._measure(case, 0, min(case.generated, _WARM_UP_TOKENS))
        samples, all_plain, all_drafted = [], [], []
        for repetition in range(repetitions):
            progress(f"run {repetition + 1}/{repetitions}")
            plain, drafted = self._measure(case, repetition, case.generated)
            samples.append(round(1e9 * sum(seconds for _, seconds in drafted)))
            all_plain += plain
            all_drafted += drafted
        single = median(seconds for _, seconds in all_plain)
        return Result(case, tuple(samples), speed_up=single * repetitions * case.generated / _steady(all_drafted))

    def _extend(self, length: int) -> None:
        """Let the model continue the text greedily. Of what it knows, measuring leaves all as it was."""
        if len(self._text) == SPECULATION_PROMPT:
            _step(self._model, self._text[:-1], 0)
        while len(self._text) < length:
            self._text += self._advance(len(self._text), [])

    def _measure(self, case: Case, seed: int, generated: int) -> tuple[list[Timed], list[Timed]]:
        """Steps of a generation, and before each of them a plain one."""
        drafter = _Drafter(self._text, case, np.random.default_rng(seed), self._draft_model, self._draft_costs)
        speculator = Speculator([drafter], self._costs, self._sampler)
        position, end = SPECULATION_PROMPT, SPECULATION_PROMPT + generated
        plain: list[Timed] = []
        drafted: list[Timed] = []
        while position < end:
            started = time.perf_counter()
            self._advance(position, [])
            between = time.perf_counter()
            room = end - position - 1
            draft = (Draft(drafter.tokens(position, min(case.draft, room)), drafter.acceptance) if case.draft
                     else speculator.propose(self._text[:position], room))
            tokens = self._advance(position, draft.tokens)
            ended = time.perf_counter()
            speculator.observe(draft, len(tokens), ended - between)
            plain.append((1, between - started))
            drafted.append((1 + len(draft.tokens), ended - between))
            position += len(tokens)
        return plain, drafted

    def _advance(self, position: int, draft: Sequence[int]) -> list[int]:
        """One step after the first `position` tokens: what the model says."""
        started = time.perf_counter()
        logits = _step(self._model, [self._text[position - 1], *draft], position - 1)
        self._costs.record(1 + len(draft), time.perf_counter() - started)
        return verify(self._sampler, logits, self._text[:position], draft)


class _Drafter:
    """Knows how the text goes on, and says so as often as the case wants."""

    def __init__(self, text: Sequence[int], case: Case, random: np.random.Generator, model: Model | None,
                 costs: StepCosts) -> None:
        self.acceptance = Acceptance(prior=0.8, weight=2)
        self.experience = Experience((self.acceptance,), credit=0.5)
        self._text, self._rate, self._random = text, case.acceptance or 0.0, random
        self._model, self._costs = model, costs
        self._seen = SPECULATION_PROMPT  # tokens that the draft model has computed, if all that it drafted was right

    def start(self, ids: Sequence[int]) -> None:
        pass

    def offer(self, ids: Sequence[int], sampler: Sampler) -> Offer:
        return Offer(self.acceptance, partial(self.tokens, len(ids)), next_seconds=self._costs.plain,
                     first_seconds=self._costs.seconds(len(ids) - min(self._seen, len(ids) - 1)))

    def tokens(self, position: int, count: int) -> list[int]:
        if self._model is not None:
            first = min(self._seen, position - 1)  # after a draft that was right to its end, it lacks two tokens
            for end in range(position, position + count):
                started = time.perf_counter()
                _step(self._model, self._text[first:end], first)
                self._costs.record(end - first, time.perf_counter() - started)
                first = end
            self._seen = first
        right = self._random.random(count) < self._rate
        # Where it is wrong, it names a neighbour: any token but the right one would do.
        return [token if ok else token ^ 1 for token, ok in zip(self._text[position : position + count], right,
                                                                strict=True)]


def _step(model: Model, tokens: Sequence[int], position: int) -> np.ndarray:
    """Logits after each of these tokens; of more than a batch, after the last ones."""
    size = model.h.vocab_size
    for first in range(0, len(tokens), BATCH):
        piece = [token % size for token in tokens[first : first + BATCH]]
        logits = model.step([Piece(piece, position + first, range(model.pool.most), len(piece))])
    return logits


def _steady(steps: Sequence[Timed]) -> float:
    """Seconds of all steps if each took the median of its size: what else the machine did meanwhile does not count."""
    by_size: dict[int, list[float]] = {}
    for size, seconds in steps:
        by_size.setdefault(size, []).append(seconds)
    return sum(len(times) * median(times) for times in by_size.values())
