"""Deciding at each step whether to draft, with which drafter and how far; and checking what was drafted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from ..sampler import Sampler
from .costs import StepCosts
from .drafter import Acceptance, Drafter, Offer

_STAKE = 0.0025  # of the time that plain decoding takes, each drafter may lose at most, beyond its credit
_PAUSE = 3.0  # times longer than expected is not what a step costs
_LOOK = 0.0025  # of the time, looking for drafts may take where none is found
_LONGEST_REST = 255  # steps without a look, and no more
_HOPELESS = 0.02  # chance that a drafted token is reached, below which a longer draft is not looked at


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next, and whose they are."""

    tokens: list[int]
    acceptance: Acceptance | None = None
    drafter: int = 0  # its number
    drafting: float = 0.0  # seconds that drafting them was expected to take
    seconds: float = 0.0  # and all of the step


NO_DRAFT = Draft([])


@dataclass
class Figures:
    """What came of the drafts of a text."""

    drafted: int = 0  # tokens
    accepted: int = 0
    drafts: int = 0
    seconds: float = 0.0  # of all steps but the prompt's, and of drafting
    plain_seconds: float = 0.0  # what they would have taken without drafts, by what steps of one token took

    def plus(self, other: Figures) -> Figures:
        """Those of both texts."""
        return Figures(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def acceptance_rate(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def mean_accepted(self) -> float:
        """Tokens of a draft that were right."""
        return self.accepted / self.drafts if self.drafts else 0.0

    @property
    def speed_up(self) -> float:
        return self.plain_seconds / self.seconds if self.seconds else 1.0


class Speculator:
    """Chooses the draft that promises most tokens per second, none if that is best, and learns from what came of it.

    A drafter may spend what its drafts have gained, and beyond that only a small part of the time: a text that cannot
    be guessed takes hardly longer than without drafts.
    """

    def __init__(self, drafters: Sequence[Drafter], costs: StepCosts, sampler: Sampler) -> None:
        self.figures = Figures()
        self._drafters, self._costs, self._sampler = drafters, costs, sampler
        self._rest = 0  # steps without a look at what drafters offer
        self._looks = deque([0.0], maxlen=5)  # seconds that looking took

    def start(self, ids: Sequence[int]) -> None:
        """The prompt, or what is left of a text that was cut; not part of the figures."""
        for drafter in self._drafters:
            drafter.experience.start()
            drafter.start(ids)

    def propose(self, ids: Sequence[int], room: int) -> Draft:
        """A draft of at most `room` tokens after `ids`."""
        if self._rest or not self._costs.plain:  # nothing can be weighed before the first step
            self._rest = max(0, self._rest - 1)
            return NO_DRAFT
        started, looking = time.perf_counter(), self._looking()
        chosen: tuple[int, Offer, int] | None = None
        best = 1.0
        for number, drafter in enumerate(self._drafters):
            offer = drafter.offer(ids, self._sampler)
            if offer is None:
                continue
            length, gain = self._best_length(offer, room, drafter.experience.balance, looking)
            if gain > best:
                best, chosen = gain, (number, offer, length)
            elif length == 0:
                offer.acceptance.forget()
        self._looks.append(time.perf_counter() - started)
        if chosen is None:
            self._rest = min(int(self._looking() / (_LOOK * self._costs.plain)), _LONGEST_REST)
            return NO_DRAFT
        number, offer, length = chosen
        drafting = looking + offer.first_seconds + (length - 1) * offer.next_seconds
        seconds = self._costs.seconds(1 + length) + drafting
        return Draft(offer.tokens(length), offer.acceptance, number, drafting, seconds)

    def _looking(self) -> float:
        """Seconds that a look for drafts takes."""
        return sorted(self._looks)[len(self._looks) // 2]

    def _best_length(self, offer: Offer, room: int, balance: float, looking: float) -> tuple[int, float]:
        """The most profitable length, and the tokens that it promises in the time of a plain step; (0, 1) for none."""
        table = self._costs.table
        rate, plain = offer.acceptance.rate, table[1]
        affordable = (1 + balance) * plain
        length, most = 0, 1.0
        reached, expected, drafting = 1.0, 1.0, looking + offer.first_seconds
        for count in range(1, min(room, offer.most) + 1):
            seconds = table[1 + count] + drafting
            reached *= rate
            expected += reached
            if reached < _HOPELESS or seconds > affordable:
                break
            if expected * plain > most * seconds:
                length, most = count, expected * plain / seconds
            drafting += offer.next_seconds
        return length, most

    def observe(self, draft: Draft, tokens: int, seconds: float) -> None:
        """A step with this draft gave so many tokens, and took so long with the drafting of it."""
        drafted, accepted = len(draft.tokens), tokens - 1
        for drafter in self._drafters:
            drafter.experience.balance += _STAKE * tokens
        self.figures.seconds += seconds
        self.figures.plain_seconds += seconds if draft.acceptance is None else self._costs.plain * tokens
        if draft.acceptance is None:
            return
        # By what such steps usually take, and not much more than expected: a machine's pause is not the draft's fault.
        spent = min(self._costs.seconds(1 + drafted) + draft.drafting, _PAUSE * draft.seconds)
        self._drafters[draft.drafter].experience.balance += tokens - spent / self._costs.plain
        draft.acceptance.observe(drafted, accepted)
        self.figures.drafts += 1
        self.figures.drafted += drafted
        self.figures.accepted += accepted


def verify(sampler: Sampler, logits: np.ndarray, ids: Sequence[int], draft: Sequence[int],
           ends: Collection[int] = ()) -> list[int]:
    """The tokens that the sampler chooses after `ids`: all that were drafted rightly, and one more.

    logits: float32 [1 + drafted][vocab], after the last id and after each drafted token. Nothing is chosen after one of
    `ends`. At least one token, and never one that would not have been chosen without a draft.
    """
    text = list(ids)
    for row, expected in zip(logits, [*draft, None], strict=True):
        token = sampler.choose(row, text)
        text.append(token)
        if token != expected or token in ends:
            break
    return text[len(ids) :]
