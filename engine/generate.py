"""A generation: token after token until the text ends, as pieces of text and as counts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from .options import GenerationOptions
from .sampler import Sampler
from .speculation import NO_DRAFT, Drafter, Figures, Speculator, StepCosts, verify
from .tokenizer import Tokenizer, Utf8Stream

__all__ = ["Generation", "GenerationOptions"]


class Forward(Protocol):
    def __call__(self, ids: Sequence[int], draft: Sequence[int] = ()) -> tuple[np.ndarray, int]:
        """(logits [1 + drafted][vocab] after the last id and after each drafted one, how many ids were cached)."""


class Generation:
    """Iterate over it for the text, in pieces of whole characters; its attributes tell how far it is."""

    def __init__(self, forward: Forward, tokenizer: Tokenizer, ids: Sequence[int], context: int,
                 options: GenerationOptions, drafters: Sequence[Drafter] = (), costs: StepCosts | None = None) -> None:
        """drafters guess tokens, never change them; costs: of forward's steps."""
        self.prompt_tokens = len(ids)
        self.reused_tokens = 0  # of the prompt, found in the cache
        self.generated_ids: list[int] = []
        self.prompt_seconds = 0.0
        self.generation_seconds = 0.0
        self.finish_reason: str | None = None  # "stop", "length" or "context"
        sampler = Sampler(options, banned=tuple(tokenizer.end_ids) if options.ignore_eos else ())
        self._speculator = Speculator(drafters, costs or StepCosts(), sampler)
        self._pieces = self._run(forward, tokenizer, sampler, list(ids), context, options)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def speculation(self) -> Figures:
        """What came of the drafts so far."""
        return self._speculator.figures

    def _run(self, forward: Forward, tokenizer: Tokenizer, sampler: Sampler, ids: list[int], context: int,
             options: GenerationOptions) -> Iterator[str]:
        utf8, stops = Utf8Stream(), StopStrings(options.stop)
        for token in self._tokens(forward, tokenizer, sampler, ids, context, options.max_tokens):
            if token in tokenizer.end_ids:
                self.finish_reason = "stop"
                break
            self.generated_ids.append(token)
            piece = stops.feed(utf8.feed(tokenizer.token_bytes(token)))
            if piece:
                yield piece
            if stops.found:
                self.finish_reason = "stop"
                return
        rest = stops.feed(utf8.flush()) + stops.flush()
        if rest:
            yield rest

    def _tokens(self, forward: Forward, tokenizer: Tokenizer, sampler: Sampler, ids: list[int], context: int,
                max_tokens: int) -> Iterator[int]:
        while room := self._room(len(ids), context, max_tokens):
            is_prompt = len(ids) == self.prompt_tokens
            started = time.perf_counter()
            draft = NO_DRAFT if is_prompt else self._speculator.propose(ids, room - 1)
            logits, reused = forward(ids, draft.tokens)
            if is_prompt:
                self._speculator.start(ids)
            computed = time.perf_counter()
            tokens = verify(sampler, logits, ids, draft.tokens, tokenizer.end_ids)
            if is_prompt:
                self.reused_tokens, self.prompt_seconds = reused, computed - started
                self.generation_seconds += time.perf_counter() - computed
            else:
                self._speculator.observe(draft, len(tokens), computed - started)
                self.generation_seconds += time.perf_counter() - started
            for token in tokens:
                ids.append(token)
                yield token

    def _room(self, length: int, context: int, max_tokens: int) -> int:
        """How many tokens may still come. One more than the context holds: the last one is only chosen."""
        limits = {"context": context + 1 - length}
        if max_tokens >= 0:
            limits["length"] = max_tokens - (length - self.prompt_tokens)
        first = min(limits, key=lambda reason: limits[reason])
        if limits[first] <= 0:
            self.finish_reason = first
        return max(0, limits[first])


class StopStrings:
    """Lets text through up to the first stop string; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> str:
        """The part of all text so far that is now certain, and was not before."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:  # the first to end counts, so that it does not matter in what pieces the text came
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """The longest end of `text` that begins `stop`."""
        return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
