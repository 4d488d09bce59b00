"""`lcpu batch`: answers to many prompts, computed together."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from . import console, options, prompt, report, sources
from .batch_files import Answers, open_input, open_output, size_of
from .batch_run import Run
from .prompt_cache import PromptCache
from .run import draft_source, drafting, load

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
CommonPromptCache = Annotated[
    Path | None,
    typer.Option(
        "--prompt-cache", metavar="FILE", show_default=False,
        help="Keep what is computed of the beginning that all prompts have in common, such as a system prompt, in this "
             "file: a later run whose prompts begin so starts sooner.",
    ),
]  # fmt: skip


def batch(
    settings: typer.Context,
    model: options.Model = None,
    hf_repo: options.HfRepo = None,
    hf_file: options.HfFile = None,
    revision: options.Revision = None,
    convert: options.Convert = False,
    type: options.Type = None,
    file: Requests = None,
    output: Output = None,
    parallel: Parallel = 16,
    as_completed: AsCompleted = False,
    resume: Resume = False,
    force: Force = False,
    max_tokens: options.MaxTokens = -1,
    context: options.Context = None,
    prompt_cache: CommonPromptCache = None,
    prompt_cache_ro: options.PromptCacheReadOnly = False,
    threads: options.Threads = None,
    output_type: options.OutputType = None,
    cache_type_k: options.CacheTypeK = "f16",
    cache_type_v: options.CacheTypeV = "f16",
    model_draft: options.ModelDraft = None,
    hf_repo_draft: options.HfRepoDraft = None,
    spec: options.Spec = "auto",
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
    wanted = sources.chosen(settings, model, hf_repo, hf_file, revision, convert, type)
    wanted_draft, spec = drafting(settings, sources.chosen_draft(settings, model_draft, hf_repo_draft), spec)
    cache = PromptCache(prompt_cache, read_only=prompt_cache_ro)
    cache.check()
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
        found, found_draft = sources.fetched(wanted), wanted_draft and sources.fetched(wanted_draft)
        cache_tokens = parallel * text_tokens(source, max_tokens, context)
        sizes: dict[str, Any] = {"parallel": parallel, "cache_tokens": cache_tokens}
        llm = stack.enter_context(load(found, threads, context, output_type, (cache_type_k, cache_type_v),
                                       check=memory_check, quiet=False, **sizes))
        draft = draft_source(stack, llm, found_draft, spec, check=memory_check, quiet=False, **sizes)
        llm.check_draft(draft)  # or each line would tell what is wrong with it
        report.introduce(llm, found.path, draft, threads, context, seed, output_type, verbose=verbose)
        cache.restore(llm)
        answers = Answers(target, ordered=not as_completed)
        run = Run(llm, source, answers, answered, defaults=defaults, seed=seed, draft=draft, cache=cache)
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
