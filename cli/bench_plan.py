"""Which tests `lcpu bench` runs: what its flags ask for, and which of them exclude each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from .options import UsageError

if TYPE_CHECKING:
    from ..engine.benchmark import Case


@dataclass(frozen=True)
class Plan:
    """What is measured for each model."""

    threads: list[int]  # 0 or -1: the engine's choice
    prompts: list[int]
    generated: list[int]
    both: list[tuple[int, int]]
    costs: list[int]
    depths: list[int]
    batches: list[int]
    ubatches: list[int]
    acceptances: list[float]  # of speculative decoding; if there are any, nothing else is measured
    drafts: list[int]
    sequences: list[int]  # at once; then nothing else is measured
    shared_prompt: bool
    cache_types: list[tuple[str, str]]
    repetitions: int
    warm_up: bool
    delay: int
    check_memory: bool
    progress: bool
    profile: bool  # where the time of the steps goes, and not how long they take

    def settings(self) -> list[tuple[int, int, Case]]:
        """(logical batch, physical batch, test) of all tests, in llama-bench's order."""
        from ..engine.benchmark import Case, batch_cost
        from ..engine.benchmark_speculation import speculative

        if self.acceptances:
            return [(self.batches[0], self.ubatches[0], speculative(*each))
                    for each in product(filter(None, self.generated), self.drafts, self.acceptances)]
        if self.sequences:
            batch, ubatch = self.batches[0], self.ubatches[0]
            return [(batch, ubatch, Case(prompt, generated, batch=min(batch, ubatch), sequences=count,
                                         shared_prompt=self.shared_prompt))
                    for prompt, generated, count in product(self.prompts, self.generated, self.sequences)
                    if prompt or generated]
        found = []
        for batch, ubatch, depth in product(self.batches, self.ubatches, self.depths):
            most = min(batch, ubatch)
            cases = [Case(prompt=count, depth=depth, batch=most) for count in self.prompts if count]
            cases += [Case(generated=count, depth=depth, batch=most) for count in self.generated if count]
            cases += [Case(prompt, count, depth, most) for prompt, count in self.both]
            cases += [batch_cost(size, depth) for size in self.costs]
            found += [(batch, ubatch, case) for case in cases]
        return found

    def cache_tokens(self) -> int:
        """Tokens that the cache must hold, where that is more than one sequence has."""
        from ..engine.benchmark_parallel import cache_tokens

        return max(cache_tokens(case) for _, _, case in self.settings()) if self.sequences else 0

    def check(self) -> None:
        """Raises UsageError for flags that exclude each other, or that leave nothing to measure."""
        if self.acceptances and any([*self.prompts, *self.both, *self.costs, *self.depths]):
            raise UsageError("--spec measures generation with drafts and nothing else: leave out -p, -pg, -tgb and -d")
        if self.acceptances and self.profile:
            raise UsageError("--profile shows steps of prompts and of generation, and --spec mixes them: leave one out")
        if self.sequences and (self.acceptances or any([*self.both, *self.costs, *self.depths])):
            raise UsageError("-np measures many sequences at once and nothing else: leave out --spec, -pg, -tgb and "
                             "-d")
        if self.shared_prompt and not self.sequences:
            raise UsageError("-pps shares the prompt of many sequences: say how many with -np, or leave it out")
        if not any([*self.prompts, *self.generated, *self.both, *self.costs]):
            raise UsageError("nothing to measure: -p, -n, -pg and -tgb are all 0 or left out; give one of them a "
                             "number")
