"""Chat templates: the messages of a conversation, written the way a model was trained to read them.

A model brings its template, a Jinja program, in `tokenizer.chat_template`. It is run as Hugging Face's `transformers`
runs it (utils/chat_template_utils.py), because that is what templates are written for, and in a sandbox with bounds
(`template_sandbox`), because a model file can come from anyone.

What a template cannot do is found out by rendering a short conversation, as llama.cpp does (common/jinja/caps.cpp):
some have no system role, and some read `content` only as a list of parts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, Template
from jinja2.exceptions import SecurityError, TemplateSyntaxError

from ..kernels.errors import LcpuError
from .template_sandbox import MAX_SIZE, Budget, environment

# What a model without a template gets, as in llama.cpp: the form most chat models were trained with.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_REASONING = ("reasoning_content", "thinking", "reasoning")  # names of fields of messages
_PROBES = ("lcpusystem", "lcpuuser")  # words that no template writes by itself

Message = Mapping[str, Any]

logger = logging.getLogger("lcpu")


def render(
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation, for `Tokenizer.encode(text, add_bos=False, parse_special=True)`.

    `messages` have "role" and "content", a text, and what else a template knows, such as "reasoning_content" or
    "tool_calls". With `add_generation_prompt`, the text ends where the model's answer begins. Without a template (None
    or empty), `CHATML` is used. `bos_token` and `eos_token` are the texts of these tokens, for templates that write
    them. `tools` describe functions that the model may call, as in OpenAI's API. `variables` set what else a template
    asks for, such as "enable_thinking" or "reasoning_effort". For a template without a system role, the system prompt
    stands before the first user message, as in llama.cpp. Raises LcpuError if the template is not valid, refuses the
    conversation, or does what the sandbox forbids.
    """
    own = {"add_generation_prompt": add_generation_prompt, "bos_token": bos_token, "eos_token": eos_token}
    given = {"tools": list(tools)} if tools else {}
    conversation = [_with_reasoning(message) for message in messages]
    try:
        with Budget():
            compiled = _compiled(template or CHATML)
            abilities = _abilities(compiled, bos_token, eos_token)
            if not abilities.system_role and any(message["role"] == "system" for message in conversation):
                conversation = _without_system(conversation)
            if abilities.parts_only:
                conversation = [_in_parts(message) for message in conversation]
            return _render(compiled, conversation, {**(variables or {}), **own, **given})
    except Exception as error:  # a template is a program: it can fail in any way
        cause = " ".join(str(error).split()) or type(error).__name__
        line = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise LcpuError(
            f"the chat template of the model fails{line}: {cause}; change the messages or the model"
        ) from None


@dataclass(frozen=True)
class _Abilities:
    system_role: bool
    parts_only: bool  # `content` is a list of parts, not a text


@lru_cache(maxsize=8)
def _abilities(template: Template, bos_token: str, eos_token: str) -> _Abilities:
    """What a template does with a short conversation. Where nothing comes of it, it is taken to be able to do all."""
    variables = {"add_generation_prompt": True, "bos_token": bos_token, "eos_token": eos_token}
    system, user = _PROBES
    system_turn, user_turn = {"role": "system", "content": system}, {"role": "user", "content": user}

    def writes(word: str, *turns: Message) -> bool:
        try:
            return word in _render(template, turns, variables)
        except SecurityError:
            raise
        except Exception:  # a refusal
            return False

    parts_only = not writes(user, user_turn) and writes(user, _in_parts(user_turn))
    turns = [_in_parts(turn) if parts_only else turn for turn in (system_turn, user_turn)]
    can_render = writes(user, *turns) or writes(user, turns[1])
    system_role = writes(system, *turns) or not can_render
    if parts_only:
        logger.info("the chat template reads messages as lists of parts")
    if not system_role:
        logger.info("the chat template has no system role: a system prompt goes before the first user message")
    return _Abilities(system_role, parts_only)


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The system prompts put before the first user message, or as one if there is none."""
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    first = next((i for i, message in enumerate(others) if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *others]
    user = others[first]
    return [*others[:first], {**user, "content": f"{system}\n{user['content']}"}, *others[first + 1 :]]


def _with_reasoning(message: Message) -> Message:
    """What the model thought, by both names that templates have for it, as in transformers."""
    found = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return dict(message) if found is None else {"thinking": found, **message, "reasoning_content": found}


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _render(template: Template, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """The text, with `tools` and `documents` as None like in transformers; where that fails, undefined as in llama.cpp.

    A loop over None fails, and one over an undefined variable is empty.
    """
    variables = {"messages": [dict(message) for message in messages], **variables}
    try:
        return "".join(_bounded(template.generate({"tools": None, "documents": None, **variables})))
    except TypeError as refused:
        try:
            return "".join(_bounded(template.generate(variables)))
        except TypeError:
            raise refused from None


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_SIZE:
            raise SecurityError(f"it writes more than {MAX_SIZE} characters")
        yield piece


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return environment()
