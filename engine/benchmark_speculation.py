"""What `lcpu bench --spec` measures: generation with drafts that are right as often as it says.

The model's own greedy continuation is drafted, each token of it replaced by a wrong one with some probability. So the
model does all the work of real speculation, and only the drafter's skill is made up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import numpy as np

from .benchmark import SPECULATION_PROMPT, Case, Result
from .model import Model
from .options import GenerationOptions
from .sampler import Sampler
from .speculation import Acceptance, Draft, Offer, Speculator, StepCosts, verify

_WARM_UP_TOKENS = 8


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
        samples, plain = [], []
        for repetition in range(repetitions):
            progress(f"run {repetition + 1}/{repetitions}")
            seconds, plain_seconds = self._measure(case, repetition, case.generated)
            samples.append(round(1e9 * seconds))
            plain.append(1e9 * plain_seconds)
        return Result(case, tuple(samples), speed_up=fmean(plain) / fmean(samples))

    def _extend(self, length: int) -> None:
        """Let the model continue the text greedily. Of what it knows, measuring leaves all as it was."""
        if len(self._text) == SPECULATION_PROMPT:
            _step(self._model, self._text[:-1], 0)
        while len(self._text) < length:
            self._text += self._advance(len(self._text), [])

    def _measure(self, case: Case, seed: int, generated: int) -> tuple[float, float]:
        """Seconds that generating took; and in plain steps, one of which is timed before each step with a draft."""
        drafter = _Drafter(self._text, case, np.random.default_rng(seed), self._draft_model, self._draft_costs)
        speculator = Speculator([drafter], self._costs, self._sampler)
        position, end = SPECULATION_PROMPT, SPECULATION_PROMPT + generated
        seconds = plain_seconds = 0.0
        steps = 0
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
            plain_seconds += between - started
            seconds += ended - between
            position += len(tokens)
            steps += 1
        return seconds, plain_seconds / steps * generated

    def _advance(self, position: int, draft: Sequence[int]) -> list[int]:
        """One step after the first `position` tokens: what the model says."""
        started = time.perf_counter()
        logits = _step(self._model, [self._text[position - 1], *draft], position - 1)
        self._costs.record(1 + len(draft), time.perf_counter() - started)
        return verify(self._sampler, logits, self._text[:position], draft)


class _Drafter:
    """Knows how the text goes on, and says so as often as the case wants."""

    credit = 0.5

    def __init__(self, text: Sequence[int], case: Case, random: np.random.Generator, model: Model | None,
                 costs: StepCosts) -> None:
        self.acceptance = Acceptance(prior=0.8, weight=2)
        self._text, self._rate, self._random = text, case.acceptance or 0.0, random
        self._model, self._costs = model, costs
        self._seen = SPECULATION_PROMPT  # tokens that the draft model has computed, if all that it drafted was right

    def start(self, ids: Sequence[int]) -> None:
        pass

    def offer(self, ids: Sequence[int], sampler: Sampler) -> Offer:
        seconds = self._costs.seconds(1)
        return Offer(self.acceptance, partial(self.tokens, len(ids)), first_seconds=seconds, next_seconds=seconds)

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
    """Logits after each of these tokens, all of which the model is made to know."""
    size, count = model.h.vocab_size, len(tokens)
    return model.step([token % size for token in tokens], [0] * count, range(position, position + count), range(count))
