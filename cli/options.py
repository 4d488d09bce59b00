"""The options that subcommands share. They have llama.cpp's names where it has the same option.

A setting can also be given as an environment variable, LCPU_*; the command line wins. Options that belong to one call
only (prompts, stop strings, --json) have no variable. This module imports neither numba, numpy nor the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# The class of every command-line error. Newer typers carry a click of their own, so it is reached through typer.
UsageError: Any = typer.BadParameter.__base__


def from_environment(context: typer.Context, name: str) -> bool:
    """Whether a parameter has its value from the environment and not from the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"


Model = Annotated[
    Path | None,
    typer.Option(
        "-m", "--model", metavar="FILE", envvar="LCPU_MODEL", show_default="the embedded model",
        help="GGUF file, or the folder of a Hugging Face checkpoint, which is converted in memory; ollama:NAME[:TAG] "
             "or llama.cpp:FILE from the cache of that program.",
    ),
]  # fmt: skip
HfRepo = Annotated[
    str | None,
    typer.Option(
        "-hf", "-hfr", "--hf-repo", metavar="OWNER/NAME[:TYPE]", envvar="LCPU_HF_REPO", show_default=False,
        help="Repository on the Hugging Face hub with the GGUF file, which is downloaded into the hub's cache. TYPE is "
             "such as Q5_K_M; without it, Q4_K_M or the next best is taken.",
    ),
]  # fmt: skip
HfFile = Annotated[
    str | None,
    typer.Option(
        "-hff", "--hf-file", metavar="NAME", envvar="LCPU_HF_FILE", show_default=False,
        help="File in the repository of -hf, where the type does not tell which.",
    ),
]  # fmt: skip
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="NAME", help="Branch, tag or commit on the hub.", show_default="main"),
]
Convert = Annotated[
    bool, typer.Option("--convert", help="Download the checkpoint in the repository of -hf, and convert it in memory.")
]
Type = Annotated[
    str | None,
    typer.Option(
        "--type", metavar="TYPE", show_default="the checkpoint's own",
        help="Type that a checkpoint is converted to, such as q8_0 or q4_0.",
    ),
]  # fmt: skip
Threads = Annotated[
    int | None,
    typer.Option(
        "-t", "--threads", metavar="N", envvar="LCPU_THREADS", min=-1,
        help="Number of threads.", show_default="physical cores this process may use, fewer for a small model",
    ),
]  # fmt: skip
Context = Annotated[
    int | None,
    typer.Option(
        "-c", "--ctx-size", metavar="N", envvar="LCPU_CONTEXT", min=0,
        help="Size of the context, in tokens.", show_default="the model's own, at most 32768 and what fits in memory",
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
ContextShift = Annotated[
    bool,
    typer.Option(
        "--context-shift/--no-context-shift", envvar="LCPU_CONTEXT_SHIFT", show_default="off",
        help="At a full context, drop the oldest half of what --keep does not keep, and go on.",
    ),
]  # fmt: skip
Keep = Annotated[
    int,
    typer.Option(
        "--keep", metavar="N", envvar="LCPU_KEEP", min=-1,
        help="Tokens of the prompt that --context-shift keeps; -1: all. A BOS token is kept as well.",
    ),
]  # fmt: skip
PromptCache = Annotated[
    Path | None,
    typer.Option(
        "--prompt-cache", metavar="FILE", show_default=False,
        help="Keep what is computed of the prompt in this file: a later run whose prompt begins so starts sooner.",
    ),
]  # fmt: skip
PromptCacheAll = Annotated[
    bool, typer.Option("--prompt-cache-all", help="Keep the generated text in the prompt cache too.")
]
PromptCacheReadOnly = Annotated[
    bool, typer.Option("--prompt-cache-ro", help="Use the prompt cache, but never write it.")
]
Temperature = Annotated[
    float, typer.Option("--temp", metavar="T", envvar="LCPU_TEMP", min=0.0, help="Temperature; 0 is greedy.")
]
TopK = Annotated[
    int,
    typer.Option("--top-k", metavar="K", envvar="LCPU_TOP_K", min=0, help="Keep the K most likely tokens; 0: all."),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p", metavar="P", envvar="LCPU_TOP_P", min=0.0, max=1.0,
        help="Keep the most likely tokens whose probabilities add up to P; 1: all.",
    ),
]  # fmt: skip
MinP = Annotated[
    float,
    typer.Option(
        "--min-p", metavar="P", envvar="LCPU_MIN_P", min=0.0, max=1.0,
        help="Keep tokens at least P times as likely as the most likely one; 0: all.",
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
        help="How many of the last tokens the penalty looks at; 0: none, -1: the whole context.",
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
        help="Draft model for speculative decoding: a smaller GGUF model with the same vocabulary. It makes text "
             "faster and never changes it.",
    ),
]  # fmt: skip
HfRepoDraft = Annotated[
    str | None,
    typer.Option(
        "-hfd", "-hfrd", "-mdhf", "--hf-repo-draft", metavar="OWNER/NAME[:TYPE]", envvar="LCPU_HF_REPO_DRAFT",
        show_default=False, help="Repository on the Hugging Face hub with the draft model.",
    ),
]  # fmt: skip
Spec = Annotated[
    Literal["auto", "ngram", "none"],
    typer.Option(
        "--spec", envvar="LCPU_SPEC",
        help="What drafts tokens for speculative decoding. ngram: repetitions in the text; auto: these and the model "
             "of -md or -hfd, whichever is faster; none: nothing.",
    ),
]  # fmt: skip
Chat = Annotated[
    bool,
    typer.Option(
        "--chat", "-cnv", "--conversation", envvar="LCPU_CHAT",
        help="Chat with the model, through its chat template. Each line from the terminal or a pipe is a user message.",
    ),
]  # fmt: skip
SystemPrompt = Annotated[
    str | None,
    typer.Option("-sys", "--system-prompt", metavar="TEXT", help="System prompt of --chat."),
]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        "--chat-template-kwargs", metavar="JSON", envvar="LCPU_CHAT_TEMPLATE_KWARGS",
        help='What the chat template is told besides, as a JSON object, such as {"reasoning_effort": "low"}.',
    ),
]  # fmt: skip
Reasoning = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        "--reasoning", "-rea", envvar="LCPU_REASONING",
        help="Whether the model thinks before it answers, where its chat template has a switch for it "
             "(enable_thinking or thinking); auto: as the template does by itself.",
    ),
]  # fmt: skip
MemoryCheck = Annotated[
    bool,
    typer.Option(
        "--memory-check/--no-memory-check", envvar="LCPU_MEMORY_CHECK", show_default="on",
        help="Refuse a model that needs more memory than is left, and cut the default context to what fits.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document at the end, and nothing else.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", envvar="LCPU_VERBOSE", help="Describe model, SIMD path and settings first."),
]
