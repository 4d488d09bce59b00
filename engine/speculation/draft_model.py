"""Drafts from a smaller model with the same vocabulary.

Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding", 2023. Where that paper
accepts a drafted token by chance, here both models choose with the same random numbers, which belong to a position and
a token, and a draft is right if both choose the same: so the text does not depend on what was drafted (Daliri, Musco,
Suresh, "Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...kernels.errors import LcpuError
from ..sampler import Sampler
from ..tokenizer import Tokenizer
from .costs import StepCosts
from .drafter import MOST, Acceptance, Experience, Offer

_TRIALS = 3

Forward = Callable[[Sequence[int]], np.ndarray]


@dataclass
class DraftExperience(Experience):
    """With a draft model, which unlike other drafters takes time."""

    acceptances: tuple[Acceptance, ...] = field(default_factory=lambda: (Acceptance(prior=0.85, weight=8),))
    credit: float = 1.0
    costs: StepCosts = field(default_factory=StepCosts)  # of its steps, with the choice of the token


class DraftModel:
    """A model that drafts one token after another."""

    def __init__(self, forward: Forward, context: int, vocab_size: int, target_vocab_size: int,
                 experience: DraftExperience | None = None) -> None:
        """forward(ids) -> logits [vocab_size] after the last id; it computes only what follows the ids before.

        experience: with other texts, if there were some.
        """
        self.experience = experience or DraftExperience()
        self._forward, self._context = forward, context
        self._vocab_size, self._target_vocab_size = vocab_size, target_vocab_size
        self._costs = self.experience.costs
        self._computed = 0  # ids that the model has seen, if all that it drafted was right

    def start(self, ids: Sequence[int]) -> None:
        """Compute a long prompt: a short one can wait for the first draft. Learn what a token costs, if that is new."""
        new = not self._costs.plain
        if len(ids) <= self._context and (new or len(ids) > MOST):
            self._logits(ids)
            for _ in range(_TRIALS if new else 0):
                started = time.perf_counter()
                self._logits(ids)
                self._costs.record(1, time.perf_counter() - started)

    def offer(self, ids: Sequence[int], sampler: Sampler) -> Offer | None:
        most = min(MOST, self._context - len(ids) + 1)
        if most < 1:
            return None
        return Offer(self.experience.acceptances[0], lambda count: self._tokens(ids, count, sampler), most,
                     self._costs.seconds(self._behind(ids)), self._costs.plain)

    def _behind(self, ids: Sequence[int]) -> int:
        """Ids that the model has yet to see, the last one among them."""
        return max(1, len(ids) - self._computed)

    def _tokens(self, ids: Sequence[int], count: int, sampler: Sampler) -> list[int]:
        text = list(ids)
        for _ in range(count):
            started, behind = time.perf_counter(), self._behind(text)
            text.append(sampler.choose(self._logits(text), text))
            self._costs.record(behind, time.perf_counter() - started)
        return text[len(ids) :]

    def _logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits for the target's tokens, of which those that the model lacks are impossible."""
        logits = self._forward(self._known(ids))[: self._target_vocab_size]
        self._computed = len(ids)
        missing = self._target_vocab_size - len(logits)
        return np.pad(logits, (0, missing), constant_values=-np.inf) if missing else logits

    def _known(self, ids: Sequence[int]) -> Sequence[int]:
        """The text with another token for each that the model lacks: this costs the draft some of its quality only."""
        if self._vocab_size >= self._target_vocab_size:
            return ids
        return [token if token < self._vocab_size else 0 for token in ids]


def check_vocabulary(target: Tokenizer, draft: Tokenizer) -> None:
    """Raises LcpuError unless both know the same tokens; one may know more of them at the end."""
    ours, theirs = target.vocabulary.tokens, draft.vocabulary.tokens
    shared = min(len(ours), len(theirs))
    if ours[:shared] != theirs[:shared]:
        token = next(i for i in range(shared) if ours[i] != theirs[i])
        raise LcpuError(f"the draft model has another vocabulary: token {token} is {theirs[token]!r} there and "
                        f"{ours[token]!r} in the model; take a draft model of the same family")
