"""Conversations with tools and thoughts, as transformers writes them; and replies of gpt-oss, taken apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lcpu.engine.chat import render
from lcpu.engine.harmony import message_of
from lcpu.kernels.errors import LcpuError

from .chat_cases import CASES, GOLDEN, TEMPLATES, TOKENS, template

TEXTS = json.loads(GOLDEN.read_text(encoding="utf-8"))


def rendered(name: str, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    own = {key: options[key] for key in ("tools", "add_generation_prompt") if key in options}
    variables = {key: value for key, value in options.items() if key not in own}
    return render(template(name), messages, variables=variables, **own, **TOKENS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_as_transformers_writes_them(name: str, case: str) -> None:
    wanted = TEXTS[name][case]
    if wanted is None:
        if CASES[case][0][0]["role"] == "system":  # it goes before the first message: transformers would not do that
            return
        with pytest.raises(LcpuError, match="the chat template of the model fails"):
            rendered(name, *CASES[case])
    else:
        assert rendered(name, *CASES[case]) == wanted


def test_no_case_is_without_a_text() -> None:
    assert {name: set(texts) for name, texts in TEXTS.items()} == {name: set(CASES) for name in TEMPLATES}


REPLY = "<|channel|>analysis<|message|>Hm <b>.<|end|><|start|>assistant<|channel|>final<|message|>Yes."
REPLIES = {
    "thoughts and an answer": (REPLY, "Yes.", "Hm <b>."),
    "its end": (REPLY + "<|return|>", "Yes.", "Hm <b>."),
    "no thoughts": ("<|channel|>final<|message|>Yes.", "Yes.", None),
    "stopped in its thoughts": ("<|channel|>analysis<|message|>Hm", "", "Hm"),
    "stopped in a header": ("<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>fin", "", "Hm"),
    "a note before a call": ("<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary "
                             "to=functions.time <|constrain|>json<|message|>{}<|call|>", "I look.\n{}", None),
    "another format": ("<think>Hm</think>Yes <|channel|>.", "<think>Hm</think>Yes <|channel|>.", None),
    "nothing": ("", "", None),
}


@pytest.mark.parametrize(("reply", "content", "thinking"), REPLIES.values(), ids=REPLIES.keys())
def test_replies(reply: str, content: str, thinking: str | None) -> None:
    wanted = {"role": "assistant", "content": content} | ({} if thinking is None else {"thinking": thinking})
    assert message_of(reply) == wanted


def test_the_next_turn_of_gpt_oss() -> None:
    """Its template refuses a reply as it was written."""
    messages = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": REPLY},
                {"role": "user", "content": "Why?"}]
    with pytest.raises(LcpuError, match="Pass the thinking in another field"):
        rendered("GPT_OSS", messages, {})
    text = rendered("GPT_OSS", [messages[0], message_of(REPLY), messages[2]], {})
    assert text.endswith("<|start|>user<|message|>Is it?<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|end|>"
                         "<|start|>user<|message|>Why?<|end|><|start|>assistant")
