"""A run of `lcpu batch`: requests come in, are computed together, and their answers go out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from ..kernels.errors import LcpuError
from . import chat, console, report
from .batch_files import Answered, Answers, read_lines, size_of
from .batch_lines import Request, answer, error_answer, read_request
from .prompt_cache import CommonPrompt, PromptCache

if TYPE_CHECKING:
    from ..engine.generate import Generation, GenerationOptions
    from ..engine.llm import LLM, DraftSource
    from ..engine.speculation import Figures


@dataclass
class Totals:
    """Of a run."""

    answers: int = 0
    failed: int = 0  # of them
    answered_before: int = 0
    prompt_tokens: int = 0  # computed
    reused_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    speculation: Figures | None = None

    def line(self, load_seconds: float) -> str:
        """For example: load 0.42 s · 128 answers, 2 failed · prompts 5120 tokens (1024 reused) · generation 12000
        tokens · 12.3 s, 975.2 tok/s · 60 of 80 drafted tokens accepted (75%), 2.4 a draft"""
        answers = f"{self.answers} answer{'' if self.answers == 1 else 's'}"
        if self.answered_before:
            answers += f" and {self.answered_before} from before"
        failed = f", {self.failed} failed" if self.failed else ""
        reused = f" ({self.reused_tokens} reused)" if self.reused_tokens else ""
        return (f"load {load_seconds:.2f} s · {answers}{failed} · prompts {self.prompt_tokens} tokens{reused} · "
                f"generation {self.generated_tokens} tokens · "
                f"{self.seconds:.1f} s{report.speed(self.generated_tokens, self.seconds)}"
                f"{report.accepted(self.speculation)}")


@dataclass
class _Text:
    """A request that is being answered."""

    request: Request
    options: GenerationOptions
    pieces: list[str]


class Run:
    """Answers requests as they come."""

    def __init__(self, llm: LLM, source: BinaryIO, answers: Answers, answered: Answered, *,
                 defaults: GenerationOptions, seed: int, draft: DraftSource, cache: PromptCache) -> None:
        self._llm, self._source, self._answers, self._answered = llm, source, answers, answered
        self._defaults, self._seed, self._draft = defaults, seed, draft
        self._common_prompt = CommonPrompt(cache)
        self._texts: dict[Generation, _Text] = {}
        self._totals = Totals()
        self._bytes_read = 0
        self._ignored: set[str] = set()

    def run(self) -> Totals:
        """To the end of the input."""
        totals, started, size = self._totals, time.perf_counter(), size_of(self._source)
        with console.LoadProgress() as progress:
            for generation, piece in self._llm.stream_batch(self._generations()):
                text = self._texts[generation]
                text.pieces.append(piece)
                if generation.finish_reason is not None:
                    del self._texts[generation]
                    self._answer(text, generation)
                    self._common_prompt.save(self._llm)
                totals.seconds = time.perf_counter() - started
                speed = report.speed(totals.generated_tokens, totals.seconds)
                progress(f"{totals.answers} answers{speed}", self._bytes_read, size)
        self._common_prompt.save(self._llm, at_end=True)
        return totals

    def _generations(self) -> Iterator[Generation | None]:
        """One for each request, and None while further ones have to wait."""
        for line in read_lines(self._source, lambda: bool(self._texts)):
            generation = None if line is None else self._begin(*line)
            if line is None or generation is not None:
                yield generation
            while self._answers.is_full and self._texts:
                yield None

    def _begin(self, number: int, data: bytes) -> Generation | None:
        """None for a line that is answered already, or now."""
        self._bytes_read += len(data)
        if number in self._answered:
            self._check_answered(number, data)
            self._totals.answered_before += 1
            return None
        self._answers.expect(number)
        request = read_request(data, number)
        try:
            if request.error is not None:
                raise LcpuError(request.error)
            self._warn(request)
            settings = {"seed": line_seed(self._seed, number), **(request.settings or {})}
            sampling = replace(self._defaults, **settings)
            ids = self._ids(request)
            generation = self._llm.stream(ids, sampling, self._draft)
        except LcpuError as error:
            self._totals.answers += 1
            self._totals.failed += 1
            self._answers.add(number, error_answer(request, str(error)))
            return None
        self._common_prompt.add(ids)
        self._texts[generation] = _Text(request, sampling, [])
        return generation

    def _check_answered(self, number: int, data: bytes) -> None:
        line, id = self._answered.last
        if number == line:
            expected = read_request(data, number).id
            if id not in (expected, number):
                raise LcpuError(f"line {number} has the id {expected!r}, but its answer {id!r}: --resume needs the "
                                "same requests in the same order")

    def _ids(self, request: Request) -> list[int]:
        if request.messages is not None:
            return chat.encode_any(self._llm, request.messages, "write a prompt instead of messages", request.told)
        if isinstance(request.prompt, str):
            return self._llm.tokenize(request.prompt, parse_special=True)
        return request.prompt or []

    def _warn(self, request: Request) -> None:
        """Of each name that is ignored, once."""
        for name in request.unknown:
            if name not in self._ignored and len(self._ignored) < 20:
                self._ignored.add(name)
                console.notice(f"warning: line {request.line}: {name} is no setting of lcpu and is ignored")

    def _answer(self, text: _Text, generation: Generation) -> None:
        totals, number = self._totals, text.request.line
        totals.answers += 1
        totals.prompt_tokens += generation.prompt_tokens - generation.reused_tokens
        totals.reused_tokens += generation.reused_tokens
        totals.generated_tokens += len(generation.generated_ids)
        figures = generation.speculation
        totals.speculation = totals.speculation.plus(figures) if totals.speculation else figures
        if generation.error is not None:
            totals.failed += 1
            self._answers.add(number, error_answer(text.request, str(generation.error), ours=True))
        else:
            self._answers.add(number, answer(text.request, generation, text.options, "".join(text.pieces)))


def line_seed(seed: int, line: int) -> int:
    """The seed of a line without one: another for each line, and all of them others for another seed of the run."""
    import numpy as np

    return int(np.random.SeedSequence([seed, line]).generate_state(1)[0])
