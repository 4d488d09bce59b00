"""A generation: a sequence as its reader sees it, in pieces of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..kernels.errors import LcpuError
from .options import GenerationOptions
from .scheduler import Scheduler
from .sequence import TokenSequence
from .speculation import Figures
from .tokenizer import Tokenizer, Utf8Stream

__all__ = ["Generation", "GenerationOptions"]


class Generation:
    """Iterate over it for the text, in pieces of whole characters; its attributes tell how far it is.

    Several may be read in turns, or in threads of their own: their next tokens are computed together.
    """

    def __init__(self, scheduler: Scheduler, sequence: TokenSequence, tokenizer: Tokenizer, stop: Sequence[str] = (),
                 when_ended: Callable[[], None] = lambda: None) -> None:
        """stop: texts that end it. when_ended() is called once it has ended or is given up."""
        self.generated_ids: list[int] = []
        self.finish_reason: str | None = None  # "stop", "length", "context" or "error"
        self.closed = False  # has ended, or was given up
        self.error: LcpuError | None = None  # why it ended, if finish_reason is "error"
        self.sequence = sequence
        self._scheduler, self._tokenizer = scheduler, tokenizer
        self._utf8, self._stops, self._when_ended = Utf8Stream(), StopStrings(stop), when_ended
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def prompt_tokens(self) -> int:
        return self.sequence.prompt_tokens

    @property
    def reused_tokens(self) -> int:
        """Tokens of the prompt that were found in the cache."""
        return self.sequence.reused_tokens

    @property
    def prompt_seconds(self) -> float:
        return self.sequence.prompt_seconds

    @property
    def generation_seconds(self) -> float:
        return self.sequence.generation_seconds

    @property
    def speculation(self) -> Figures:
        """What came of the drafts so far."""
        return self.sequence.speculation

    def start(self) -> None:
        """Let it be computed beside others. Iterating does it, too."""
        self._scheduler.add(self.sequence)

    def read(self) -> str:
        """The text of the tokens that are computed, without waiting for more."""
        text, reason = "", self.sequence.finish_reason  # first: another thread may compute more after the reading
        for token in self.sequence.read():
            self.generated_ids.append(token)
            text += self._stops.feed(self._utf8.feed(self._tokenizer.token_bytes(token)))
            if self._stops.found:
                break
        if self._stops.found:
            self._end("stop")
        elif reason is not None:
            text += self._stops.feed(self._utf8.flush()) + self._stops.flush()
            self.error = self.sequence.error
            self._end(reason)
        return text

    def close(self) -> None:
        """Give it up: nothing more is computed."""
        self.closed = True
        self._scheduler.drop(self.sequence)
        self._when_ended()

    def _run(self) -> Iterator[str]:
        try:
            self.start()
            while not self.closed:
                self._scheduler.advance(self.sequence)
                text = self.read()
                if text:
                    yield text
            if self.error is not None:
                raise self.error
        finally:
            self.close()

    def _end(self, reason: str) -> None:
        self.finish_reason = reason
        self.close()


_END: Any = object()


def run_together(scheduler: Scheduler, generations: Iterable[Generation | None]) -> Iterator[tuple[Generation, str]]:
    """Generations of one scheduler and their pieces of text, as they come: see `LLM.stream_batch`."""
    coming, more = iter(generations), True
    active: list[Generation] = []
    try:
        while more or active:
            while more and len(active) < 2 * scheduler.parallel:  # some to run, and some that wait
                generation = next(coming, _END)
                more = generation is not _END
                if generation is None or generation is _END:
                    break
                active.append(generation)
                generation.start()
            if active:
                scheduler.advance(*(generation.sequence for generation in active))
            for generation in active[:]:
                text = "" if generation.closed else generation.read()
                if text or generation.finish_reason is not None:
                    yield generation, text
            active = [generation for generation in active if not generation.closed]
    finally:
        for generation in active:
            generation.close()


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
