"""`lcpu batch`: answers to many prompts, computed together."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ..kernels.errors import LcpuError
from . import chat, console, options, prompt, report
from .batch_files import Answered, Answers, open_input, open_output, read_lines, size_of
from .batch_lines import Request, answer, error_answer, read_request
from .run import load

if TYPE_CHECKING:
    from ..engine.generate import Generation, GenerationOptions
    from ..engine.llm import LLM

_SAMPLE = 1000  # lines of a file that are measured
_PROMPT_TOKENS, _GENERATED_TOKENS = 1024, 2048  # what a text is taken to need where nothing says so

Requests = Annotated[
    Path | None,
    typer.Option("-f", "--file", metavar="FILE", help="Requests, a JSON object a line; '-' or no -f reads stdin."),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where answers go; '-' or no -o is stdout."),
]
Parallel = Annotated[
    int,
    typer.Option(
        "-np", "--parallel", metavar="N", envvar="LCPU_PARALLEL", min=1, max=512,
        help="Texts that are computed at once.",
    ),
]  # fmt: skip
AsCompleted = Annotated[
    bool, typer.Option("--as-completed", help="Write answers as they are ready, not in the order of the requests.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the file of -o: requests that it answers are left out.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file of -o.")]


def batch(
    model: options.Model = None,
    file: Requests = None,
    output: Output = None,
    parallel: Parallel = 16,
    as_completed: AsCompleted = False,
    resume: Resume = False,
    force: Force = False,
    max_tokens: options.MaxTokens = -1,
    context: options.Context = None,
    threads: options.Threads = None,
    output_type: options.OutputType = None,
    cache_type_k: options.CacheTypeK = "f16",
    cache_type_v: options.CacheTypeV = "f16",
    temperature: options.Temperature = 0.8,
    top_k: options.TopK = 40,
    top_p: options.TopP = 0.95,
    min_p: options.MinP = 0.05,
    repeat_penalty: options.RepeatPenalty = 1.0,
    repeat_last_n: options.RepeatLastN = 64,
    seed: options.Seed = -1,
    stop: options.Stop = None,
    ignore_eos: options.IgnoreEos = False,
    escape: options.Escape = True,
    memory_check: options.MemoryCheck = True,
    verbose: options.Verbose = False,
) -> None:
    """Answer many prompts, computed together.

    Each line of the input is a JSON object with a "prompt" or with "messages". It may have settings, such as
    "max_tokens", "temperature", "seed" or "stop"; where it has none, the flags hold. Lines of OpenAI's batch files are
    answered in OpenAI's form. A line that cannot be answered gets an "error", and the run goes on. A line without a
    seed gets one that is made of -s and its number.
    """
    console.show_messages(verbose)
    if resume and force:
        raise options.UsageError("--resume continues the output and --force overwrites it: give one of them")
    seed = int.from_bytes(os.urandom(4), "little") if seed < 0 else seed
    unescape = prompt.unescape if escape else prompt.as_unicode

    from ..engine.generate import GenerationOptions

    defaults = GenerationOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        repeat_last_n=repeat_last_n,
        stop=tuple(unescape(end) for end in stop or ()),
        ignore_eos=ignore_eos,
    )
    with ExitStack() as stack:
        source = open_input(file)
        if size_of(source) is not None:  # closing a pipe would wait for the thread that reads it
            stack.enter_context(source)
        target, answered = open_output(output, source, resume=resume, force=force)
        if target is not None:
            stack.enter_context(target)
        cache_tokens = parallel * text_tokens(source, max_tokens, context)
        llm = stack.enter_context(load(model, threads, context, output_type, (cache_type_k, cache_type_v),
                                       check=memory_check, quiet=False, parallel=parallel, cache_tokens=cache_tokens))
        report.introduce(llm, model, "ngram", threads, context, seed, output_type, verbose=verbose)
        run = _Run(llm, source, Answers(target, ordered=not as_completed), answered, defaults, seed)
        console.notice(run.run().line(llm.load_seconds))


def text_tokens(source: BinaryIO, max_tokens: int, context: int | None) -> int:
    """How many tokens a text may come to have, for the size of the cache: if it is too small, texts wait."""
    prompt_tokens = _PROMPT_TOKENS
    if size_of(source) is not None:
        with Path(source.name).open("rb") as file:
            longest = max((len(line) for line, _ in zip(file, range(_SAMPLE), strict=False)), default=0)
        prompt_tokens = longest // 2  # most tokens have more bytes
    tokens = prompt_tokens + (_GENERATED_TOKENS if max_tokens < 0 else max_tokens)
    return min(tokens, context) if context else tokens


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

    def line(self, load_seconds: float) -> str:
        """For example: load 0.42 s · 128 answers, 2 failed · prompts 5120 tokens (1024 reused) · generation 12000
        tokens · 12.3 s, 975.2 tok/s"""
        answers = f"{self.answers} answer{'' if self.answers == 1 else 's'}"
        if self.answered_before:
            answers += f" and {self.answered_before} from before"
        failed = f", {self.failed} failed" if self.failed else ""
        reused = f" ({self.reused_tokens} reused)" if self.reused_tokens else ""
        return (f"load {load_seconds:.2f} s · {answers}{failed} · prompts {self.prompt_tokens} tokens{reused} · "
                f"generation {self.generated_tokens} tokens · "
                f"{self.seconds:.1f} s{report.speed(self.generated_tokens, self.seconds)}")


@dataclass
class _Text:
    """A request that is being answered."""

    request: Request
    options: GenerationOptions
    pieces: list[str]


class _Run:
    """Answers requests as they come."""

    def __init__(self, llm: LLM, source: BinaryIO, answers: Answers, answered: Answered, defaults: GenerationOptions,
                 seed: int) -> None:
        self._llm, self._source, self._answers, self._answered = llm, source, answers, answered
        self._defaults, self._seed = defaults, seed
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
                totals.seconds = time.perf_counter() - started
                speed = report.speed(totals.generated_tokens, totals.seconds)
                progress(f"{totals.answers} answers{speed}", self._bytes_read, size)
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
            generation = self._llm.stream(self._ids(request), sampling)
        except LcpuError as error:
            self._totals.answers += 1
            self._totals.failed += 1
            self._answers.add(number, error_answer(request, str(error)))
            return None
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
            return chat.encode_any(self._llm, request.messages, "write a prompt instead of messages")
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
        if generation.error is not None:
            totals.failed += 1
            self._answers.add(number, error_answer(text.request, str(generation.error), ours=True))
        else:
            self._answers.add(number, answer(text.request, generation, text.options, "".join(text.pieces)))


def line_seed(seed: int, line: int) -> int:
    """The seed of a line without one: another for each line, and all of them others for another seed of the run."""
    import numpy as np

    return int(np.random.SeedSequence([seed, line]).generate_state(1)[0])
