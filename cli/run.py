"""`lcpu run`: text from a prompt, as a stream, as a JSON document, or as a conversation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from . import chat as conversation
from . import console, options, prompt, report, sources
from .prompt_cache import PromptCache
from .sources import Source

if TYPE_CHECKING:
    from ..engine.generate import Generation
    from ..engine.llm import LLM, DraftSource

DEFAULT_PROMPT = "Once upon a time"  # for the embedded model, if no prompt is given


def run(
    settings: typer.Context,
    model: options.Model = None,
    hf_repo: options.HfRepo = None,
    hf_file: options.HfFile = None,
    revision: options.Revision = None,
    convert: options.Convert = False,
    type: options.Type = None,
    prompt_text: options.Prompt = None,
    file: options.PromptFile = None,
    max_tokens: options.MaxTokens = -1,
    context: options.Context = None,
    context_shift: options.ContextShift = False,
    keep: options.Keep = 0,
    prompt_cache: options.PromptCache = None,
    prompt_cache_all: options.PromptCacheAll = False,
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
    chat: options.Chat = False,
    system_prompt: options.SystemPrompt = None,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    reasoning: options.Reasoning = "auto",
    escape: options.Escape = True,
    echo: options.Echo = False,
    json: options.Json = False,
    memory_check: options.MemoryCheck = True,
    verbose: options.Verbose = False,
) -> None:
    """Generate text from a prompt.

    The prompt comes from -p TEXT, -f FILE or a pipe on stdin. The text is written to stdout while it is generated;
    progress and speeds are written to stderr.
    """
    console.show_messages(verbose and not json)
    if system_prompt is not None and not chat:
        raise options.UsageError("-sys is the system prompt of a conversation: add --chat")
    told = conversation.switches(chat_template_kwargs, reasoning)
    wanted = sources.chosen(settings, model, hf_repo, hf_file, revision, convert, type)
    wanted_draft, spec = drafting(settings, sources.chosen_draft(settings, model_draft, hf_repo_draft), spec)
    cache = PromptCache(prompt_cache, prompt_cache_all, prompt_cache_ro)
    cache.check()
    text = prompt.read_prompt(prompt_text, file, escape=escape, pipe=json or not chat)
    # At a terminal, the prompt is the first message of a conversation. Elsewhere it is the only one; stdin is not read.
    converse = chat and not json and (text is None or console.stdin_is_terminal())
    if text is None and not converse:
        text = default_prompt(wanted, chat)
    unescape = prompt.unescape if escape else prompt.as_unicode
    seed = int.from_bytes(os.urandom(4), "little") if seed < 0 else seed

    from ..engine.generate import GenerationOptions

    sampling = GenerationOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        repeat_last_n=repeat_last_n,
        seed=seed,
        stop=tuple(unescape(end) for end in stop or ()),
        ignore_eos=ignore_eos,
        context_shift=context_shift,
        keep=keep,
    )
    system = None if system_prompt is None else unescape(system_prompt)
    found, found_draft = sources.fetched(wanted), wanted_draft and sources.fetched(wanted_draft)
    with ExitStack() as stack:
        llm = stack.enter_context(load(found, threads, context, output_type, (cache_type_k, cache_type_v),
                                       check=memory_check, quiet=json))
        draft = draft_source(stack, llm, found_draft, spec, check=memory_check, quiet=json)
        if not json:
            report.introduce(llm, found.path, draft, threads, context, seed, output_type, verbose=verbose)
        cache.restore(llm)
        if text is None or converse:
            conversation.converse(llm, sampling, draft, system, cache, first=text, verbose=verbose, told=told)
            return
        messages = conversation.opening(system, text)
        ids = conversation.encode(llm, messages, told=told) if chat else llm.tokenize(text, parse_special=True)
        generation = llm.stream(ids, sampling, draft)
        pieces = cache.saving(llm, ids, generation)
        if json:
            generated = "".join(pieces)
            console.write(report.document(llm, found.path, text, seed, generated, generation) + "\n")
        else:
            print_text(llm, generation, pieces, before=text if echo else "")


def drafting(settings: typer.Context, draft: Source | None, spec: options.Spec) -> tuple[Source | None, options.Spec]:
    """The draft model and --spec. Where they do not go together, the command line wins over the environment."""
    if draft is None or spec == "auto":
        return draft, spec
    if options.from_environment(settings, "model_draft" if draft.repo is None else "hf_repo_draft"):
        return None, spec
    if options.from_environment(settings, "spec"):
        return draft, "auto"
    flag = "-md" if draft.repo is None else "-hfd"
    raise options.UsageError(f"{flag} names a draft model, but --spec {spec} has no use for it: leave out one of them")


def default_prompt(source: Source, chat: bool) -> str:
    if source.is_embedded and not chat:
        return DEFAULT_PROMPT
    raise options.UsageError("no prompt: give -p TEXT, -f FILE or a pipe on stdin, or converse with --chat")


def load(source: Source, threads: int | None = None, context: int | None = None, output_type: str | None = None,
         cache_types: tuple[str, str] = ("f16", "f16"), *, beside: LLM | None = None, check: bool = True,
         quiet: bool, **sizes: Any) -> LLM:
    """Loads a model that is `fetched`, on threads of its own or those of `beside`.

    As in llama.cpp, 0 (or -1 threads) is the default.
    check: refuse a model that needs more memory than is left. sizes: `parallel` and `cache_tokens`, if not the
    engine's own.
    """
    from .. import LLM

    with console.LoadProgress() as progress:
        return LLM.load(
            source.path,
            type=source.type,
            threads=threads if threads and threads > 0 else None,
            context=context or None,
            output_type=output_type,
            cache_types=cache_types,
            beside=beside,
            check_memory=check,
            progress=None if quiet else progress,
            **sizes,
        )


def draft_source(stack: ExitStack, llm: LLM, source: Source | None, spec: options.Spec, *, check: bool, quiet: bool,
                 **sizes: Any) -> DraftSource:
    """What drafts for the texts of a model. A draft model is loaded onto its threads, and closed with the stack."""
    if source is None:
        return None if spec == "none" else "ngram"
    return stack.enter_context(load(source, context=llm.context, beside=llm, check=check, quiet=quiet, **sizes))


def print_text(llm: LLM, generation: Generation, pieces: Iterable[str], *, before: str) -> None:
    console.stream(pieces, before)
    if generation.finish_reason == "context":
        console.notice(f"the context of {llm.context} tokens is full: the text ends here; -c N sets a larger one, "
                       "--context-shift goes on without the oldest half")
    console.notice(report.Timings(llm.load_seconds).plus(generation).line())
