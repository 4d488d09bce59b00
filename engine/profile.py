"""What `lcpu bench --profile` measures: where the time of a model's steps goes, by operation.

Steps run as they always do, on the same threads and with the same barriers (`kernels.profile`). Operations of all
layers with the same name are added up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from ..kernels.profile import clock_rate, timed
from ..kernels.program import Instruction
from .batch import Piece
from .benchmark import Benchmark, Case, Steps
from .benchmark_parallel import ParallelBenchmark
from .model import Model
from .tensors import Matrix
from .work import attention_bytes, attention_operations, is_output_layer, weight_bytes, weight_operations

Phase = Literal["prompt", "generation"]


@dataclass(frozen=True)
class Operation:
    """What the operations of one name take in a step, in the mean of all steps. Together they are a step's program.

    bytes: that they must read at least once. arithmetic: how many operations on numbers; a multiplication and an
    addition are two. Both are None where they are not known: they are for matrices and attention.
    """

    name: str
    instructions: int
    barriers: int
    seconds: float
    work: tuple[float, ...]  # seconds, of each thread
    bytes: float | None = None
    arithmetic: float | None = None

    @property
    def waiting(self) -> float:
        """Seconds in which a thread does not work, in the mean: it waits at a barrier, or leaves one late."""
        return self.seconds - fmean(self.work)


@dataclass(frozen=True)
class Profile:
    """The steps of one phase of a case. Operations are sorted by their time."""

    phase: Phase
    tokens: int  # of a run
    samples_ns: tuple[int, ...]  # the steps of each run
    steps: int  # of all runs
    operations: tuple[Operation, ...]

    @property
    def step_seconds(self) -> float:
        """The mean."""
        return sum(self.samples_ns) / 1e9 / self.steps

    @property
    def launch_seconds(self) -> float:
        """What a step takes beside its program: Python fills the batch and starts the threads."""
        return self.step_seconds - sum(operation.seconds for operation in self.operations)

    @property
    def tokens_per_second(self) -> float:
        return 1e9 * self.tokens * len(self.samples_ns) / sum(self.samples_ns)


class Profiler:
    """Runs steps of a model, and adds up what its operations take."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._timed = timed(model.program, model.team.threads)
        self._elapsed, self._work = np.zeros_like(self._timed.elapsed), np.zeros_like(self._timed.work)
        self._barriers = np.zeros_like(self._elapsed)
        self._shapes: Counter[tuple[int, int]] = Counter()  # (tokens, outputs) of steps
        self._attention_bytes = self._attention_operations = 0  # of all layers
        self.samples_ns: list[int] = []

    def run(self, steps: Iterable[list[Piece]]) -> None:
        """Run steps. Their time, without what is between them, is a sample."""
        sample = 0
        for pieces in steps:
            self._timed.clear()
            start = time.perf_counter_ns()
            self._model.step(pieces, self._timed.program)
            sample += time.perf_counter_ns() - start
            self._elapsed += self._timed.elapsed
            self._work += self._timed.work
            self._barriers += self._timed.times.all(axis=(0, 2))  # one thread alone meets nobody
            self._count(pieces)
        self.samples_ns.append(sample)

    @property
    def steps(self) -> int:
        return self._shapes.total()

    def operations(self) -> tuple[Operation, ...]:
        """The means of all steps so far. Raises LcpuError if the processor has no clock."""
        groups: dict[str, list[int]] = {}
        for number, instructions in enumerate(self._timed.operations):
            name = ", ".join(dict.fromkeys(instruction.name for instruction in instructions))
            groups.setdefault(name, []).append(number)
        found = [self._operation(name, numbers) for name, numbers in groups.items()]
        return tuple(sorted(found, key=lambda operation: -operation.seconds))

    def _operation(self, name: str, numbers: list[int]) -> Operation:
        instructions = [instruction for number in numbers for instruction in self._timed.operations[number]]
        loads = [known for instruction in instructions if (known := self._load(instruction))]
        ticks = clock_rate() * self.steps
        barriers = round(self._barriers[numbers].sum() / self.steps)
        return Operation(name, len(instructions), barriers, float(self._elapsed[numbers].sum() / ticks),
                         tuple((self._work[:, numbers].sum(axis=1) / ticks).tolist()),
                         bytes=sum(each for each, _ in loads) / self.steps if loads else None,
                         arithmetic=sum(each for _, each in loads) / self.steps if loads else None)

    def _count(self, pieces: list[Piece]) -> None:
        self._shapes[sum(len(piece.tokens) for piece in pieces), sum(piece.outputs for piece in pieces)] += 1
        for piece in pieces:
            end = piece.start + len(piece.tokens)
            self._attention_bytes += attention_bytes(self._model, [end], len(piece.tokens))
            self._attention_operations += attention_operations(self._model, range(piece.start + 1, end + 1))

    def _load(self, instruction: Instruction) -> tuple[float, float] | None:
        """The bytes and the arithmetic of an instruction in all steps, if they are known."""
        model = self._model
        if instruction.name == "attention":
            layers = len(model.attended)
            return self._attention_bytes / layers, self._attention_operations / layers  # the mean: some have windows
        loads = [self._load_of(matrix) for matrix in model.matrices.values()
                 if any(operand is matrix.panels for operand in instruction.operands.values())]
        return (sum(each for each, _ in loads), sum(each for _, each in loads)) if loads else None

    def _load_of(self, matrix: Matrix) -> tuple[float, float]:
        model, counts = self._model, Counter[int]()
        for (tokens, outputs), steps in self._shapes.items():
            counts[outputs if is_output_layer(matrix.name) else tokens] += steps
        return (sum(steps * weight_bytes(model, matrix, tokens) for tokens, steps in counts.items() if tokens),
                sum(steps * weight_operations(model, matrix, tokens) for tokens, steps in counts.items()))


def profile(benchmark: Benchmark | ParallelBenchmark, model: Model, case: Case, repetitions: int, *,
            warm_up: bool = True, progress: Callable[[str], None] = lambda what: None) -> list[Profile]:
    """Profiles of a case's phases: its prompts, and what is generated after them. Operands as in Benchmark.run."""
    benchmark.prepare(case, warm_up=warm_up, progress=progress)
    phases: list[tuple[Phase, Callable[[Case], Steps], int]] = [
        ("prompt", benchmark.prompt, case.prompt_tokens), ("generation", benchmark.generation, case.generated_tokens)]
    found = []
    for phase, steps, tokens in phases:
        if not tokens:
            continue
        profiler = Profiler(model)
        for repetition in range(repetitions):
            progress(f"{phase}, run {repetition + 1}/{repetitions}")
            profiler.run(steps(case))
        found.append(Profile(phase, tokens, tuple(profiler.samples_ns), profiler.steps, profiler.operations()))
    return found
