"""Drafts from a smaller model with the same vocabulary.

Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding", 2023. That paper accepts
drafted tokens by rejection sampling. Here both models sample with the same random numbers, one for each position and
token, and a drafted token is accepted if both choose it. So the text does not depend on the draft (Daliri, Musco,
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
from .cost_model import CostModel
from .drafter import MAX_DRAFT, Acceptance, Proposal, Statistics

_TRIALS = 3  # first measurements of a step

Forward = Callable[[Sequence[int]], np.ndarray]


@dataclass
class DraftModelStatistics(Statistics):
    """Statistics with the cost of the draft model's own steps."""

    acceptances: tuple[Acceptance, ...] = field(default_factory=lambda: (Acceptance(prior=0.85, weight=8),))
    initial_budget: float = 1.0
    costs: CostModel = field(default_factory=CostModel)  # of its steps, with the sampling of the token


class DraftModel:
    """A model that drafts one token after another."""

    def __init__(self, forward: Forward, context: int, vocab_size: int, target_vocab_size: int,
                 statistics: DraftModelStatistics | None = None) -> None:
        """forward(ids) -> logits [vocab_size] after the last id. It reuses what earlier calls have computed.

        statistics: from earlier texts, by default new ones.
        """
        self.statistics = statistics or DraftModelStatistics()
        self._forward, self._context = forward, context
        self._vocab_size, self._target_vocab_size = vocab_size, target_vocab_size
        self._costs = self.statistics.costs
        self._computed = 0  # ids that the model has computed, if its last draft was accepted

    def start(self, ids: Sequence[int]) -> None:
        """Compute a long prompt; a short one can wait for the first draft. Measure a step if none was measured yet."""
        new = not self._costs.plain
        if len(ids) <= self._context and (new or len(ids) > MAX_DRAFT):
            self._logits(ids)
            for _ in range(_TRIALS if new else 0):
                started = time.perf_counter()
                self._logits(ids)
                self._costs.record(1, time.perf_counter() - started)

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal | None:
        max_tokens = min(MAX_DRAFT, self._context - len(ids) + 1)
        if max_tokens < 1:
            return None
        return Proposal(self.statistics.acceptances[0], lambda count: self._tokens(ids, count, sampler), max_tokens,
                        self._costs.seconds(self._pending(ids)), self._costs.plain)

    def _pending(self, ids: Sequence[int]) -> int:
        """How many ids the next step must compute: at least the last one."""
        return max(1, len(ids) - self._computed)

    def _tokens(self, ids: Sequence[int], count: int, sampler: Sampler) -> list[int]:
        text = list(ids)
        for _ in range(count):
            started, pending = time.perf_counter(), self._pending(text)
            text.append(sampler.choose(self._logits(text), text))
            self._costs.record(pending, time.perf_counter() - started)
        return text[len(ids) :]

    def _logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits for the target's tokens. Those that the draft model lacks are -inf."""
        logits = self._forward(self._known(ids))[: self._target_vocab_size]
        self._computed = len(ids)
        missing = self._target_vocab_size - len(logits)
        return np.pad(logits, (0, missing), constant_values=-np.inf) if missing else logits

    def _known(self, ids: Sequence[int]) -> Sequence[int]:
        """The text with token 0 for each token that the draft model lacks. This only makes the draft a little worse."""
        if self._vocab_size >= self._target_vocab_size:
            return ids
        return [token if token < self._vocab_size else 0 for token in ids]


def check_vocabulary(target: Tokenizer, draft: Tokenizer) -> None:
    """Raises LcpuError unless both vocabularies are the same; one of them may have more tokens at its end."""
    ours, theirs = target.vocabulary.tokens, draft.vocabulary.tokens
    shared = min(len(ours), len(theirs))
    if ours[:shared] != theirs[:shared]:
        token = next(i for i in range(shared) if ours[i] != theirs[i])
        raise LcpuError(f"the draft model has another vocabulary: token {token} is {theirs[token]!r} there and "
                        f"{ours[token]!r} in the model; take a draft model of the same family")
