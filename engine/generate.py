"""A generation: token after token until the text ends, as pieces of text and as counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .options import GenerationOptions
from .sampler import Sampler
from .tokenizer import Tokenizer, Utf8Stream

__all__ = ["Generation", "GenerationOptions"]

Forward = Callable[[Sequence[int]], tuple[np.ndarray, int]]


class Generation:
    """Iterate over it for the text, in pieces of whole characters; its attributes tell how far it is."""

    def __init__(self, forward: Forward, tokenizer: Tokenizer, ids: Sequence[int], context: int,
                 options: GenerationOptions) -> None:
        """forward(ids) -> (logits [vocab] after the last id, how many ids were found in the cache)."""
        self.prompt_tokens = len(ids)
        self.reused_tokens = 0  # of the prompt, found in the cache
        self.generated_ids: list[int] = []
        self.prompt_seconds = 0.0
        self.generation_seconds = 0.0
        self.finish_reason: str | None = None  # "stop", "length" or "context"
        self._pieces = self._run(forward, tokenizer, list(ids), context, options)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def _run(self, forward: Forward, tokenizer: Tokenizer, ids: list[int], context: int,
             options: GenerationOptions) -> Iterator[str]:
        sampler = Sampler(options, banned=tuple(tokenizer.end_ids) if options.ignore_eos else ())
        utf8, stops = Utf8Stream(), StopStrings(options.stop)
        for token in self._tokens(forward, sampler, ids, context, options.max_tokens):
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

    def _tokens(self, forward: Forward, sampler: Sampler, ids: list[int], context: int,
                max_tokens: int) -> Iterator[int]:
        while self.finish_reason is None:
            if 0 <= max_tokens <= len(self.generated_ids):
                self.finish_reason = "length"
            elif len(ids) > context:
                self.finish_reason = "context"
            else:
                started = time.perf_counter()
                logits, reused = forward(ids)
                computed = time.perf_counter()
                token = sampler.choose(logits, ids)
                if len(ids) == self.prompt_tokens:
                    self.reused_tokens = reused
                    self.prompt_seconds += computed - started
                    started = computed
                self.generation_seconds += time.perf_counter() - started
                ids.append(token)
                yield token


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
