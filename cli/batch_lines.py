"""Lines of `lcpu batch`: a request in JSON, in lcpu's own form or in that of OpenAI's batch files, and its answer.

OpenAI's form: https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kernels.errors import LcpuError

if TYPE_CHECKING:
    from ..engine.generate import Generation
    from ..engine.options import GenerationOptions

Json = dict[str, Any]

# Settings, and the names they may have in a line: llama.cpp's and OpenAI's.
SETTINGS = {
    "max_tokens": ("max_tokens", "max_completion_tokens", "n_predict"),
    "temperature": ("temperature", "temp"),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "repeat_penalty": ("repeat_penalty", "repetition_penalty"),
    "repeat_last_n": ("repeat_last_n",),
    "seed": ("seed",),
    "stop": ("stop",),
    "ignore_eos": ("ignore_eos",),
}
_FLOATS = ("temperature", "top_p", "min_p", "repeat_penalty")
# Settings that lcpu does not have, and the values with which they change nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "logprobs": (False, 0), "top_logprobs": (0,), "echo": (False,), "suffix": ("",),
    "presence_penalty": (0,), "frequency_penalty": (0,), "logit_bias": ({}, []), "tools": ([],), "functions": ([],),
    "response_format": ({"type": "text"},), "grammar": ("",), "json_schema": ({},), "typical_p": (1,), "mirostat": (0,),
}  # fmt: skip
_TOLD = ("chat_template_kwargs", "reasoning_effort")
_IGNORED = {"id", "custom_id", "prompt", "messages", "model", "stream", "user", "metadata", "store", "cache_prompt"}
_KNOWN = {name for names in SETTINGS.values() for name in names} | set(_WITHOUT_EFFECT) | _IGNORED | set(_TOLD)
_ENDPOINTS = ("/v1/completions", "/v1/chat/completions")
ANSWER_START = b'{"id": '  # of every answer
_REQUEST_ID = re.compile(r"batch_req_(\d+)")


@dataclass(frozen=True)
class Request:
    """What a line asks for."""

    line: int  # its number, from 1 on
    id: Any = None  # its own name for it
    endpoint: str | None = None  # of OpenAI's form
    prompt: str | list[int] | None = None  # or else messages
    messages: list[dict[str, str]] | None = None
    model: Any = None  # which only goes into the answer
    told: Mapping[str, Any] | None = None  # what the chat template is told besides
    settings: Mapping[str, Any] | None = None
    unknown: tuple[str, ...] = ()  # names of what was ignored
    error: str | None = None  # why it cannot be answered; then only what stands before is known


def read_request(data: bytes, line: int) -> Request:
    """The request in a line. What is wrong with it is in its `error`."""
    request: Json = {"line": line}
    try:
        content = _json_object(data)
        body = content
        request["id"] = content.get("custom_id", content.get("id"))
        if "body" in content or "url" in content:
            request["endpoint"] = content.get("url") if content.get("url") in _ENDPOINTS else _ENDPOINTS[0]
            body = _openai_body(content)
        request["model"] = body.get("model")
        request |= _text(body, request.get("endpoint"))
        request["told"] = _told(body) or None
        request["settings"] = dict(_settings(body))
        request["unknown"] = tuple(name for name in body if name not in _KNOWN)
    except LcpuError as error:
        request["error"] = str(error)
    return Request(**request)


def _json_object(data: bytes) -> Json:
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LcpuError(f"the line is not UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise LcpuError(f"the line is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise LcpuError('the line is no JSON object: write one such as {"prompt": "Once upon a time"}')
    return content


def _openai_body(content: Json) -> Json:
    body, url, method = content.get("body"), content.get("url"), content.get("method", "POST")
    if url not in _ENDPOINTS or method != "POST":
        raise LcpuError(f"{method} {url} is not answered, only POST {' and POST '.join(_ENDPOINTS)}")
    if not isinstance(body, dict):
        raise LcpuError("body is no JSON object")
    return body


def _text(body: Json, endpoint: str | None) -> Json:
    """The prompt or the messages of a request."""
    prompt: Any = body.get("prompt")
    messages: Any = body.get("messages")
    if endpoint is not None:
        prompt, messages = (prompt, None) if endpoint == _ENDPOINTS[0] else (None, messages)
    if (prompt is None) == (messages is None):
        wanted = {_ENDPOINTS[0]: "a prompt", _ENDPOINTS[1]: "messages", None: "either a prompt or messages"}[endpoint]
        raise LcpuError(f"the line needs {wanted}")
    if messages is not None:
        if not isinstance(messages, list) or not messages:
            raise LcpuError('messages is no list such as [{"role": "user", "content": "Hello"}]')
        return {"messages": [_message(message) for message in messages]}
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return {"prompt": _unicode(prompt, "prompt")}
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return {"prompt": prompt}
    raise LcpuError("prompt is neither a text nor a list of token ids: give each text a line of its own")


def _message(message: Any) -> dict[str, str]:
    role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
    if isinstance(content, list):
        texts = [part["text"] for part in content
                 if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)]
        content = "".join(texts) if len(texts) == len(content) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise LcpuError(f"{json.dumps(message)[:80]} is no message with a role and a text as content")
    return {"role": _unicode(role, "role"), "content": _unicode(content, "content")}


def _told(body: Json) -> Json:
    """What the chat template is told besides, by llama.cpp's name for it and by OpenAI's of one of its settings."""
    told, effort = (body.get(name) for name in _TOLD)
    if not isinstance(told, dict | None) or not isinstance(effort, str | None):
        raise LcpuError('chat_template_kwargs is an object such as {"enable_thinking": false}, and reasoning_effort a '
                        "text")
    return ({} if effort is None else {"reasoning_effort": effort}) | (told or {})


def _unicode(text: str, name: str) -> str:
    r"""JSON can write halves of a pair ("\ud800"), which no tokenizer takes."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise LcpuError(f"{name} has half of a surrogate pair: it is no valid Unicode")
    return text


def _settings(body: Json) -> Iterator[tuple[str, Any]]:
    """The settings that a line has, by their names in GenerationOptions. null is as good as nothing."""
    for name, harmless in _WITHOUT_EFFECT.items():
        if body.get(name) is not None and body[name] not in harmless:
            raise LcpuError(f"{name} is {json.dumps(body[name])[:80]}, which lcpu cannot do: leave it out")
    for setting, names in SETTINGS.items():
        given = [name for name in names if body.get(name) is not None]
        value = _value(setting, given[0], body[given[0]]) if given else None
        if value is not None and (setting, value) != ("seed", -1):
            yield setting, value


def _value(setting: str, name: str, value: Any) -> Any:
    if setting == "stop":
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return tuple(texts)
    elif setting == "ignore_eos":
        if isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**64:
        if setting in _FLOATS:
            return float(value)
        if value == int(value):  # also 40.0, as some programs write whole numbers
            return int(value)
    kind = {"stop": "a text or a list of texts", "ignore_eos": "true or false"}.get(
        setting, "a number" if setting in _FLOATS else "a whole number")
    raise LcpuError(f"{name} is {json.dumps(value)[:80]}; it must be {kind}")


# ---- answers ----


def answer(request: Request, generation: Generation, options: GenerationOptions, text: str) -> Json:
    """The answer to a request, in its form."""
    usage = {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": len(generation.generated_ids),
        "total_tokens": generation.prompt_tokens + len(generation.generated_ids),
        "prompt_tokens_details": {"cached_tokens": generation.reused_tokens},
    }
    if request.endpoint is None:
        return {**_own_head(request), "text": text, "finish_reason": generation.finish_reason, "seed": options.seed,
                "usage": usage}
    reason = "stop" if generation.finish_reason == "stop" else "length"  # which are all that OpenAI has
    chat = request.endpoint == _ENDPOINTS[1]
    said: Json = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    body = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{request.line}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": request.model if isinstance(request.model, str) else "lcpu",
        "seed": options.seed,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": reason}],
        "usage": usage,
    }
    return _openai_answer(request, 200, body, None)


def error_answer(request: Request, message: str, *, ours: bool = False) -> Json:
    """The answer to a request that failed; ours: not by its own fault."""
    if request.endpoint is None:
        return {**_own_head(request), "error": message}
    kind = "server_error" if ours else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return _openai_answer(request, 500 if ours else 400, body, {"code": kind, "message": message})


def _own_head(request: Request) -> Json:
    return {"id": request.line if request.id is None else request.id, "line": request.line}


def _openai_answer(request: Request, status: int, body: Json, error: Json | None) -> Json:
    response = {"status_code": status, "request_id": f"req_{request.line}", "body": body}
    return {"id": f"batch_req_{request.line}", "custom_id": request.id, "response": response, "error": error}


def answered_line(data: bytes) -> tuple[int, Any] | None:
    """The number of the line that an answer belongs to, and the id that it had; None if this is no answer."""
    try:
        content = _json_object(data)
    except LcpuError:
        return None
    line = content.get("line")
    if "response" in content and (match := _REQUEST_ID.fullmatch(str(content.get("id")))):
        return int(match[1]), content.get("custom_id")
    return (line, content.get("id")) if type(line) is int and line > 0 else None
