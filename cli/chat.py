"""A conversation with a chat model: turns from a terminal or a pipe, replies on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..kernels.errors import LcpuError
from . import console
from .options import UsageError
from .prompt import as_unicode
from .prompt_cache import PromptCache
from .report import Timings

if TYPE_CHECKING:
    from ..engine.generate import GenerationOptions
    from ..engine.llm import DraftSource
    from .protocols import LLM, Generation

    Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

Told = Mapping[str, Any]
_THINKING = ("enable_thinking", "thinking")  # what templates call the switch; Granite's and DeepSeek's: the second

HELP = "/exit or Ctrl-D end, /reset forgets the conversation, /system TEXT sets the system prompt; Ctrl-C stops a reply"


def opening(system: str | None, user: str | None = None) -> list[Message]:
    """The first messages of a conversation: the system prompt and the user's message, if they are given."""
    turns = [("system", system), ("user", user)]
    return [{"role": role, "content": content} for role, content in turns if content is not None]


def switches(kwargs: str | None, reasoning: str = "auto") -> dict[str, Any]:
    """What a chat template is told besides, from --chat-template-kwargs and --reasoning."""
    try:
        told = {} if kwargs is None else json.loads(kwargs)
    except ValueError as error:
        raise UsageError(f"--chat-template-kwargs is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise UsageError('--chat-template-kwargs is no JSON object, such as {"enable_thinking": false}')
    return told if reasoning == "auto" else {**told, **dict.fromkeys(_THINKING, reasoning == "on")}


def encode(llm: LLM, messages: list[Message], may_be_longer: bool = False, told: Told | None = None) -> list[int]:
    """What `encode_any` gives. Raises LcpuError also if the conversation fills the context.

    may_be_longer: than the context, save for its first message. told: `switches`.
    """
    ids = encode_any(llm, messages, told=told)
    is_first = sum(message["role"] == "user" for message in messages) == 1
    if len(ids) >= llm.context and (is_first or not may_be_longer):
        raise LcpuError(f"the message makes a prompt of {len(ids)} tokens, and the context has {llm.context}: shorten "
                        "it, or set a larger context with -c N" if is_first else context_full(llm))  # fmt: skip
    return ids


def encode_any(llm: LLM, messages: list[Message], way_out: str = "leave out --chat", told: Told | None = None
               ) -> list[int]:
    """The whole conversation as token ids, through the model's chat template, up to where its reply begins.

    A model without a template gets ChatML if it knows ChatML's tokens.
    Errors: LcpuError for a model that has neither; way_out: what to do then, but to take another model.
    """
    from ..engine.chat import render
    from ..engine.harmony import message_of

    if not llm.chat_template and len(llm.tokenize("<|im_start|>", add_bos=False, parse_special=True)) != 1:
        raise LcpuError(f"this model is not made for chat (no chat template); take another with -m, or {way_out}")
    bos, eos = (token_text(llm, token) for token in (llm.tokenizer.bos_id, llm.tokenizer.eos_id))
    messages = [message_of(message["content"]) if message["role"] == "assistant" else message for message in messages]
    text = render(llm.chat_template, messages, bos_token=bos, eos_token=eos, variables=told)
    template_adds_bos = bool(bos) and text.startswith(bos)
    return llm.tokenize(text, add_bos=not template_adds_bos, parse_special=True)


def token_text(llm: LLM, token: int | None) -> str:
    return "" if token is None else llm.tokenizer.token_bytes(token, skip_special=False).decode("utf-8", "replace")


def context_full(llm: LLM) -> str:
    return (f"the context of {llm.context} tokens is full; /reset forgets the conversation, -c N gives it more room, "
            "--context-shift drops its oldest half")


def converse(llm: LLM, sampling: GenerationOptions, draft: DraftSource, system: str | None,
             cache: PromptCache, *, first: str | None, verbose: bool, told: Told | None = None) -> None:
    """Answers the user's messages, one after another.

    Each message renders the whole conversation again; the engine computes only what is not in its cache. At a terminal,
    an error or Ctrl-C ends the reply; in a pipe, it ends the run.
    """
    messages = opening(system)
    timings = Timings(llm.load_seconds)
    if console.stdin_is_terminal():
        console.notice(HELP)
    for turn in user_turns(first):
        command, _, argument = turn.partition(" ")
        if command == "/exit":
            break
        if command == "/help":
            console.notice(HELP)
        elif command == "/reset":
            messages = [message for message in messages if message["role"] == "system"]
            confirm("the conversation is forgotten")
        elif command == "/system":
            messages = opening(argument or None) + [message for message in messages if message["role"] != "system"]
            confirm("the system prompt is set" if argument else "the system prompt is removed")
        elif generation := answer(llm, sampling, draft, cache, messages, turn, told):
            timings = timings.plus(generation)
            if verbose:
                console.notice(Timings(llm.load_seconds).plus(generation).line())
    console.notice(timings.line())


def confirm(done: str) -> None:
    """Tells who typed a command that it was understood."""
    if console.stdin_is_terminal():
        console.notice(done)


def answer(llm: LLM, sampling: GenerationOptions, draft: DraftSource, cache: PromptCache,
           messages: list[Message], turn: str, told: Told | None = None) -> Generation | None:
    """Adds the user's message and the model's reply to the messages. Returns None when there is no reply.

    A message that Ctrl-C stops before the reply begins is forgotten: it may have been too long to wait for.
    """
    user = {"role": "user", "content": turn}
    try:
        ids = encode(llm, [*messages, user], may_be_longer=sampling.context_shift, told=told)
        if sampling.context_shift:
            sampling = with_prompt_kept(llm, sampling, [*messages, user], told)
            ids = llm.shifted(ids, sampling)
        generation = llm.stream(ids, sampling, draft)
        reply = stream_reply(cache.saving(llm, ids, generation))
    except LcpuError as error:
        if not console.stdin_is_terminal():
            raise
        console.notice(f"lcpu: error: {error}")
        return None
    if not reply and generation.finish_reason is None:
        console.notice("stopped before the reply began: this message is forgotten")
        return None
    messages += [user, {"role": "assistant", "content": reply}]
    if generation.finish_reason == "context":
        console.notice(context_full(llm))
    return generation


def with_prompt_kept(llm: LLM, sampling: GenerationOptions, messages: list[Message], told: Told | None = None
                     ) -> GenerationOptions:
    """--keep -1 in a conversation: its prompt is the system prompt and the first message, as in llama.cpp."""
    if sampling.keep >= 0:
        return sampling
    first = next(number for number, message in enumerate(messages) if message["role"] == "user")
    prompt = encode(llm, messages[: first + 1], told=told)
    counted_anyway = llm.tokenizer.add_bos and prompt[0] == llm.tokenizer.bos_id
    return replace(sampling, keep=len(prompt) - counted_anyway)


def stream_reply(generation: Iterable[str]) -> str:
    """Writes the reply as it comes, and returns it. At a terminal, Ctrl-C stops it; what came so far is returned."""
    pieces: list[str] = []

    def kept() -> Iterator[str]:
        for piece in generation:
            pieces.append(piece)
            yield piece

    try:
        console.stream(kept())
    except KeyboardInterrupt:
        if not console.stdin_is_terminal():
            raise
        console.write("\n")
    return "".join(pieces)


def user_turns(first: str | None) -> Iterator[str]:
    """The user's messages: `first`, then the lines of stdin that are not empty. Waiting for a line takes no CPU.

    A byte order mark at the start of stdin, as some shells of Windows write it, is no part of a message.
    """
    if first is not None:
        yield first
    if console.stdin_is_terminal():
        with contextlib.suppress(ImportError):  # Windows has no readline; its console edits lines by itself
            import readline  # noqa: F401 (gives input() line editing and history)
    byte_order_mark = "\ufeff"
    while (line := read_line()) is not None:
        line, byte_order_mark = line.removeprefix(byte_order_mark), ""
        if line.strip():
            yield line


def read_line() -> str | None:
    """The next line of stdin, or None at its end. The prompt "> " is only shown at a terminal."""
    if console.stdin_is_terminal() and sys.stdout.isatty():
        try:
            return as_unicode(input("> "))
        except EOFError:
            console.write("\n")
            return None
    if console.stdin_is_terminal():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline() if sys.stdin is not None else ""
    return as_unicode(line.removesuffix("\n")) if line else None
