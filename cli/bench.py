"""`lcpu bench`: how fast models run on this machine, in llama-bench's terms."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from ..kernels.errors import LcpuError
from . import bench_plot, bench_values, console
from .bench_report import Report, Row, Run, counted
from .options import ModelDraft, UsageError

if TYPE_CHECKING:
    from ..engine.benchmark import Case
    from ..engine.gguf_file import GGUFFile
    from ..kernels.probe import Peaks

T = TypeVar("T")
Opener = Callable[[], "GGUFFile"]

PROMPT, GENERATED, BATCH, UBATCH, TYPE = 512, 128, 2048, 512, "q4_0"  # llama-bench's defaults, and a type for --shape
REPETITIONS = 5
SPEC_GENERATED, SPEC_REPETITIONS = 32, 2  # for there are a hundred cases
SPEC_ACCEPTANCES, SPEC_DRAFTS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0), range(17)


def _listed(*flags: str, help: str, default: object = None, metavar: str = "N,...") -> Any:
    """A flag that takes lists and may be repeated. bench_values reads what it is given, and knows what is left out."""
    shown = "" if default is None else f"  [default: {default}]"
    return typer.Option(*flags, metavar=metavar, help=help + shown, show_default=False)


Models = Annotated[
    list[Path] | None,
    typer.Option("-m", "--model", metavar="FILE,...", envvar="LCPU_MODEL", help="GGUF model files.",
                 show_default="the embedded model"),
]  # fmt: skip
Threads = Annotated[
    list[str] | None,
    typer.Option("-t", "--threads", metavar="N,...", envvar="LCPU_THREADS", help="Threads.",
                 show_default="physical cores this process may use, fewer for a small model"),
]  # fmt: skip
Shapes = Annotated[
    list[str] | None,
    _listed("--shape", metavar="NAME,...", help="Random weights in a real model's shape, such as llama3-8b."),
]
Types = Annotated[
    list[str] | None, _listed("--type", metavar="TYPE,...", help="Type of the random weights.", default=TYPE)
]
Prompts = Annotated[
    list[str] | None, _listed("-p", "--n-prompt", help="Tokens of a prompt; 0: no such test.", default=PROMPT)
]
Generated = Annotated[
    list[str] | None, _listed("-n", "--n-gen", help="Tokens to generate; 0: no such test.", default=GENERATED)
]
PromptsAndGenerated = Annotated[
    list[str] | None, _listed("-pg", metavar="P,N", help="A prompt of P tokens, then N generated ones.")
]
BatchCosts = Annotated[
    list[str] | None, _listed("-tgb", "--batch-cost", help="Steps of N tokens, compared with steps of one.")
]
Depths = Annotated[list[str] | None, _listed("-d", "--n-depth", help="Tokens in the cache before.", default=0)]
Batches = Annotated[list[str] | None, _listed("-b", "--batch-size", help="Most tokens of a batch.", default=BATCH)]
Ubatches = Annotated[
    list[str] | None,
    _listed("-ub", "--ubatch-size", help="Most tokens of a batch that one step computes.", default=UBATCH),
]
Repetitions = Annotated[
    int | None,
    typer.Option("-r", "--repetitions", metavar="N", min=1, help="Runs of each test.", show_default=str(REPETITIONS)),
]
Spec = Annotated[
    bool,
    typer.Option("--spec", help="Measure generation with drafts (speculative decoding) and nothing else: of 32 tokens, "
                 "twice, unless -n and -r say otherwise."),
]  # fmt: skip
Acceptances = Annotated[
    list[str] | None,
    _listed("--acceptance", metavar="A,...", help="How likely a drafted token of --spec is right.",
            default=",".join(f"{rate:g}" for rate in SPEC_ACCEPTANCES)),
]  # fmt: skip
Drafts = Annotated[
    list[str] | None,
    _listed("--draft-n", help="Drafted tokens at each step of --spec; 0: as many as pays.", default="0-16"),
]
Output = Annotated[Literal["md", "csv", "json", "jsonl", "sql"], typer.Option("-o", "--output", help="Output format.")]
NoWarmUp = Annotated[bool, typer.Option("--no-warmup", help="Do not run each test once before.")]
Delay = Annotated[int, typer.Option("--delay", metavar="SECONDS", min=0, help="Rest before each test.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the results: .svg, .png or .pdf (needs matplotlib).")
]
Progress = Annotated[bool, typer.Option("--progress", help="Say on stderr what is being measured.")]


@dataclass(frozen=True)
class Plan:
    """What is measured of every model."""

    threads: list[int]  # 0 or -1: the engine's choice
    prompts: list[int]
    generated: list[int]
    both: list[tuple[int, int]]
    costs: list[int]
    depths: list[int]
    batches: list[int]
    ubatches: list[int]
    acceptances: list[float]  # of speculative generation; then nothing else is measured
    drafts: list[int]
    repetitions: int
    warm_up: bool
    delay: int
    progress: bool

    def settings(self) -> list[tuple[int, int, Case]]:
        """Logical and physical batch, and what to measure with them, in llama-bench's order."""
        from ..engine.benchmark import Case, batch_cost
        from ..engine.benchmark_speculation import speculative

        if self.acceptances:
            return [(self.batches[0], self.ubatches[0], speculative(*each))
                    for each in product(self.generated, self.drafts, self.acceptances)]
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
    model: Models = None,
    shape: Shapes = None,
    type_name: Types = None,
    threads: Threads = None,
    prompt: Prompts = None,
    generated: Generated = None,
    both: PromptsAndGenerated = None,
    batch_cost: BatchCosts = None,
    depth: Depths = None,
    batch: Batches = None,
    ubatch: Ubatches = None,
    spec: Spec = False,
    acceptance: Acceptances = None,
    draft: Drafts = None,
    model_draft: ModelDraft = None,
    repetitions: Repetitions = None,
    output: Output = "md",
    plot: Plot = None,
    no_warmup: NoWarmUp = False,
    delay: Delay = 0,
    progress: Progress = False,
) -> None:
    """Measure how fast models run, as llama-bench does.

    Tests are prompts (pp), tokens one after another (tg), or both. N,... stands for lists such as 1,2,4 and ranges such
    as 1-4, 8-64+8 or 128-1024*2; flags may be repeated.
    """
    if not spec and (acceptance or draft or model_draft):
        raise UsageError("--acceptance, --draft-n and -md belong to --spec")
    plan = Plan(
        threads=bench_values.numbers(threads, [0], "-t", least=-1),
        prompts=bench_values.numbers(prompt, [PROMPT], "-p"),
        generated=bench_values.numbers(generated, [SPEC_GENERATED if spec else GENERATED], "-n"),
        both=bench_values.pairs(both, "-pg"),
        costs=bench_values.numbers(batch_cost, [], "-tgb", least=1, most=UBATCH),
        depths=bench_values.numbers(depth, [0], "-d"),
        batches=bench_values.numbers(batch, [BATCH], "-b", least=1),
        ubatches=bench_values.numbers(ubatch, [UBATCH], "-ub", least=1, most=UBATCH),
        acceptances=bench_values.shares(acceptance, SPEC_ACCEPTANCES, "--acceptance") if spec else [],
        drafts=bench_values.numbers(draft, SPEC_DRAFTS, "--draft-n", most=SPEC_DRAFTS[-1]),
        repetitions=repetitions or (SPEC_REPETITIONS if spec else REPETITIONS),
        warm_up=not no_warmup,
        delay=delay,
        progress=progress,
    )
    if not any([*plan.prompts, *plan.generated, *plan.both, *plan.costs]):
        raise UsageError("nothing to measure: -p, -n, -pg and -tgb are all 0 or left out")
    source = context.get_parameter_source("model")
    if shape and source is not None and source.name == "ENVIRONMENT":
        model = None  # the command line names what it wants
    openers = _openers(bench_values.files(model), bench_values.names(shape), bench_values.names(type_name))
    jobs = [(opener, count) for opener in openers for count in _thread_counts(opener, plan)]
    if plot is not None:
        bench_plot.check(plot)
    columns = {"n_batch": batch, "n_ubatch": ubatch, "step cost": batch_cost, "speed-up": spec}
    report = Report(output, [name for name, wanted in columns.items() if wanted])
    try:
        for opener, count in jobs:
            for row in _rows(opener, model_draft, count, plan):
                report.add(row)
            gc.collect()  # the memory of a model, before the next one is loaded
    finally:
        report.end()  # also of what was measured before an error or Ctrl-C
    if plot is not None:
        bench_plot.draw(plot, report.rows)


def _openers(files: Sequence[Path], shapes: Sequence[str], types: Sequence[str]) -> list[Opener]:
    """What opens each model that the command line names."""
    from .. import models
    from ..engine import random_model
    from ..engine.gguf_file import GGUFFile

    if types and not shapes:
        raise UsageError("--type is the type of random weights: name their shape with --shape")
    random = list(product(shapes, types or [TYPE]))
    for names in random:
        _usage(random_model.check, *names)
    openers: list[Opener] = [partial(GGUFFile.open, path) for path in files]
    openers += [partial(random_model.RandomModel, *names) for names in random]
    return openers or [partial(GGUFFile.open, models.path())]


def _thread_counts(opener: Opener, plan: Plan) -> list[int]:
    """What a model is run on. The file is opened: one that is not there should not end an hour's work."""
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
    """Calls a check of the engine's; its error is one of the command line."""
    try:
        return check(*values)
    except LcpuError as error:
        raise UsageError(str(error)) from None


def _rows(opener: Opener, draft: Path | None, threads: int, plan: Plan) -> Iterator[Row]:
    """Loads a model for a number of threads and measures all of the plan."""
    from ..engine.benchmark import Benchmark, machine_peaks
    from ..engine.benchmark_speculation import SpeculationBenchmark
    from ..engine.gguf_file import GGUFFile
    from ..engine.model import Model

    settings = plan.settings()
    with ExitStack() as stack:
        file = stack.enter_context(opener())
        with console.LoadProgress() as progress:
            peaks = machine_peaks(threads, progress)  # before the model is there: this takes memory, for a moment
            started = time.perf_counter()
            context = max(case.context for _, _, case in settings)
            model = Model(file, context, threads, progress=progress)
            stack.callback(model.close)
            run = _run(file, threads, time.perf_counter() - started, peaks)
            draft_model = None
            if draft is not None:
                draft_file = stack.enter_context(GGUFFile.open(draft))
                draft_model = Model(draft_file, context, threads, team=model.team, progress=progress)
        benchmark: Benchmark | SpeculationBenchmark = Benchmark(model, peaks)
        if plan.acceptances:
            benchmark = SpeculationBenchmark(model, draft_model)
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
