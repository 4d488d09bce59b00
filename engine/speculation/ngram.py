"""Drafts from the text itself (prompt lookup): what followed the last few tokens where they occurred before.

Source: Saxena, "Prompt Lookup Decoding", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..sampler import Sampler
from .drafter import Acceptance, Proposal, Statistics

# Lengths of the n-grams that are looked up, and the prior acceptance rate of each. Longer matches predict better, so
# they come first.
_PRIORS = {6: 0.8, 4: 0.6, 2: 0.4}
_INITIAL_BUDGET = 0.25  # plain steps


class NGrams:
    """An index of all n-grams of a text. Adding a token takes constant time."""

    def __init__(self, statistics: Statistics | None = None) -> None:
        """statistics: from earlier texts, by default new ones."""
        self.statistics = statistics or self.new_statistics()
        self._positions: list[dict[tuple[int, ...], int]] = [{} for _ in _PRIORS]  # after the last one of each n-gram
        self._indexed = 0  # n-grams that end before this position are in the index

    @staticmethod
    def new_statistics() -> Statistics:
        return Statistics(tuple(Acceptance(prior, weight=2) for prior in _PRIORS.values()), _INITIAL_BUDGET)

    def start(self, ids: Sequence[int]) -> None:
        self._positions = [{} for _ in _PRIORS]
        self._indexed = 0
        self._index(ids)

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal | None:
        """What followed the last occurrence of the n-gram that the text ends with. The longest known n-gram counts."""
        self._index(ids)
        for length, positions, acceptance in zip(_PRIORS, self._positions, self.statistics.acceptances, strict=True):
            position = positions.get(tuple(ids[-length:]))
            if position is not None:
                return Proposal(acceptance, partial(_following, ids, position))
        return None

    def _index(self, ids: Sequence[int]) -> None:
        """Add all n-grams that a token follows: all but the ones at the end of the text."""
        for length, positions in zip(_PRIORS, self._positions, strict=True):
            first = max(length, self._indexed + 1)
            tokens = ids[first - length : -1]
            ngrams = zip(*(tokens[i:] for i in range(length)), strict=False)
            positions.update(zip(ngrams, range(first, len(ids)), strict=False))
        self._indexed = max(self._indexed, len(ids) - 1)


def _following(ids: Sequence[int], position: int, count: int) -> list[int]:
    """The tokens from a position on. At the end of the text, start again at that position: the text repeats itself."""
    period = len(ids) - position
    return [ids[position + i % period] for i in range(count)]
