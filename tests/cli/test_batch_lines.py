"""Lines of `lcpu batch`: what is read from each, and what is wrong with it."""

from __future__ import annotations

import json

import pytest

from lcpu.cli.batch_lines import Request, answered_line, error_answer, read_request

USER = [{"role": "user", "content": "Hi"}]


def read(content: object) -> Request:
    return read_request(content if isinstance(content, bytes) else json.dumps(content).encode(), 7)


@pytest.mark.parametrize(("content", "expected"), [
    ({"prompt": "a"}, {"prompt": "a"}),
    ({"prompt": ""}, {"prompt": ""}),
    ({"prompt": ["a"]}, {"prompt": "a"}),
    ({"prompt": [1, 2]}, {"prompt": [1, 2]}),
    ({"prompt": "a", "messages": None}, {"prompt": "a"}),
    ({"messages": USER}, {"messages": USER}),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]},
     {"messages": USER}),
    ({"messages": USER, "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"},
     {"messages": USER, "told": {"enable_thinking": False, "reasoning_effort": "low"}}),
    ({"messages": USER, "chat_template_kwargs": {}, "reasoning_effort": None}, {"messages": USER}),
    ({"prompt": "a", "id": 5}, {"prompt": "a", "id": 5}),
    ({"prompt": "a", "id": "x", "custom_id": "y"}, {"prompt": "a", "id": "y"}),
    ({"prompt": "a", "answer": 1, "n": 1, "tools": [], "stream": True}, {"prompt": "a", "unknown": ("answer",)}),
    (b"\xef\xbb\xbf{\"prompt\": \"a\"}\r\n", {"prompt": "a"}),
    ({"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "a", "user": "u"}},
     {"id": "x", "endpoint": "/v1/completions", "prompt": "a", "model": "m"}),
    ({"custom_id": "x", "url": "/v1/chat/completions", "body": {"messages": USER, "foo": 1}},
     {"id": "x", "endpoint": "/v1/chat/completions", "messages": USER, "unknown": ("foo",)}),
])
def test_requests(content: object, expected: dict) -> None:
    assert read(content) == Request(line=7, settings={}, **expected)


@pytest.mark.parametrize(("line", "settings"), [
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"n_predict": -1}, {"max_tokens": -1}),
    ({"max_completion_tokens": 5.0}, {"max_tokens": 5}),
    ({"max_tokens": None, "n_predict": 6}, {"max_tokens": 6}),
    ({"temperature": 0, "top_k": 5, "top_p": 0.5, "min_p": 1}, {"temperature": 0.0, "top_k": 5, "top_p": 0.5,
                                                                "min_p": 1.0}),
    ({"repeat_penalty": 1.5, "repeat_last_n": 9, "seed": 3}, {"repeat_penalty": 1.5, "repeat_last_n": 9, "seed": 3}),
    ({"seed": -1}, {}),
    ({"stop": "x"}, {"stop": ("x",)}),
    ({"stop": ["x", "y"], "ignore_eos": True}, {"stop": ("x", "y"), "ignore_eos": True}),
    ({"stop": None, "temperature": None}, {}),
])
def test_settings(line: dict, settings: dict) -> None:
    found = read({"prompt": "a", **line}).settings
    assert found == settings
    assert [type(found[name]) for name in settings] == [type(value) for value in settings.values()]
    assert read({"url": "/v1/completions", "body": {"prompt": "a", **line}, "max_tokens": 99}).settings == settings


@pytest.mark.parametrize(("content", "error"), [
    (b"abc", "the line is not JSON: Expecting value"),
    (b"\xff", "the line is not UTF-8 (byte 0xff at offset 0)"),
    (b"[" * 100_000, "the line is not JSON: "),
    (b'{"prompt": ' + b"9" * 5000, "the line is not JSON: "),
    ([], 'the line is no JSON object: write one such as {"prompt": "Once upon a time"}'),
    ({}, "the line needs either a prompt or messages"),
    ({"prompt": "a", "messages": USER}, "the line needs either a prompt or messages"),
    ({"prompt": ["a", "b"]}, "prompt is neither a text nor a list of token ids: give each text a line of its own"),
    ({"prompt": 5}, "prompt is neither a text"),
    ({"prompt": [True]}, "prompt is neither a text"),
    ({"prompt": "\ud800"}, "prompt has half of a surrogate pair"),
    ({"messages": "Hi"}, "messages is no list such as"),
    ({"messages": []}, "messages is no list such as"),
    ({"messages": ["Hi"]}, '"Hi" is no message with a role and a text as content'),
    ({"messages": [{"role": "user"}]}, '{"role": "user"} is no message'),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, '{"role": "user", "content": [{"type"'),
    ({"prompt": "a", "max_tokens": "5"}, 'max_tokens is "5"; it must be a whole number'),
    ({"prompt": "a", "n_predict": 5.5}, "n_predict is 5.5; it must be a whole number"),
    ({"prompt": "a", "max_tokens": True}, "max_tokens is true; it must be a whole number"),
    ({"prompt": "a", "temperature": "hot"}, 'temperature is "hot"; it must be a number'),
    ({"prompt": "a", "temperature": 10**400}, "temperature is 1000"),
    (b'{"prompt": "a", "seed": Infinity}', "seed is Infinity; it must be a whole number"),
    (b'{"prompt": "a", "seed": NaN}', "seed is NaN; it must be a whole number"),
    ({"prompt": "a", "stop": 5}, "stop is 5; it must be a text or a list of texts"),
    ({"prompt": "a", "ignore_eos": 1}, "ignore_eos is 1; it must be true or false"),
    ({"messages": USER, "chat_template_kwargs": [1]}, "chat_template_kwargs is an object such as"),
    ({"messages": USER, "reasoning_effort": 1}, "chat_template_kwargs is an object such as"),
    ({"prompt": "a", "n": 2}, "n is 2, which lcpu cannot do: leave it out"),
    ({"prompt": "a", "logprobs": True, "n": None}, None),
    ({"prompt": "a", "logprobs": 5}, "logprobs is 5, which lcpu cannot do: leave it out"),
    ({"url": "/v1/embeddings", "body": {}}, "POST /v1/embeddings is not answered, only POST /v1/completions and POST"),
    ({"url": "/v1/completions", "method": "GET", "body": {}}, "GET /v1/completions is not answered"),
    ({"url": "/v1/completions"}, "body is no JSON object"),
    ({"url": "/v1/completions", "body": {"messages": USER}}, "the line needs a prompt"),
    ({"url": "/v1/chat/completions", "body": {"prompt": "a"}}, "the line needs messages"),
])
def test_errors(content: object, error: str | None) -> None:
    request = read(content)
    if error is None:
        error = "logprobs is true, which lcpu cannot do: leave it out"
    assert request.error is not None
    assert request.error.startswith(error)
    assert "\n" not in request.error


def test_answers_that_failed() -> None:
    assert error_answer(read({"prompt": 5}), "no") == {"id": 7, "line": 7, "error": "no"}
    assert error_answer(read({"id": "x"}), "no") == {"id": "x", "line": 7, "error": "no"}
    request = read({"custom_id": "x", "url": "/v1/completions", "body": {}})
    assert error_answer(request, "no") == {
        "id": "batch_req_7", "custom_id": "x",
        "response": {"status_code": 400, "request_id": "req_7", "body": {
            "error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}}},
        "error": {"code": "invalid_request_error", "message": "no"},
    }  # fmt: skip
    ours = error_answer(request, "no", ours=True)
    assert (ours["response"]["status_code"], ours["error"]["code"]) == (500, "server_error")


@pytest.mark.parametrize(("data", "expected"), [
    (b'{"id": "x", "line": 3, "text": ""}', (3, "x")),
    (b'{"id": "batch_req_12", "custom_id": "y", "response": {}}', (12, "y")),
    (b'{"id": "batch_req_12", "custom_id": "y"}', None), (b'{"line": 0}', None), (b'{"line": true}', None),
    (b"[]", None), (b"{", None), (b'{"id": "other", "response": {}}', None), (b'{"prompt": "a"}', None),
])
def test_which_line_is_answered(data: bytes, expected: tuple[int, object] | None) -> None:
    assert answered_line(data) == expected
    request = read({"custom_id": "x", "url": "/v1/completions", "body": {}})
    assert answered_line(json.dumps(error_answer(request, "no")).encode()) == (7, "x")
