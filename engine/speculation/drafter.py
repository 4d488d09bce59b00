"""What drafters have in common: proposals, and statistics of how often drafted tokens were accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..sampler import Sampler

MAX_DRAFT = 16  # the largest number of tokens in a draft
_DECAY = 0.985  # weight of older observations, for each newly observed token
_DECLINED_DECAY = 0.97  # and for each declined proposal: towards the prior, so that a drafter is tried again some day


class Acceptance:
    """The probability that a drafted token is accepted if all before it were: a moving average over past drafts."""

    def __init__(self, prior: float, weight: float) -> None:
        """prior: the rate before the first draft, weighted like `weight` observed tokens. It should be optimistic, as
        only drafts that are made are observed."""
        self._prior, self._weight = prior, weight
        self._drafted = self._accepted = 0.0

    @property
    def rate(self) -> float:
        return (self._accepted + self._prior * self._weight) / (self._drafted + self._weight)

    def observe(self, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens, the first `accepted` were accepted. Those after the first rejected one do not count."""
        counted = min(accepted + 1, drafted)
        self._scale(_DECAY**counted)
        self._drafted += counted
        self._accepted += accepted

    def decay(self) -> None:
        """A proposal was declined: move a little towards the prior."""
        self._scale(_DECLINED_DECAY)

    def _scale(self, factor: float) -> None:
        self._drafted *= factor
        self._accepted *= factor


@dataclass
class Statistics:
    """What was measured of a drafter. They are kept from one text to the next. `Speculator` explains the budget."""

    acceptances: tuple[Acceptance, ...]  # one for each kind of draft that it makes
    initial_budget: float  # in plain steps
    budget: float = field(init=False)  # in plain steps: how much slower than plain decoding its drafts may still be

    def __post_init__(self) -> None:
        self.budget = self.initial_budget

    def start(self) -> None:
        """Begin a new text: a loss in earlier texts still counts, a gain does not."""
        self.budget = min(self.budget, self.initial_budget)


@dataclass(frozen=True)
class Proposal:
    """A draft that a drafter can make now, and what that costs. Nothing is drafted before `tokens` is called."""

    acceptance: Acceptance
    tokens: Callable[[int], list[int]]  # tokens(count) drafts `count` tokens
    max_tokens: int = MAX_DRAFT
    first_token_seconds: float = 0.0  # time to draft the first token
    next_token_seconds: float = 0.0  # time to draft each further token


class Drafter(Protocol):
    """Proposes tokens that may follow a text."""

    @property
    def statistics(self) -> Statistics:
        """Shared by all drafters of the kind."""

    def start(self, ids: Sequence[int]) -> None:
        """Prepare for a text that begins with these tokens; forget the one before."""

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal | None:
        """A draft that may follow `ids`, a text that only grows since `start`; or None."""
