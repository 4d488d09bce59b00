"""Drafts from the text itself: what followed the last tokens when they stood there before (prompt lookup).

Source: Saxena, "Prompt Lookup Decoding", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..sampler import Sampler
from .drafter import Acceptance, Experience, Offer

# How many tokens must agree, the longest first, for it is right most often: and how often that is, as a first guess.
_PRIORS = {6: 0.8, 4: 0.6, 2: 0.4}
_CREDIT = 0.25


class NGrams:
    """An index of all sequences of so many tokens. A token costs the same few operations however long the text is."""

    def __init__(self, experience: Experience | None = None) -> None:
        """experience: with other texts, if there were some (`NGrams.no_experience`)."""
        self.experience = experience or self.no_experience()
        self._positions: list[dict[tuple[int, ...], int]] = [{} for _ in _PRIORS]  # after the last of each sequence
        self._indexed = 0  # sequences that end before here are in it

    @staticmethod
    def no_experience() -> Experience:
        return Experience(tuple(Acceptance(prior, weight=2) for prior in _PRIORS.values()), _CREDIT)

    def start(self, ids: Sequence[int]) -> None:
        self._positions = [{} for _ in _PRIORS]
        self._indexed = 0
        self._index(ids)

    def offer(self, ids: Sequence[int], sampler: Sampler) -> Offer | None:
        """What followed the longest sequence that the text ends with, where it stood last."""
        self._index(ids)
        for length, positions, acceptance in zip(_PRIORS, self._positions, self.experience.acceptances, strict=True):
            position = positions.get(tuple(ids[-length:]))
            if position is not None:
                return Offer(acceptance, partial(_following, ids, position))
        return None

    def _index(self, ids: Sequence[int]) -> None:
        """Remember what comes after every sequence that something comes after: not after the one that ends the text."""
        for length, positions in zip(_PRIORS, self._positions, strict=True):
            first = max(length, self._indexed + 1)
            tokens = ids[first - length : -1]
            sequences = zip(*(tokens[i:] for i in range(length)), strict=False)
            positions.update(zip(sequences, range(first, len(ids)), strict=False))
        self._indexed = max(self._indexed, len(ids) - 1)


def _following(ids: Sequence[int], position: int, count: int) -> list[int]:
    """The tokens from a position on. Where they run into the end of the text, it repeats itself and may go on so."""
    period = len(ids) - position
    return [ids[position + i % period] for i in range(count)]
