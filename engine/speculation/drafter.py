"""What drafters have in common: an offer that can be weighed before it is taken, and a memory of how often they are
right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..sampler import Sampler

MOST = 16  # tokens of a draft
_MEMORY = 0.985  # weight of what is one drafted token older
_FORGETTING = 0.97  # the same for each offer that is declined: a drafter gets another chance some day


class Acceptance:
    """How likely a drafted token is to be right once those before it are: a moving average over the drafts so far."""

    def __init__(self, prior: float, weight: float) -> None:
        """prior: the rate before the first draft, worth `weight` tokens of experience; high, as to try is to learn."""
        self._prior, self._weight = prior, weight
        self._offered = self._accepted = 0.0

    @property
    def rate(self) -> float:
        return (self._accepted + self._prior * self._weight) / (self._offered + self._weight)

    def observe(self, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens the first `accepted` were right; those after the first wrong one say nothing."""
        tried = min(accepted + 1, drafted)
        self._fade(_MEMORY**tried)
        self._offered += tried
        self._accepted += accepted

    def forget(self) -> None:
        self._fade(_FORGETTING)

    def _fade(self, factor: float) -> None:
        self._offered *= factor
        self._accepted *= factor


@dataclass
class Experience:
    """What is known of a drafter. It outlives the text: the next one begins with what was learned from this one."""

    acceptances: tuple[Acceptance, ...]  # of each kind of draft that it makes
    credit: float  # plain steps that it may lose at the beginning, before it has gained anything
    balance: float = field(init=False)  # plain steps that it may still lose

    def __post_init__(self) -> None:
        self.balance = self.credit

    def start(self) -> None:
        """A new text: what others have gained is not there to be lost in it, what they have lost is lost."""
        self.balance = min(self.balance, self.credit)


@dataclass(frozen=True)
class Offer:
    """What a drafter would propose now."""

    acceptance: Acceptance
    tokens: Callable[[int], list[int]]  # tokens(count) drafts so many
    most: int = MOST
    first_seconds: float = 0.0  # what the first token of the draft costs
    next_seconds: float = 0.0  # and each one after it


class Drafter(Protocol):
    """Proposes how a text goes on."""

    @property
    def experience(self) -> Experience:
        """Shared by all drafters of the kind."""

    def start(self, ids: Sequence[int]) -> None:
        """Get ready for a text that begins with these tokens; forget the one before."""

    def offer(self, ids: Sequence[int], sampler: Sampler) -> Offer | None:
        """What may follow `ids`, a text that only grows since `start`; None if there is no idea."""
