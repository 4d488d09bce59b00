"""`lcpu bench`: how fast models run on this machine, in llama-bench's terms."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from ..kernels.errors import LcpuError
from . import bench_options as options
from . import bench_plot, bench_values, console, sources
from .bench_report import Report, Row, Run, counted
from .options import HfFile, HfRepo, HfRepoDraft, MemoryCheck, Revision, UsageError, from_environment

if TYPE_CHECKING:
    from ..engine.benchmark import Case
    from ..engine.gguf_file import GGUFFile
    from ..kernels.probe import Peaks

T = TypeVar("T")
Opener = Callable[[], "GGUFFile"]


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


def bench(
    context: typer.Context,
    model: options.Models = None,
    hf_repo: HfRepo = None,
    hf_file: HfFile = None,
    revision: Revision = None,
    shape: options.Shapes = None,
    type_name: options.Types = None,
    threads: options.Threads = None,
    prompt: options.Prompts = None,
    generated: options.Generated = None,
    both: options.PromptsAndGenerated = None,
    batch_cost: options.BatchCosts = None,
    depth: options.Depths = None,
    batch: options.Batches = None,
    ubatch: options.Ubatches = None,
    cache_type_k: options.CacheTypesK = None,
    cache_type_v: options.CacheTypesV = None,
    parallel: options.Parallel = None,
    shared_prompt: options.SharedPrompt = False,
    spec: options.Spec = False,
    acceptance: options.Acceptances = None,
    draft: options.Drafts = None,
    model_draft: options.DraftModel = None,
    hf_repo_draft: HfRepoDraft = None,
    repetitions: options.Repetitions = None,
    output: options.Output = "md",
    plot: options.Plot = None,
    no_warmup: options.NoWarmUp = False,
    delay: options.Delay = 0,
    memory_check: MemoryCheck = True,
    progress: options.Progress = False,
) -> None:
    """Measure how fast models run, as llama-bench does.

    A test processes a prompt (pp), generates tokens (tg), or does both. N,... is a list such as 1,2,4, or a range such
    as 1-4, 8-64+8 or 128-1024*2. Flags may be repeated.
    """
    if not spec:  # LCPU_MODEL_DRAFT and LCPU_HF_REPO_DRAFT are settings for `run`
        model_draft = None if from_environment(context, "model_draft") else model_draft
        hf_repo_draft = None if from_environment(context, "hf_repo_draft") else hf_repo_draft
    draft_model = sources.chosen_draft(context, model_draft, hf_repo_draft)
    if not spec and (acceptance or draft or draft_model):
        raise UsageError("--acceptance, --draft-n and -md belong to --spec: add it, or leave them out")
    plan = Plan(
        threads=bench_values.numbers(threads, [0], "-t", least=-1),
        prompts=bench_values.numbers(prompt, [0 if spec else options.PROMPT], "-p"),
        generated=bench_values.numbers(generated, [options.SPEC_GENERATED if spec else options.GENERATED], "-n"),
        both=bench_values.pairs(both, "-pg"),
        costs=bench_values.numbers(batch_cost, [], "-tgb", least=1, most=options.UBATCH),
        depths=bench_values.numbers(depth, [0], "-d"),
        batches=bench_values.numbers(batch, [options.BATCH], "-b", least=1),
        ubatches=bench_values.numbers(ubatch, [options.UBATCH], "-ub", least=1, most=options.UBATCH),
        acceptances=bench_values.shares(acceptance, options.SPEC_ACCEPTANCES, "--acceptance") if spec else [],
        drafts=bench_values.numbers(draft, options.SPEC_DRAFTS, "--draft-n", most=options.SPEC_DRAFTS[-1]),
        sequences=bench_values.numbers(parallel, [], "-np", least=1, most=options.UBATCH),
        shared_prompt=shared_prompt,
        cache_types=list(product(bench_values.cache_types(cache_type_k, "-ctk"),
                                 bench_values.cache_types(cache_type_v, "-ctv"))),
        repetitions=repetitions or (options.SPEC_REPETITIONS if spec else options.PARALLEL_REPETITIONS if parallel
                                    else options.REPETITIONS),
        warm_up=not no_warmup,
        delay=delay,
        check_memory=memory_check,
        progress=progress,
    )
    _check(plan)
    if shape and from_environment(context, "model"):
        model = None  # --shape on the command line wins over LCPU_MODEL
    if shape and from_environment(context, "hf_repo"):
        hf_repo = None
    names = bench_values.names(shape), bench_values.names(type_name)
    files = sources.all_fetched(context, bench_values.files(model), hf_repo, hf_file, revision)
    openers = _openers(files, *names, memory_check)
    jobs = [(opener, count, types) for opener in openers for count in _thread_counts(opener, plan)
            for types in plan.cache_types]
    draft_opener = _draft_opener(None if draft_model is None else sources.fetched(draft_model).path)
    if plot is not None:
        bench_plot.check(plot)
    columns = {"n_batch": batch, "n_ubatch": ubatch, "step cost": batch_cost, "speed-up": spec,
               "type_k": cache_type_k, "type_v": cache_type_v}
    report = Report(output, [name for name, wanted in columns.items() if wanted], parallel=bool(plan.sequences))
    try:
        for opener, count, types in jobs:
            for row in _rows(opener, draft_opener, count, types, plan):
                report.add(row)
            gc.collect()  # the memory of a model, before the next one is loaded
    finally:
        report.end()  # also after an error or Ctrl-C: what was measured before it is reported
    if plot is not None:
        bench_plot.draw(plot, report.rows)


def _check(plan: Plan) -> None:
    if plan.acceptances and any([*plan.prompts, *plan.both, *plan.costs, *plan.depths]):
        raise UsageError("--spec measures generation with drafts and nothing else: leave out -p, -pg, -tgb and -d")
    if plan.sequences and (plan.acceptances or any([*plan.both, *plan.costs, *plan.depths])):
        raise UsageError("-np measures many sequences at once and nothing else: leave out --spec, -pg, -tgb and -d")
    if plan.shared_prompt and not plan.sequences:
        raise UsageError("-pps shares the prompt of many sequences: say how many with -np, or leave it out")
    if not any([*plan.prompts, *plan.generated, *plan.both, *plan.costs]):
        raise UsageError("nothing to measure: -p, -n, -pg and -tgb are all 0 or left out; give one of them a number")


def _openers(files: Sequence[Path], shapes: Sequence[str], types: Sequence[str], check_memory: bool) -> list[Opener]:
    """A function for each model of the command line, which opens it."""
    from .. import models
    from ..engine import random_model
    from ..engine.gguf_file import GGUFFile

    if types and not shapes:
        raise UsageError("--type is the type of random weights: name their shape with --shape")
    random = list(product(shapes, types or [options.TYPE]))
    for names in random:
        _usage(random_model.check, *names)
    openers: list[Opener] = [partial(sources.open_file, path) for path in files]
    openers += [partial(random_model.RandomModel, *names, check_memory=check_memory) for names in random]
    return openers or [partial(GGUFFile.open, models.path())]


def _draft_opener(path: Path | None) -> Opener | None:
    """A function that opens the draft model. It is opened once now, so that a missing file is reported at once."""
    if path is None:
        return None
    sources.open_file(path).close()
    return partial(sources.open_file, path)


def _thread_counts(opener: Opener, plan: Plan) -> list[int]:
    """The thread counts to measure a model with. The file is opened now, so that a missing one is reported at once."""
    from ..engine.threads import thread_count

    with opener() as file:
        size = _nbytes(file)
    counts = []
    for wanted in plan.threads:
        count = _usage(thread_count, wanted if wanted > 0 else None, size)
        if count < wanted:
            console.notice(f"-t {wanted}: this process may use {count} processors, and gets as many threads")
        counts.append(count)
    return list(dict.fromkeys(counts))


def _nbytes(file: GGUFFile) -> int:
    return sum(info.nbytes for info in file.tensors.values())


def _usage(check: Callable[..., T], *values: object) -> T:
    """Calls one of the engine's checks. Its LcpuError becomes an error of the command line."""
    try:
        return check(*values)
    except LcpuError as error:
        raise UsageError(str(error)) from None


def _rows(opener: Opener, draft: Opener | None, threads: int, types: tuple[str, str], plan: Plan) -> Iterator[Row]:
    """Loads a model with a number of threads and types of the cache, and runs all tests of the plan."""
    from ..engine.benchmark import Benchmark, machine_peaks
    from ..engine.benchmark_parallel import ParallelBenchmark, cache_tokens
    from ..engine.benchmark_speculation import SpeculationBenchmark
    from ..engine.model import Model

    settings = plan.settings()
    with ExitStack() as stack:
        file = stack.enter_context(opener())
        with console.LoadProgress() as progress:
            peaks = machine_peaks(threads, progress)  # before the model is loaded: this takes memory for a moment
            started = time.perf_counter()
            context = max(case.context for _, _, case in settings)
            tokens = max(cache_tokens(case) for _, _, case in settings) if plan.sequences else 0
            load = partial(Model, context=context, threads=threads, cache_tokens=tokens, cache_types=types,
                           check_memory=plan.check_memory, context_flags="-p, -n, -d", progress=progress)
            model = load(file)
            stack.callback(model.close)
            run = replace(_run(file, threads, time.perf_counter() - started, peaks), cache_types=types)
            draft_model = None
            if draft is not None:
                draft_model = load(stack.enter_context(draft()), team=model.team)
        benchmark: Benchmark | SpeculationBenchmark | ParallelBenchmark = Benchmark(model, peaks)
        if plan.acceptances:
            benchmark = SpeculationBenchmark(model, draft_model)
        elif plan.sequences:
            benchmark = ParallelBenchmark(model)
        for number, (n_batch, n_ubatch, case) in enumerate(settings):
            time.sleep(plan.delay)
            label = f"{run.description}, {counted(threads)}, test {number + 1}/{len(settings)}, {case.name}"
            say = partial(_say, label) if plan.progress else _say_nothing
            started_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            result = benchmark.run(case, plan.repetitions, warm_up=plan.warm_up, progress=say)
            yield Row(run, result, n_batch, n_ubatch, started_at)


def _run(file: GGUFFile, threads: int, load_seconds: float, peaks: Peaks) -> Run:
    from ..engine.benchmark import processor_name
    from ..engine.description import describe
    from ..kernels.isa import active

    return Run(
        filename=str(file.path),
        description=describe(file),
        size=_nbytes(file),
        params=sum(math.prod(info.shape) for info in file.tensors.values()),
        cpu=processor_name(),
        isa=active().name,
        threads=threads,
        load_seconds=load_seconds,
        peaks=peaks,
    )


def _say(label: str, what: str) -> None:
    console.notice(f"lcpu bench: {label}: {what}")


def _say_nothing(what: str) -> None:
    pass
