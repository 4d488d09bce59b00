"""Chat templates: the messages of a conversation, written the way a model was trained to read them.

A model brings its template, a Jinja program, in `tokenizer.chat_template`. It is run as Hugging Face's `transformers`
runs it (utils/chat_template_utils.py), because that is what templates are written for, and in a sandbox, because a
model file can come from anyone: a template sees the messages and nothing else of this process. It cannot write without
end; but nothing keeps it from taking long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..kernels.errors import LcpuError

# What a model without a template gets, as in llama.cpp: the form most chat models were trained with.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

MAX_CHARACTERS = 1 << 24  # that a template may write; more than any context holds
_MAX_REPEATED = 1 << 20  # characters or items of a sequence times a number


def render(
    template: str | None,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
) -> str:
    """The text of a conversation, for `Tokenizer.encode(text, add_bos=False, parse_special=True)`.

    `messages` have "role" and "content". With `add_generation_prompt`, the text ends where the model's answer begins.
    Without a template (None or empty), `CHATML` is used. `bos_token` and `eos_token` are the texts of these tokens, for
    templates that write them. Raises LcpuError if the template is not valid, refuses the conversation, or does what the
    sandbox forbids.
    """
    variables = {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos_token,
        "eos_token": eos_token,
        "tools": None,
        "documents": None,
    }
    pieces: list[str] = []
    length = 0
    try:
        for piece in _compiled(template or CHATML).generate(variables):
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise SecurityError(f"it writes more than {MAX_CHARACTERS} characters")
            pieces.append(piece)
    except Exception as error:  # a template is a program: it can fail in any way
        cause = " ".join(str(error).split()) or type(error).__name__
        line = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise LcpuError(
            f"the chat template of the model fails{line}: {cause}; change the messages or the model"
        ) from None
    return "".join(pieces)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses products and powers so large that they would take all memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and (abs(left) > 1 << 16 or abs(right) > 64):
            raise SecurityError("a power is too large")
        for sequence, count in ((left, right), (right, left)):
            is_repeat = isinstance(sequence, (str, list, tuple)) and isinstance(count, int)
            if is_repeat and len(sequence) * count > _MAX_REPEATED:
                raise SecurityError("a repeated value is too long")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """The block `{% generation %}`, which marks what a model is trained on. Here, it is just its content."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter writes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
