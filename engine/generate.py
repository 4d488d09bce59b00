"""A generation: token after token until the text ends, with its text, counts and times."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from .options import GenerationOptions
from .sampler import Sampler
from .speculation import CostModel, Drafter, Figures, Speculator, verify
from .tokenizer import Tokenizer, Utf8Stream

__all__ = ["Generation", "GenerationOptions"]


class Forward(Protocol):
    def __call__(self, ids: Sequence[int], draft: Sequence[int] = ()) -> tuple[np.ndarray, int]:
        """(logits [1 + drafted][vocab] after the last id and after each drafted one, how many ids were cached)."""


class Generation:
    """Iterate over it for the text, in pieces of whole characters. Its attributes have the counts and times so far."""

    def __init__(self, forward: Forward, tokenizer: Tokenizer, ids: Sequence[int], context: int,
                 options: GenerationOptions, drafters: Sequence[Drafter] = (), costs: CostModel | None = None) -> None:
        """drafters: for speculative decoding, which does not change the text. costs: of forward's steps."""
        self.prompt_tokens = len(ids)
        self.reused_tokens = 0  # of the prompt: they were in the cache
        self.generated_ids: list[int] = []
        self.prompt_seconds = 0.0
        self.generation_seconds = 0.0
        self.finish_reason: str | None = None  # "stop", "length" or "context"
        self._forward, self._tokenizer, self._context, self._options = forward, tokenizer, context, options
        self._ids = list(ids)
        self._sampler = Sampler(options, banned=tuple(tokenizer.end_ids) if options.ignore_eos else ())
        self._speculator = Speculator(drafters, costs or CostModel(), self._sampler)
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def speculation(self) -> Figures:
        """What speculative decoding has achieved so far."""
        return self._speculator.figures

    def _run(self) -> Iterator[str]:
        utf8, stops = Utf8Stream(), StopStrings(self._options.stop)
        for token in self._tokens():
            if token in self._tokenizer.end_ids:
                self.finish_reason = "stop"
                break
            self.generated_ids.append(token)
            piece = stops.feed(utf8.feed(self._tokenizer.token_bytes(token)))
            if piece:
                yield piece
            if stops.found:
                self.finish_reason = "stop"
                return
        rest = stops.feed(utf8.flush()) + stops.flush()
        if rest:
            yield rest

    def _tokens(self) -> Iterator[int]:
        step = self._prompt_step
        while room := self._room():
            for token in step(room):
                self._ids.append(token)
                yield token
            step = self._step

    def _prompt_step(self, room: int) -> list[int]:
        """The prompt, and the token after it."""
        started = time.perf_counter()
        logits, self.reused_tokens = self._forward(self._ids)
        self._speculator.start(self._ids)
        computed = time.perf_counter()
        tokens = verify(self._sampler, logits, self._ids, ())
        self.prompt_seconds += computed - started
        self.generation_seconds += time.perf_counter() - computed
        return tokens

    def _step(self, room: int) -> list[int]:
        """The next token, and up to room - 1 more that were drafted and accepted."""
        started = time.perf_counter()
        draft = self._speculator.choose_draft(self._ids, room - 1)
        logits, _ = self._forward(self._ids, draft.tokens)
        computed = time.perf_counter()
        tokens = verify(self._sampler, logits, self._ids, draft.tokens, self._tokenizer.end_ids)
        self._speculator.observe(draft, len(tokens), computed - started)
        self.generation_seconds += time.perf_counter() - started
        return tokens

    def _room(self) -> int:
        """How many tokens may still come. One more than the context holds: the last one is only chosen."""
        limits = {"context": self._context + 1 - len(self._ids)}
        if self._options.max_tokens >= 0:
            limits["length"] = self._options.max_tokens - (len(self._ids) - self.prompt_tokens)
        first = min(limits, key=lambda reason: limits[reason])
        if limits[first] <= 0:
            self.finish_reason = first
        return max(0, limits[first])


class StopStrings:
    """Passes text on up to the first stop string. Text that may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> str:
        """Add text; return what can be passed on now."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:  # the one that ends first counts: so the pieces in which text comes do not matter
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text that was held back, at the end of all text."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """The length of the longest end of `text` that `stop` starts with."""
        return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
