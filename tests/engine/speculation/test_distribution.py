"""Sampled text with drafts: the same text for a seed, and tokens as often as the model's distribution says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import Sampler
from lcpu.engine.speculation import Acceptance, CostModel, Drafter, NGrams, Proposal, Speculator, Statistics, verify

VOCAB, TEXTS, LENGTH = 6, 300, 24
_random = np.random.default_rng(3)
TARGET = (_random.standard_normal((VOCAB, VOCAB)) * 1.5).astype(np.float32)  # logits by the last token
SIMILAR = TARGET + _random.standard_normal((VOCAB, VOCAB)).astype(np.float32) * 0.3


class Table:
    """Samples from a table of logits, as a draft model does."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.acceptance = table, Acceptance(1.0, 1e9)  # always wanted
        self.statistics = Statistics((self.acceptance,), initial_budget=1e9)

    def start(self, ids: Sequence[int]) -> None:
        pass

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal | None:
        def tokens(count: int) -> list[int]:
            text = list(ids)
            for _ in range(count):
                text.append(self.next(text, sampler))
            return text[len(ids) :]

        return Proposal(self.acceptance, tokens, max_tokens=3)

    def next(self, text: Sequence[int], sampler: Sampler) -> int:
        return sampler.choose(self.table[text[-1]], text)


class Adversary(Table):
    """Knows what the model will choose, and drafts it only if it is an even token, to lure the text towards them."""

    def next(self, text: Sequence[int], sampler: Sampler) -> int:
        token = sampler.choose(TARGET[text[-1]], text)
        return token if token % 2 == 0 else (token + 1) % VOCAB


DRAFTERS: dict[str, Any] = {
    "good": lambda: Table(SIMILAR),
    "bad": lambda: Table(-TARGET),
    "adversarial": lambda: Adversary(TARGET),
    "n-grams": NGrams,
}


def text_of(drafters: Sequence[Drafter], options: GenerationOptions) -> tuple[list[int], Speculator]:
    """A text of the model, one step after another."""
    sampler, costs = Sampler(options), CostModel()
    costs.record(1, 1.0)
    costs.record(17, 1.0)
    speculator = Speculator(drafters, costs, sampler)
    ids = [0]
    while len(ids) <= LENGTH:
        draft = speculator.choose_draft(ids, LENGTH - len(ids))
        logits = TARGET[[ids[-1], *draft.tokens]]
        tokens = verify(sampler, logits, ids, draft.tokens)
        speculator.observe(draft, len(tokens), 1.0)
        ids += tokens
    return ids, speculator


def chain(last: int, options: GenerationOptions) -> dict[int, float]:
    """Probabilities of the next token: temperature, and top-k where there is one."""
    order = sorted(range(VOCAB), key=lambda token: -TARGET[last, token])[: options.top_k or VOCAB]
    weights = {token: math.exp(float(TARGET[last, token]) / options.temperature) for token in order}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize("drafter", list(DRAFTERS))
@pytest.mark.parametrize("settings", [{"temperature": 1.0, "top_k": 0}, {"temperature": 0.7, "top_k": 4}], ids=str)
def test_frequencies_and_texts(drafter: str, settings: dict[str, Any]) -> None:
    """Chi-square over thousands of draws after each token; and draft for draft the same text as without."""
    followers: dict[int, Counter[int]] = {token: Counter() for token in range(VOCAB)}
    drafted = accepted = 0
    for seed in range(TEXTS):
        options = GenerationOptions(**{"top_p": 1.0, "min_p": 0.0, "seed": seed, **settings})
        ids, speculator = text_of([DRAFTERS[drafter]()], options)
        assert ids == text_of([], options)[0]
        drafted += speculator.figures.drafted
        accepted += speculator.figures.accepted
        for last, token in pairwise(ids):
            followers[last][token] += 1
    assert drafted > TEXTS * (1 if drafter == "n-grams" else 5)
    assert accepted > drafted * {"good": 0.5, "n-grams": 0.1}.get(drafter, 0.0)
    chi_square = freedom = 0.0
    for last, counted in followers.items():
        expected, count = chain(last, options), sum(counted.values())
        assert set(counted) <= set(expected)
        chi_square += sum((counted[token] - count * p) ** 2 / (count * p) for token, p in expected.items() if count)
        freedom += (len(expected) - 1) * bool(count)
    assert sum(map(Counter.total, followers.values())) == TEXTS * LENGTH
    assert chi_square <= freedom + 4 * math.sqrt(2 * freedom)


def test_the_check_sees_a_biased_text() -> None:
    """Taking what the adversary drafts as it is would be noticed."""
    options = GenerationOptions(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
    sampler, adversary = Sampler(options), Adversary(TARGET)
    counted = Counter(adversary.next([0] * length, sampler) for length in range(1, 3000))
    expected = chain(0, options)
    chi_square = sum((counted[token] - 2999 * p) ** 2 / (2999 * p) for token, p in expected.items())
    assert chi_square > 100
