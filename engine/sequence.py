"""A sequence: a text in the making, its tokens, the pages of their keys and values, and how it goes on and ends."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import numpy as np

from ..kernels.errors import LcpuError
from .options import GenerationOptions
from .page_cache import PageTable
from .sampler import Sampler
from .speculation import NO_DRAFT, CostModel, Drafter, Figures, Speculator, verify

_LEAST_SHIFTED = 4  # tokens of a context that are never kept, as in llama.cpp


class TokenSequence:
    """One of the texts that a scheduler computes."""

    def __init__(self, ids: Sequence[int], context: int, options: GenerationOptions, end_ids: Collection[int],
                 drafters: Sequence[Drafter] = (), costs: CostModel | None = None, keep: int = 0) -> None:
        """ids: the prompt. end_ids: tokens that end the text. drafters guess tokens, never change them; costs: of the
        model's steps. keep: tokens of the prompt that a context shift keeps."""
        self.ids = list(ids)  # as the model sees them: without what was dropped
        self.dropped = 0  # tokens, for which a full context had no room any more
        self.prompt_tokens = len(ids)
        self.error: LcpuError | None = None  # why it cannot go on
        self.prompt_seconds = 0.0
        self.generation_seconds = 0.0
        self.table: PageTable | None = None  # None: it waits for pages
        self._context, self._options, self._end_ids, self._keep = context, options, end_ids, keep
        self._sampler = Sampler(options, banned=tuple(end_ids) if options.ignore_eos else ())
        self._speculator = Speculator(drafters, costs or CostModel(), self._sampler)
        self._draft = NO_DRAFT
        self.drafting_seconds = 0.0  # of the step that is scheduled
        self._read = len(ids)
        self._reused_tokens: int | None = None

    @property
    def speculation(self) -> Figures:
        """What came of the drafts so far."""
        return self._speculator.figures

    @property
    def finish_reason(self) -> str | None:
        """ "stop", "length", "context" or "error"; None as long as it goes on."""
        if self.error is not None:
            return "error"
        if self._ended:
            return "stop"
        room, limit = self._room()
        return limit if room <= 0 and not (limit == "context" and self._options.context_shift) else None

    @property
    def _ended(self) -> bool:
        return not self.in_prompt and self.ids[-1] in self._end_ids

    @property
    def _generated(self) -> int:
        """Tokens chosen so far."""
        return self.dropped + len(self.ids) - self.prompt_tokens

    @property
    def unread(self) -> bool:
        """Whether there are tokens that `read` has not given yet."""
        return self._read < len(self.ids)

    @property
    def has_news(self) -> bool:
        return self.unread or self.finish_reason is not None

    def read(self) -> list[int]:
        """The tokens chosen since the last call, without the one that ends the text."""
        start, end = self._read, len(self.ids)
        tokens = self.ids[start : end - (1 if self._ended else 0)]
        self._read = end  # last: from here on, another thread may compute more
        return tokens

    def start(self, table: PageTable) -> None:
        """Begin, or go on, with the pages of what is known of the text."""
        if self._reused_tokens is None:
            self._reused_tokens = table.computed
        self.table = table

    @property
    def reused_tokens(self) -> int:
        """Tokens of the prompt that were found in the cache when it began."""
        return self._reused_tokens or 0

    @property
    def in_prompt(self) -> bool:
        """Whether no token was chosen yet."""
        return self._generated == 0

    @property
    def must_shift(self) -> bool:
        """Whether tokens must be dropped before more can be computed."""
        return self._options.context_shift and len(self.ids) > self._context

    def shift(self) -> None:
        """Drop tokens. From here on, the text goes on as if what is left had been its prompt.

        Nothing must be unread, and the pages be given up: positions change, so all after what is kept is computed
        again. Only random numbers go on as before.
        """
        ids = shifted(self.ids, self._context, self._keep)
        dropped = self.dropped + len(self.ids) - len(ids)
        self.ids, self.dropped, self._sampler.dropped, self._read = ids, dropped, dropped, len(ids)
        self._speculator.start(ids)

    def pending(self) -> list[int]:
        """The tokens to compute next: all that are not, and what is drafted after them."""
        assert self.table is not None
        return [*self.ids[self.table.computed :], *self._draft.tokens]

    def draft(self, others: int) -> None:
        """Choose a draft, if all but the last token are computed. others: tokens of other texts in the step."""
        assert self.table is not None
        self._draft, self.drafting_seconds = NO_DRAFT, 0.0
        if not self.in_prompt and self.table.computed == len(self.ids) - 1:
            started = time.perf_counter()
            self._draft = self._speculator.choose_draft(self.ids, self._room()[0] - 1, others)
            self.drafting_seconds = time.perf_counter() - started

    @property
    def outputs(self) -> int:
        """Of how many tokens, the last ones of `pending`, logits are wanted."""
        return 1 + len(self._draft.tokens)

    def take(self, count: int, logits: np.ndarray, seconds: float) -> None:
        """The first `count` pending tokens are computed; logits: float32 [outputs][vocab] if these were all of them."""
        assert self.table is not None
        in_prompt = self.in_prompt
        self.table.computed = min(self.table.computed + count, len(self.ids))  # without drafts, which may be wrong
        if not len(logits):
            if in_prompt:
                self.prompt_seconds += seconds
            else:  # again, after its pages were given up
                self.generation_seconds += seconds
            return
        if in_prompt:
            self._speculator.start(self.ids)
        started = time.perf_counter()
        try:
            tokens = verify(self._sampler, logits, self.ids, self._draft.tokens, self._end_ids)
        except LcpuError as error:
            self.error = error
            return
        self.ids += tokens  # all at once: an interrupt leaves the text as it was, or as it is
        self.table.computed = len(self.ids) - 1
        if in_prompt:
            self.prompt_seconds += seconds
        else:
            self._speculator.observe(self._draft, len(tokens), seconds + self.drafting_seconds)
            self.generation_seconds += seconds + self.drafting_seconds
        self.generation_seconds += time.perf_counter() - started
        self._draft = NO_DRAFT

    def _room(self) -> tuple[int, str]:
        """How many tokens may still come, with what is in the context, and what limits them. The context holds all but
        the last, which is only chosen."""
        room, limit = self._context + 1 - len(self.ids), "context"
        if self._options.max_tokens >= 0:
            left = self._options.max_tokens - self._generated
            if left <= room:
                room, limit = left, "length"
        return room, limit


def shifted(ids: Sequence[int], context: int, keep: int) -> list[int]:
    """A text that is longer than the context, without the oldest half of what is not kept, as often as it takes."""
    keep = max(0, min(keep, context - _LEAST_SHIFTED))
    half = max(1, (context - keep) // 2)
    halves = max(0, -(-(len(ids) - context) // half))
    return [*ids[:keep], *ids[keep + halves * half :]]
