"""What `lcpu bench` measures: the time a model takes to process a prompt and to generate tokens.

Tokens are random and nothing is sampled, as in llama.cpp's llama-bench: only the model is measured.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np

from ..kernels.activations import BFloat16Pairs, Float32
from ..kernels.probe import Peaks
from .batch import Piece
from .model import BATCH, Model
from .work import attention_bytes, attention_operations, is_output_layer, weight_bytes, weight_operations

STEPS = 32  # of a batch-cost case, in each repetition
WARM_UP_STEPS = 4
SPECULATION_PROMPT = 4  # tokens of the prompt in cases with speculative decoding

Steps = Iterator[list[Piece]]


@dataclass(frozen=True)
class Case:
    """What one row of the table measures: a prompt, tokens generated after it, or both."""

    prompt: int = 0
    generated: int = 0
    depth: int = 0  # tokens in the cache before the case
    batch: int = BATCH  # the largest number of tokens in a prefill step
    step: int | None = None  # batch cost: tokens of a generation step, which is compared with a step of one token
    acceptance: float | None = None  # speculative decoding: the acceptance rate of drafted tokens
    draft: int = 0  # speculative decoding: tokens drafted at each step; 0: the engine chooses
    sequences: int = 0  # that are computed at once, each with such a prompt and so many tokens; 0: one, of other cases
    shared_prompt: bool = False  # of all sequences, computed once

    @property
    def name(self) -> str:
        """As llama-bench writes it: "pp512", "tg128", "pp512+tg128", "pp512 @ d4096"; and "tgB4", "tg32 a0.8 k4" and
        "pp512+tg128 x8"."""
        if self.acceptance is not None:
            return f"tg{self.generated} a{self.acceptance:g} k{self.draft or '*'}"
        parts = [f"pp{self.prompt}"] if self.prompt else []
        if self.generated:
            parts.append(f"tgB{self.step}" if self.step else f"tg{self.generated}")
        at_once = f" x{self.sequences}{' shared' if self.shared_prompt else ''}" if self.sequences else ""
        return "+".join(parts) + (f" @ d{self.depth}" if self.depth else "") + at_once

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts that are computed."""
        return self.prompt * (1 if self.shared_prompt else max(1, self.sequences))

    @property
    def generated_tokens(self) -> int:
        return self.generated * max(1, self.sequences)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.generated_tokens

    @property
    def context(self) -> int:
        """How many positions a sequence must have room for."""
        return self.depth + self.prompt + self.generated + (SPECULATION_PROMPT if self.acceptance is not None else 0)


def batch_cost(step: int, depth: int = 0) -> Case:
    """Steps of `step` tokens, compared with steps of one token."""
    return Case(generated=STEPS * step, depth=depth, step=step)


@dataclass(frozen=True)
class Result:
    """The times of a case's repetitions, and what follows from them. Shares are of the machine's measured peaks."""

    case: Case
    samples_ns: tuple[int, ...]
    step_cost: float | None = None  # time of a step / time of a step of one token
    bandwidth_share: float | None = None  # decode: of the bytes that the steps must read
    peak_share: float | None = None  # prefill: of the operations that the tokens need
    speed_up: float | None = None  # speculative decoding: time of plain decoding / time
    prompt_samples_ns: tuple[int, ...] | None = None  # many sequences: how much of samples_ns the prompts took

    @property
    def avg_ns(self) -> float:
        return fmean(self.samples_ns)

    @property
    def stddev_ns(self) -> float:
        return stdev(self.samples_ns) if len(self.samples_ns) > 1 else 0.0

    @property
    def samples_ts(self) -> list[float]:
        """Tokens per second."""
        return [1e9 * self.case.tokens / sample for sample in self.samples_ns]

    @property
    def avg_ts(self) -> float:
        return fmean(self.samples_ts)

    @property
    def prompt_seconds(self) -> float | None:
        """The mean, where it was measured."""
        return None if self.prompt_samples_ns is None else fmean(self.prompt_samples_ns) / 1e9

    @property
    def generation_seconds(self) -> float | None:
        return None if self.prompt_seconds is None else self.avg_ns / 1e9 - self.prompt_seconds

    @property
    def stddev_ts(self) -> float:
        return stdev(self.samples_ts) if len(self.samples_ns) > 1 else 0.0


class Benchmark:
    """Runs cases on a loaded model, and keeps count of the filled positions of its cache."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._random = np.random.default_rng(0)
        self._cached = 0
        self._pages = np.arange(model.pool.most)

    def run(self, case: Case, repetitions: int, *, warm_up: bool = True,
            progress: Callable[[str], None] = lambda what: None) -> Result:
        """Measure. progress(what) is called before each run; the model's context must hold the case's."""
        self.prepare(case, warm_up=warm_up, progress=progress)
        samples, singles = [], []
        for repetition in range(repetitions):
            progress(f"run {repetition + 1}/{repetitions}")
            sample, single = self._measure(case)
            samples.append(sample)
            singles.append(single)
        return Result(case, tuple(samples), step_cost=sum(samples) / sum(singles) if case.step else None)

    def prepare(self, case: Case, *, warm_up: bool, progress: Callable[[str], None]) -> None:
        """Fill the cache up to the depth of a case, and take some of its steps."""
        if case.depth > self._cached:
            # Once is enough: cases write only after it, and it does not matter which tokens are in the cache.
            progress(f"filling the cache up to {case.depth} tokens")
            self._run(self._prefill(self._tokens(case.depth - self._cached), self._cached, case.batch))
        if warm_up:
            progress("warm-up")
            self._run(self._prefill(self._tokens(case.prompt), case.depth, case.batch))
            size = case.step or 1
            self._run(self._generate(self._tokens(min(case.generated, WARM_UP_STEPS * size)), case.depth, size))

    def prompt(self, case: Case) -> Steps:
        """The steps of a case's prompt, with the logits of its last token."""
        return self._prefill(self._tokens(case.prompt), case.depth, case.batch)

    def generation(self, case: Case) -> Steps:
        """The steps of what a case generates."""
        return self._generate(self._tokens(case.generated), case.depth + case.prompt, case.step or 1)

    def _measure(self, case: Case) -> tuple[int, int]:
        """Nanoseconds of the case, and for batch cost also of the same number of steps of one token."""
        if case.step:
            return self._compare(self._tokens(case.generated), case.depth, case.step)
        prompt, generation = self.prompt(case), self.generation(case)
        start = time.perf_counter_ns()
        self._run(prompt)
        self._run(generation)
        return time.perf_counter_ns() - start, 0

    def _compare(self, tokens: Sequence[int], position: int, size: int) -> tuple[int, int]:
        """Alternate steps of `size` tokens and of one token, so that a change of the machine's speed affects both."""
        several = single = 0
        for first in range(0, len(tokens), size):
            start = time.perf_counter_ns()
            self._run(self._generate(tokens[first : first + 1], position + first, 1))
            between = time.perf_counter_ns()
            self._run(self._generate(tokens[first : first + size], position + first, size))
            single += between - start
            several += time.perf_counter_ns() - between
        return several, single

    def _prefill(self, tokens: Sequence[int], position: int, batch: int) -> Steps:
        """Steps of a prompt, with the logits of its last token."""
        for first in range(0, len(tokens), batch):
            piece = tokens[first : first + batch]
            last = first + len(piece) == len(tokens)
            yield [Piece(piece, position + first, self._pages, 1 if last else 0)]

    def _generate(self, tokens: Sequence[int], position: int, size: int) -> Steps:
        """Steps of `size` tokens, with the logits of all of them."""
        for first in range(0, len(tokens), size):
            piece = tokens[first : first + size]
            yield [Piece(piece, position + first, self._pages, len(piece))]

    def _run(self, steps: Steps) -> None:
        for pieces in steps:
            self._model.step(pieces)
            self._cached = max(self._cached, pieces[0].start + len(pieces[0].tokens))

    def _tokens(self, count: int) -> list[int]:
        return self._random.integers(0, self._model.h.vocab_size, count).tolist()


def processor_name() -> str:
    """The name of the processor, or at least of its family."""
    if sys.platform == "darwin":
        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return done.stdout.strip() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def with_shares(result: Result, model: Model, peaks: Peaks) -> Result:
    """The result with its shares of the machine's peaks, if all steps of its case are of one kind."""
    case, seconds = result.case, result.avg_ns / 1e9
    if case.sequences or case.acceptance is not None:
        return result
    if not case.generated:
        return replace(result, peak_share=least_prefill_seconds(model, case, peaks) / seconds)
    if not case.prompt and peaks.bandwidth:
        return replace(result, bandwidth_share=bytes_read(model, case) / seconds / peaks.bandwidth)
    return result


def spread(samples_ns: Sequence[int]) -> float | None:
    """The difference of the slowest and the fastest run, as a share of the median; None for a single one."""
    return (max(samples_ns) - min(samples_ns)) / median(samples_ns) if len(samples_ns) > 1 else None


def bytes_read(model: Model, case: Case) -> int:
    """Bytes that a case without a prompt must read: each step reads all weights and all cached keys and values."""
    size = case.step or 1
    ends = range(case.depth + size, case.depth + case.generated + 1, size)
    weights = sum(weight_bytes(model, matrix, size) for matrix in model.matrices.values())
    return len(ends) * weights + attention_bytes(model, ends, size)


def least_prefill_seconds(model: Model, case: Case, peaks: Peaks) -> float:
    """How long a prompt would take if each operation ran at the peak rate for its number type.

    The output layer computes one token only. Products are of integers if the activations of the weight's format are;
    attention is in float32.
    """
    contexts = range(case.depth + 1, case.depth + case.prompt + 1)
    seconds = attention_operations(model, contexts) / peaks.float32
    for name, matrix in model.matrices.items():
        peak = {Float32: peaks.float32, BFloat16Pairs: peaks.bf16}.get(type(matrix.format.activation), peaks.int8)
        seconds += weight_operations(model, matrix, 1 if is_output_layer(name) else case.prompt) / peak
    return seconds
