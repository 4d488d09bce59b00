"""The options that subcommands share, under llama.cpp's names where it has one.

Settings have a twin in the environment, LCPU_*, and the command line wins. What belongs to one call only (the prompts,
where the text ends, --json) has none. This module imports neither numba, numpy nor the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# The class of every command-line error. Newer typers carry a click of their own, so it is reached through typer.
UsageError: Any = typer.BadParameter.__base__


def from_environment(context: typer.Context, name: str) -> bool:
    """Whether a parameter has its value from there and not from the command line, which wins."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"


Model = Annotated[
    Path | None,
    typer.Option(
        "-m", "--model", metavar="FILE", envvar="LCPU_MODEL", help="GGUF model file.", show_default="the embedded model"
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "-t", "--threads", metavar="N", envvar="LCPU_THREADS", min=-1,
        help="Threads.", show_default="physical cores this process may use, fewer for a small model",
    ),
]  # fmt: skip
Context = Annotated[
    int | None,
    typer.Option(
        "-c", "--ctx-size", metavar="N", envvar="LCPU_CONTEXT", min=0,
        help="Tokens of context.", show_default="the model's own, at most 32768 and what fits in memory",
    ),
]  # fmt: skip
CacheTypeK = Annotated[
    Literal["f16", "q8_0"],
    typer.Option(
        "-ctk", "--cache-type-k", envvar="LCPU_CACHE_TYPE_K",
        help="Type of the keys in the cache; q8_0 takes half the memory of f16.",
    ),
]  # fmt: skip
CacheTypeV = Annotated[
    Literal["f16", "q8_0"],
    typer.Option("-ctv", "--cache-type-v", envvar="LCPU_CACHE_TYPE_V", help="Type of the values in the cache."),
]
Prompt = Annotated[
    str | None,
    typer.Option("-p", "--prompt", metavar="TEXT", help="Prompt; '-' reads it from stdin, and a pipe needs no -p."),
]
PromptFile = Annotated[Path | None, typer.Option("-f", "--file", metavar="FILE", help="File with the prompt.")]
Escape = Annotated[
    bool,
    typer.Option(
        "--escape/--no-escape", "-e", envvar="LCPU_ESCAPE", show_default="on",
        help=r"Read \n, \t, \", \\, \xHH in -p, -r and -sys as escapes; files and pipes are taken as they are.",
    ),
]  # fmt: skip
MaxTokens = Annotated[
    int,
    typer.Option(
        "-n", "--predict", "--n-predict", metavar="N", envvar="LCPU_N_PREDICT", min=-1,
        help="Tokens to generate; -1: until the model ends or the context is full.",
    ),
]  # fmt: skip
Temperature = Annotated[
    float, typer.Option("--temp", metavar="T", envvar="LCPU_TEMP", min=0.0, help="Temperature; 0 is greedy.")
]
TopK = Annotated[
    int,
    typer.Option("--top-k", metavar="K", envvar="LCPU_TOP_K", min=0, help="Keep the K likeliest tokens; 0: all."),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p", metavar="P", envvar="LCPU_TOP_P", min=0.0, max=1.0,
        help="Keep the likeliest tokens that together have probability P; 1: all.",
    ),
]  # fmt: skip
MinP = Annotated[
    float,
    typer.Option(
        "--min-p", metavar="P", envvar="LCPU_MIN_P", min=0.0, max=1.0,
        help="Keep tokens at least P times as likely as the likeliest; 0: all.",
    ),
]  # fmt: skip
RepeatPenalty = Annotated[
    float,
    typer.Option(
        "--repeat-penalty", metavar="X", envvar="LCPU_REPEAT_PENALTY", min=0.0,
        help="Penalty for repeated tokens; 1: none.",
    ),
]  # fmt: skip
RepeatLastN = Annotated[
    int,
    typer.Option(
        "--repeat-last-n", metavar="N", envvar="LCPU_REPEAT_LAST_N", min=-1,
        help="Last tokens that the penalty looks at; 0: none, -1: the context.",
    ),
]  # fmt: skip
Seed = Annotated[
    int,
    typer.Option(
        "-s", "--seed", metavar="N", envvar="LCPU_SEED", min=-1, max=2**32 - 1,
        help="Seed of the sampler; -1: a random one (-v and --json show it).",
    ),
]  # fmt: skip
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "-r", "--reverse-prompt", "--stop", metavar="TEXT", show_default=False,
        help="End before this text; may be given more than once.",
    ),
]  # fmt: skip
IgnoreEos = Annotated[
    bool,
    typer.Option("--ignore-eos", envvar="LCPU_IGNORE_EOS", help="Never choose a token that ends the text."),
]
Echo = Annotated[
    bool,
    typer.Option(
        "--echo/--no-echo", "--display-prompt/--no-display-prompt", envvar="LCPU_ECHO", show_default="off",
        help="Print the prompt too.",
    ),
]  # fmt: skip
OutputType = Annotated[
    str | None,
    typer.Option(
        "--output-type", metavar="TYPE", envvar="LCPU_OUTPUT_TYPE", show_default="keep",
        help="Compute the output layer in this type, such as q8_0, q6_k or q4_0; keep: the file's.",
    ),
]  # fmt: skip
ModelDraft = Annotated[
    Path | None,
    typer.Option(
        "-md", "--model-draft", metavar="FILE", envvar="LCPU_MODEL_DRAFT", show_default=False,
        help="A smaller GGUF model with the same vocabulary, which guesses tokens: the same text, but sooner.",
    ),
]  # fmt: skip
Spec = Annotated[
    Literal["auto", "ngram", "none"],
    typer.Option(
        "--spec", envvar="LCPU_SPEC",
        help="How to guess tokens, wherever it pays: ngram, from what the text repeats; auto, so or by -md; none.",
    ),
]  # fmt: skip
Chat = Annotated[
    bool,
    typer.Option(
        "--chat", "-cnv", "--conversation", envvar="LCPU_CHAT",
        help="Converse through the model's chat template: lines typed, or lines of a pipe, are the user's turns.",
    ),
]  # fmt: skip
SystemPrompt = Annotated[
    str | None,
    typer.Option("-sys", "--system-prompt", metavar="TEXT", help="System prompt of --chat."),
]
MemoryCheck = Annotated[
    bool,
    typer.Option(
        "--memory-check/--no-memory-check", envvar="LCPU_MEMORY_CHECK", show_default="on",
        help="Refuse a model that needs more memory than is left, and cut the default context to what fits.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing while it runs.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", envvar="LCPU_VERBOSE", help="Describe model, processor path and settings first."),
]
