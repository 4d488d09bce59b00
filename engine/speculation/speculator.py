"""Decide at each step whether to draft, with which drafter and how many tokens; verify what was drafted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from ..sampler import Sampler
from .cost_model import CostModel
from .drafter import MAX_DRAFT, Acceptance, Drafter, Proposal

_BUDGET_SHARE = 0.0025  # of the time of plain decoding: each drafter's budget grows by it
_OUTLIER = 3.0  # a step that takes so many times the expected time was disturbed: a draft is not charged for more
_PROPOSING_SHARE = 0.0025  # of the time of plain decoding: what asking for proposals may take where none is accepted
_MAX_BACK_OFF = 255  # steps
_MIN_PROBABILITY = 0.02  # of a draft to be accepted as a whole (a^n): longer drafts are not considered


@dataclass(frozen=True)
class Draft:
    """Drafted tokens, with what the speculator expected of them."""

    tokens: list[int]
    acceptance: Acceptance | None = None  # None without a draft
    drafter: int = 0  # index of the drafter
    drafting_seconds: float = 0.0  # expected time to draft them
    expected_seconds: float = 0.0  # expected time of the step, with the drafting
    others: int = 0  # tokens of other texts in the step


NO_DRAFT = Draft([])


@dataclass
class Figures:
    """What speculative decoding has achieved in a text."""

    drafted: int = 0  # tokens
    accepted: int = 0
    drafts: int = 0
    seconds: float = 0.0  # of all steps after the prompt, with the drafting
    plain_seconds: float = 0.0  # what plain decoding would have taken, by the measured time of plain steps

    def plus(self, other: Figures) -> Figures:
        """The sum of two texts."""
        return Figures(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def acceptance_rate(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def mean_accepted(self) -> float:
        """Accepted tokens per draft."""
        return self.accepted / self.drafts if self.drafts else 0.0

    @property
    def speed_up(self) -> float:
        return self.plain_seconds / self.seconds if self.seconds else 1.0


class Speculator:
    """Chooses at each step the draft with the highest expected speed-up, or none, and learns from the results.

    Speed-up. Let a be the acceptance rate of a proposal (`Acceptance`). A step that verifies a draft of n tokens is
    expected to give

        E(n) = 1 + a + a^2 + ... + a^n  tokens,

    as token i counts only if all drafted tokens up to it are accepted, and the model itself adds one. The step takes

        T(n) = C(1 + n) + P + F + (n - 1) N  seconds.

    C(1 + n) is the time of a step of 1 + n tokens (`CostModel`), P the time to ask all drafters for proposals, and
    F and N the times to draft the first and each further token (`Proposal`). A plain step gives one token in C(1)
    seconds. So the speed-up is

        S(n) = E(n) C(1) / T(n).

    The draft with the highest S(n) is made, over all drafters and all n up to MAX_DRAFT, if its S(n) is above 1.

    Other texts. If the step also computes m - 1 tokens of other texts, a plain step gives m tokens in C(m) seconds,
    u = C(m) / m for each, and the step with a draft gives m - 1 + E(n). So S(n) = (m - 1 + E(n)) u / T(n), with
    C(m + n) in T(n). There are no drafts where m + n would be above MAX_DRAFT + 1.

    Budget. The acceptance rate is an estimate, and text that cannot be predicted must take hardly longer than without
    drafts. So each drafter has a budget B in plain steps, and a draft is considered only if the step cannot overdraw
    it: T(n) <= (m + B) u. After a step that gave k tokens, its drafter's budget changes by m - 1 + k - T / u, where T
    is the usual time of such a step. Besides, every drafter's budget grows by _BUDGET_SHARE * k. So a drafter loses at
    most its initial budget and _BUDGET_SHARE of the time of plain decoding.

    Back-off. If no draft is chosen, no drafter is asked for so many steps that asking takes at most _PROPOSING_SHARE of
    the time, but for at most _MAX_BACK_OFF steps.
    """

    def __init__(self, drafters: Sequence[Drafter], costs: CostModel, sampler: Sampler) -> None:
        self.figures = Figures()
        self._drafters, self._costs, self._sampler = drafters, costs, sampler
        self._back_off = 0  # steps until drafters are asked again
        self._proposing_times = deque([0.0], maxlen=5)  # seconds

    def start(self, ids: Sequence[int]) -> None:
        """Begin a text with this prompt, or with what is left of a text that was cut; not part of the figures."""
        for drafter in self._drafters:
            drafter.statistics.start()
            drafter.start(ids)

    def choose_draft(self, ids: Sequence[int], room: int, others: int = 0) -> Draft:
        """The best draft of at most `room` tokens after `ids`, or NO_DRAFT.

        others: tokens of other texts in the step.
        """
        if others >= MAX_DRAFT:
            return NO_DRAFT
        if self._back_off or not self._costs.plain:  # costs are unknown before the first step
            self._back_off = max(0, self._back_off - 1)
            return NO_DRAFT
        started, proposing = time.perf_counter(), self._proposing_seconds()
        chosen: tuple[int, Proposal, int] | None = None
        best = 1.0
        for number, drafter in enumerate(self._drafters):
            proposal = drafter.propose(ids, self._sampler)
            if proposal is None:
                continue
            length, speed_up = self._best_length(proposal, min(room, MAX_DRAFT - others),
                                                   drafter.statistics.budget, proposing, others)
            if speed_up > best:
                best, chosen = speed_up, (number, proposal, length)
            elif length == 0:
                proposal.acceptance.decay()
        self._proposing_times.append(time.perf_counter() - started)
        if chosen is None:
            share = _PROPOSING_SHARE * self._costs.plain
            self._back_off = min(int(self._proposing_seconds() / share), _MAX_BACK_OFF)
            return NO_DRAFT
        number, proposal, length = chosen
        drafting = proposing + proposal.first_token_seconds + (length - 1) * proposal.next_token_seconds
        expected = self._costs.seconds(others + 1 + length) + drafting
        return Draft(proposal.tokens(length), proposal.acceptance, number, drafting, expected, others)

    def _proposing_seconds(self) -> float:
        """The median time to ask all drafters for proposals."""
        return sorted(self._proposing_times)[len(self._proposing_times) // 2]

    def _best_length(self, proposal: Proposal, room: int, budget: float, proposing: float,
                     others: int) -> tuple[int, float]:
        """(n, S(n)) with the highest S(n) that the budget allows; (0, 1) if none is above 1."""
        table, size = self._costs.table, others + 1
        plain = table[size] / size
        limit = (size + budget) * plain
        best, best_speed_up = 0, 1.0
        probability, expected_tokens, drafting = 1.0, float(size), proposing + proposal.first_token_seconds
        for count in range(1, min(room, proposal.max_tokens) + 1):
            seconds = table[size + count] + drafting
            probability *= proposal.acceptance.rate
            expected_tokens += probability
            if probability < _MIN_PROBABILITY or seconds > limit:
                break
            if expected_tokens * plain > best_speed_up * seconds:
                best, best_speed_up = count, expected_tokens * plain / seconds
            drafting += proposal.next_token_seconds
        return best, best_speed_up

    def observe(self, draft: Draft, tokens: int, seconds: float) -> None:
        """A step with this draft gave so many tokens, and took so many seconds with the drafting."""
        drafted, accepted = len(draft.tokens), tokens - 1
        for drafter in self._drafters:
            drafter.statistics.budget += _BUDGET_SHARE * tokens
        self.figures.seconds += seconds
        if draft.acceptance is None:
            self.figures.plain_seconds += seconds
            return
        size = draft.others + 1
        plain = self._costs.seconds(size) / size
        self.figures.plain_seconds += plain * (draft.others + tokens)
        # Charge the usual time of such a step: a draft must not pay for what else the machine did meanwhile.
        charged = min(self._costs.seconds(size + drafted) + draft.drafting_seconds, _OUTLIER * draft.expected_seconds)
        self._drafters[draft.drafter].statistics.budget += draft.others + tokens - charged / plain
        draft.acceptance.observe(drafted, accepted)
        self.figures.drafts += 1
        self.figures.drafted += drafted
        self.figures.accepted += accepted


def verify(sampler: Sampler, logits: np.ndarray, ids: Sequence[int], draft: Sequence[int],
           ends: Collection[int] = ()) -> list[int]:
    """The tokens that the sampler chooses after `ids`: the accepted part of the draft, and one more token.

    logits: float32 [1 + drafted][vocab], after the last id and after each drafted token. Nothing is chosen after one of
    `ends`. There is at least one token, and all are what the sampler would choose without a draft.
    """
    text = list(ids)
    for row, expected in zip(logits, [*draft, None], strict=True):
        token = sampler.choose(row, text)
        text.append(token)
        if token != expected or token in ends:
            break
    return text[len(ids) :]
