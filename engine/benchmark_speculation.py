"""What `lcpu bench --spec` measures: speculative decoding at a given acceptance rate.

The draft is the model's own greedy continuation, in which each token is replaced by a wrong one with some probability.
So the model does all the work of real speculative decoding, and only the acceptance rate is simulated.
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
from .speculation import Acceptance, CostModel, Draft, Proposal, Speculator, Statistics, verify

_WARM_UP_TOKENS = 8

Timed = tuple[int, float]  # a step's tokens, and its seconds with the drafting


def speculative(generated: int, draft: int, acceptance: float) -> Case:
    """Generation with drafts of `draft` tokens. 0: the engine chooses the length at each step."""
    return Case(generated=generated, draft=draft, acceptance=acceptance)


class SpeculationBenchmark:
    """Runs cases on a loaded model. A draft model, if there is one, computes the steps of drafting."""

    def __init__(self, model: Model, draft_model: Model | None = None) -> None:
        self._model, self._draft_model = model, draft_model
        self._sampler = Sampler(GenerationOptions(temperature=0.0))
        self._costs, self._draft_costs = CostModel(), CostModel()
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
        """Let the model continue the text greedily. Its cache still holds all of the text after a measurement."""
        if len(self._text) == SPECULATION_PROMPT:
            _step(self._model, self._text[:-1], 0)
        while len(self._text) < length:
            self._text += self._advance(len(self._text), [])

    def _measure(self, case: Case, seed: int, generated: int) -> tuple[list[Timed], list[Timed]]:
        """(plain steps, drafted steps) of a generation: before each drafted step, the same step is done plainly."""
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
                     else speculator.choose_draft(self._text[:position], room))
            tokens = self._advance(position, draft.tokens)
            ended = time.perf_counter()
            speculator.observe(draft, len(tokens), ended - between)
            plain.append((1, between - started))
            drafted.append((1 + len(draft.tokens), ended - between))
            position += len(tokens)
        return plain, drafted

    def _advance(self, position: int, draft: Sequence[int]) -> list[int]:
        """One step after the first `position` tokens: the tokens that the model chooses."""
        started = time.perf_counter()
        logits = _step(self._model, [self._text[position - 1], *draft], position - 1)
        self._costs.record(1 + len(draft), time.perf_counter() - started)
        return verify(self._sampler, logits, self._text[:position], draft)


class _Drafter:
    """Drafts the known continuation of the text, with as many wrong tokens as the case asks for."""

    def __init__(self, text: Sequence[int], case: Case, random: np.random.Generator, model: Model | None,
                 costs: CostModel) -> None:
        self.acceptance = Acceptance(prior=0.8, weight=2)
        self.statistics = Statistics((self.acceptance,), initial_budget=0.5)
        self._text, self._rate, self._random = text, case.acceptance or 0.0, random
        self._model, self._costs = model, costs
        self._seen = SPECULATION_PROMPT  # tokens that the draft model has computed, if its last draft was accepted

    def start(self, ids: Sequence[int]) -> None:
        pass

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal:
        return Proposal(self.acceptance, partial(self.tokens, len(ids)), next_token_seconds=self._costs.plain,
                        first_token_seconds=self._costs.seconds(len(ids) - min(self._seen, len(ids) - 1)))

    def tokens(self, position: int, count: int) -> list[int]:
        if self._model is not None:
            first = min(self._seen, position - 1)  # two tokens are missing after a fully accepted draft
            for end in range(position, position + count):
                started = time.perf_counter()
                _step(self._model, self._text[first:end], first)
                self._costs.record(end - first, time.perf_counter() - started)
                first = end
            self._seen = first
        right = self._random.random(count) < self._rate
        # A wrong token is the neighbour of the right one; any other token would do.
        return [token if ok else token ^ 1 for token, ok in zip(self._text[position : position + count], right,
                                                                strict=True)]


def _step(model: Model, tokens: Sequence[int], position: int) -> np.ndarray:
    """Logits after each of these tokens. If they are more than a batch, only after those of the last batch."""
    size = model.h.vocab_size
    for first in range(0, len(tokens), BATCH):
        piece = [token % size for token in tokens[first : first + BATCH]]
        logits = model.step([Piece(piece, position + first, range(model.pool.most), len(piece))])
    return logits


def _steady(steps: Sequence[Timed]) -> float:
    """Seconds of all steps if each took the median time of its size, so that disturbed steps do not count."""
    by_size: dict[int, list[float]] = {}
    for size, seconds in steps:
        by_size.setdefault(size, []).append(seconds)
    return sum(len(times) * median(times) for times in by_size.values())
