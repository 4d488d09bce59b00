"""`lcpu bench`: how fast models run on this machine, in llama-bench's terms."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ..kernels.errors import LcpuError
from . import bench_options as options
from . import bench_plot, bench_profile, bench_values, console, sources
from .bench_plan import Plan
from .bench_profile import ProfileRow
from .bench_report import FORMATS, Report, Row, Run, columns, counted
from .options import HfFile, HfRepo, HfRepoDraft, MemoryCheck, Revision, UsageError, from_environment

if TYPE_CHECKING:
    from ..engine.benchmark import Result
    from ..engine.gguf_file import GGUFFile
    from ..engine.model import Model
    from ..engine.peaks import PeakMeter
    from ..engine.profile import Profile
    from ..kernels.probe import Peaks

T = TypeVar("T")
Opener = Callable[[], "GGUFFile"]


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
    profile: options.Profile = False,
    repetitions: options.Repetitions = None,
    output: options.Output = "md",
    json: options.Json = False,
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
    from ..engine.peaks import PeakMeter

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
        profile=profile,
    )
    plan.check()
    written = _output(output, json, profile, plot)
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
    optional = {"n_batch": batch, "n_ubatch": ubatch, "step cost": batch_cost, "speed-up": spec,
                "type_k": cache_type_k, "type_v": cache_type_v}
    shown = columns([name for name, wanted in optional.items() if wanted], parallel=bool(plan.sequences))
    report: Report[Any] = Report(bench_profile.FORMATS[written]) if profile else Report(FORMATS[written], shown)
    meter = PeakMeter()
    try:
        for opener, count, types in jobs:
            for row in _rows(opener, draft_opener, count, types, plan, meter):
                report.add(row)
            gc.collect()  # the memory of a model, before the next one is loaded
    finally:
        report.end()  # also after an error or Ctrl-C: what was measured before it is reported
    if plot is not None:
        bench_plot.draw(plot, report.rows)


def _output(output: str, json: bool, profile: bool, plot: Path | None) -> str:
    """The format to write: the name in FORMATS."""
    if json and output not in ("md", "json"):
        raise UsageError(f"--json is short for -o json, which is not -o {output}: leave one out")
    if profile and plot is not None:
        raise UsageError("--plot draws speeds, and not where the time goes: leave out --plot or --profile")
    if profile and output not in bench_profile.FORMATS:
        raise UsageError(f"-o {output} has no room for a profile: take -o {', '.join(bench_profile.FORMATS)}")
    return "json" if json else output


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


def _rows(opener: Opener, draft: Opener | None, threads: int, types: tuple[str, str], plan: Plan,
          meter: PeakMeter) -> Iterator[Row | ProfileRow]:
    """Loads a model with a number of threads and types of the cache, and runs all tests of the plan."""
    from ..engine.benchmark import with_shares
    from ..engine.model import Model

    settings = plan.settings()
    with ExitStack() as stack:
        file = stack.enter_context(opener())
        with console.LoadProgress() as progress:
            meter.measure(threads, progress)
            started = time.perf_counter()
            load = partial(Model, context=max(case.context for _, _, case in settings), threads=threads,
                           cache_tokens=plan.cache_tokens(), cache_types=types, check_memory=plan.check_memory,
                           context_flags="-p, -n, -d", progress=progress)
            model = load(file)
            stack.callback(model.close)
            run = replace(_run(file, threads, time.perf_counter() - started, meter.best(threads)), cache_types=types)
            draft_model = load(stack.enter_context(draft()), team=model.team) if draft is not None else None
        measure = _measuring(model, draft_model, plan)
        for number, (n_batch, n_ubatch, case) in enumerate(settings):
            time.sleep(plan.delay)
            label = f"{run.description}, {counted(threads)}, test {number + 1}/{len(settings)}, {case.name}"
            started_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            found = measure(case, progress=partial(_say, label) if plan.progress else _say_nothing)
            result = None if isinstance(found, list) else found
            run = replace(run, peaks=meter.after_test(threads, model, result, last=number + 1 == len(settings)))
            if isinstance(found, list):
                yield from (ProfileRow(run, case, each, n_batch, n_ubatch, started_at) for each in found)
            else:
                yield Row(run, with_shares(found, model, run.peaks), n_batch, n_ubatch, started_at)


def _measuring(model: Model, draft_model: Model | None, plan: Plan) -> Callable[..., Result | list[Profile]]:
    """measure(case, progress=...) runs a test or profiles it."""
    from ..engine.benchmark import Benchmark
    from ..engine.benchmark_parallel import ParallelBenchmark
    from ..engine.benchmark_speculation import SpeculationBenchmark
    from ..engine.profile import profile

    benchmark: Benchmark | ParallelBenchmark = ParallelBenchmark(model) if plan.sequences else Benchmark(model)
    run: Callable[..., Result | list[Profile]] = benchmark.run
    if plan.acceptances:
        run = SpeculationBenchmark(model, draft_model).run
    elif plan.profile:
        run = partial(profile, benchmark, model)
    return partial(run, repetitions=plan.repetitions, warm_up=plan.warm_up)


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
