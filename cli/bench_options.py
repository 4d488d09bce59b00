"""The flags of `lcpu bench` and their defaults. They have llama-bench's names where it has the same flag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

PROMPT, GENERATED, BATCH, UBATCH, TYPE = 512, 128, 2048, 512, "q4_0"  # llama-bench's defaults, and a type for --shape
REPETITIONS = 5
SPEC_GENERATED, SPEC_REPETITIONS = 32, 2  # small, as there are a hundred cases
PARALLEL_REPETITIONS = 1  # as in llama-batched-bench
SPEC_ACCEPTANCES, SPEC_DRAFTS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0), range(17)


def _listed(*flags: str, help: str, default: object = None, metavar: str = "N,...",
            envvar: str | None = None) -> Any:
    """A flag that takes a list and may be repeated. bench_values parses its value."""
    shown = "" if default is None else f"  [default: {default}]"
    return typer.Option(*flags, metavar=metavar, envvar=envvar, help=help + shown, show_default=False)


Models = Annotated[
    list[Path] | None,
    typer.Option("-m", "--model", metavar="FILE,...", envvar="LCPU_MODEL", show_default="the embedded model",
                 help="GGUF files, folders of checkpoints, ollama:NAME[:TAG] or llama.cpp:FILE."),
]  # fmt: skip
Threads = Annotated[
    list[str] | None,
    typer.Option("-t", "--threads", metavar="N,...", envvar="LCPU_THREADS", help="Number of threads.",
                 show_default="physical cores this process may use, fewer for a small model"),
]  # fmt: skip
Shapes = Annotated[
    list[str] | None,
    _listed("--shape", metavar="NAME,...", help="Random weights in a real model's shape, such as llama3-8b."),
]
Types = Annotated[
    list[str] | None, _listed("--type", metavar="TYPE,...", help="Type of the random weights.", default=TYPE)
]
CacheTypesK = Annotated[
    list[str] | None,
    _listed("-ctk", "--cache-type-k", metavar="TYPE,...", envvar="LCPU_CACHE_TYPE_K", default="f16",
            help="Types of the keys in the cache, f16 or q8_0."),
]  # fmt: skip
CacheTypesV = Annotated[
    list[str] | None,
    _listed("-ctv", "--cache-type-v", metavar="TYPE,...", envvar="LCPU_CACHE_TYPE_V", default="f16",
            help="Types of the values in the cache."),
]  # fmt: skip
Parallel = Annotated[
    list[str] | None,
    _listed("-np", "-npl", "--parallel", help="Measure so many sequences at once, each with a prompt of -p and -n "
            "generated tokens, and nothing else; in llama-batched-bench's columns."),
]  # fmt: skip
SharedPrompt = Annotated[bool, typer.Option("-pps", help="Let the sequences of -np share one prompt.")]
Prompts = Annotated[
    list[str] | None, _listed("-p", "--n-prompt", help="Tokens of a prompt; 0: no such test.", default=PROMPT)
]
Generated = Annotated[
    list[str] | None, _listed("-n", "--n-gen", help="Tokens to generate; 0: no such test.", default=GENERATED)
]
PromptsAndGenerated = Annotated[
    list[str] | None, _listed("-pg", metavar="P,N", help="A prompt of P tokens, then N generated tokens.")
]
BatchCosts = Annotated[
    list[str] | None, _listed("-tgb", "--batch-cost", help="Steps of N tokens, compared with steps of one.")
]
Depths = Annotated[
    list[str] | None, _listed("-d", "--n-depth", help="Tokens in the KV cache before the test.", default=0)
]
Batches = Annotated[list[str] | None, _listed("-b", "--batch-size", help="Largest batch, in tokens.", default=BATCH)]
Ubatches = Annotated[
    list[str] | None,
    _listed("-ub", "--ubatch-size", help="Largest number of tokens that one step computes.", default=UBATCH),
]
Repetitions = Annotated[
    int | None,
    typer.Option("-r", "--repetitions", metavar="N", min=1, help="Runs of each test.", show_default=str(REPETITIONS)),
]
Spec = Annotated[
    bool,
    typer.Option("--spec", help="Measure speculative decoding and nothing else: 32 tokens in 2 runs, unless -n and -r "
                 "are given."),
]  # fmt: skip
Acceptances = Annotated[
    list[str] | None,
    _listed("--acceptance", metavar="A,...", help="Acceptance rates of drafted tokens in --spec.",
            default=",".join(f"{rate:g}" for rate in SPEC_ACCEPTANCES)),
]  # fmt: skip
Drafts = Annotated[
    list[str] | None,
    _listed("--draft-n", help="Tokens drafted at each step of --spec; 0: the engine chooses.", default="0-16"),
]
DraftModel = Annotated[
    Path | None,
    typer.Option("-md", "--model-draft", metavar="FILE", envvar="LCPU_MODEL_DRAFT", show_default=False,
                 help="GGUF draft model for --spec. Without one, drafting takes no time."),
]  # fmt: skip
Profile = Annotated[
    bool,
    typer.Option("--profile", help="Show where the time of the steps goes, by operation, and nothing else."),
]
Output = Annotated[Literal["md", "csv", "json", "jsonl", "sql"], typer.Option("-o", "--output", help="Output format.")]
Json = Annotated[bool, typer.Option("--json", help="Short for -o json.")]
NoWarmUp = Annotated[bool, typer.Option("--no-warmup", help="Skip the untimed first run of each test.")]
Delay = Annotated[int, typer.Option("--delay", metavar="SECONDS", min=0, help="Seconds to wait before each test.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the results: .svg, .png or .pdf (needs matplotlib).")
]
Progress = Annotated[bool, typer.Option("--progress", help="Report on stderr what is being measured.")]
