"""Templates of well-known models, and those that cannot do all that a conversation needs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lcpu.engine.chat import render
from lcpu.kernels.errors import LcpuError

from . import chat_templates as known

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Bye"},
]
TURN = "<|START_OF_TURN_TOKEN|>"


def text(template: str, messages: list[dict[str, str]], **options: Any) -> str:
    return render(template, messages, bos_token="<s>", eos_token="</s>", **options)


@pytest.mark.parametrize(("name", "expected"), [
    ("LLAMA_2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Bye [/INST]"),
    ("LLAMA_3", "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    ("LLAMA_3_1", "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
                  "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                  "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
                  "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
                  "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    ("MISTRAL_1", "<s>[INST] Be brief.\nHi [/INST]Yes?</s> [INST] Bye [/INST]"),  # has no system role
    ("MISTRAL_3", "<s>[INST] Hi[/INST] Yes?</s>[INST] Be brief.\n\nBye[/INST]"),
    ("GEMMA_2", "<s><start_of_turn>user\nBe brief.\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
                "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"),  # has no system role
    ("GEMMA_3", "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
                "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"),
    ("PHI_3", "<s><|user|>\nBe brief.\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n"
              "<|user|>\nBye<|end|>\n<|assistant|>\n"),  # leaves a system message out
    ("ZEPHYR", "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nYes?</s>\n<|user|>\nBye</s>\n"
               "<|assistant|>\n"),
    ("QWEN_3", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
               "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"),
    ("DEEPSEEK", "<s>Be brief.<｜User｜>Hi<｜Assistant｜>Yes?<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜>"),
    ("COMMAND_R", f"<s>{TURN}<|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>{TURN}<|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
                  f"{TURN}<|CHATBOT_TOKEN|>Yes?<|END_OF_TURN_TOKEN|>{TURN}<|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|>"
                  f"{TURN}<|CHATBOT_TOKEN|>"),
    ("GRANITE_3", "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
                  "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
                  "<|start_of_role|>assistant<|end_of_role|>Yes?<|end_of_text|>\n"
                  "<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"),
    ("GPT_OSS", "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
                "Reasoning: medium\n\n# Valid channels: analysis, commentary, final.<|end|>"
                "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|><|start|>user<|message|>Hi<|end|>"
                "<|start|>assistant<|channel|>final<|message|>Yes?<|end|><|start|>user<|message|>Bye<|end|>"
                "<|start|>assistant"),
    ("LLAVA", "Be brief. USER: Hi ASSISTANT: Yes? USER: Bye ASSISTANT:"),  # reads parts only
    ("SMOLVLM", "<|im_start|>System: Be brief.<end_of_utterance>\nUser: Hi<end_of_utterance>\n"
                "Assistant: Yes?<end_of_utterance>\nUser: Bye<end_of_utterance>\nAssistant:"),  # reads parts only
    ("TOOLS_UNASKED", "[system] Be brief.\\n[user] Hi\\n[assistant] Yes?\\n[user] Bye\\n"),
])  # fmt: skip
def test_known_templates(name: str, expected: str) -> None:
    assert text(getattr(known, name), CONVERSATION) == expected


def test_thoughts_are_left_out_of_the_conversation() -> None:
    messages = [dict(message) for message in CONVERSATION]
    messages[2]["content"] = "<think>\nWell.\n</think>\n\nYes?"
    for template in (known.QWEN_3, known.DEEPSEEK):
        assert "Well." not in text(template, messages)
        assert "Yes?" in text(template, messages)


@pytest.mark.parametrize("template", [known.MISTRAL_1, known.GEMMA_2, known.PHI_3, known.LLAVA, known.SMOLVLM])
def test_without_a_system_prompt(template: str) -> None:
    assert "Hi" in text(template, CONVERSATION[1:])
    assert "Be brief" not in text(template, CONVERSATION[1:])


@pytest.mark.parametrize("template", [known.MISTRAL_1, known.GEMMA_2, known.PHI_3])
def test_a_system_prompt_alone_is_a_user_message(template: str) -> None:
    assert "Be brief." in text(template, CONVERSATION[:1])


def test_a_template_that_has_neither_a_system_role_nor_texts() -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}<{{ m.content[0].text }}>{% endif %}{% endfor %}"
    assert text(template, CONVERSATION) == "<Be brief.\nHi><Bye>"


def test_what_a_template_cannot_do_is_a_note(caplog: pytest.LogCaptureFixture) -> None:
    template = known.PHI_3 + "{# for this test #}"
    with caplog.at_level(logging.INFO, "lcpu"):
        text(template, CONVERSATION)
        text(template, CONVERSATION)
    assert [record.getMessage() for record in caplog.records] == [
        "the chat template has no system role: a system prompt goes before the first user message"
    ]


def test_the_refusal_is_the_one_of_a_conversation_that_no_template_can_take() -> None:
    with pytest.raises(LcpuError, match="roles must alternate"):
        text(known.GEMMA_2, [*CONVERSATION, {"role": "user", "content": "Again"}])


def test_absent_tools() -> None:
    """None, as in transformers; but a loop over them is empty."""
    assert text("{{ tools is none }}{{ documents is none }}", []) == "TrueTrue"
    assert text("{% for tool in tools %}{{ tool }}{% endfor %}none", []) == "none"
    assert text("{% if tools | length > 0 %}some{% else %}none{% endif %}", []) == "none"
    assert text("{% if tools is defined and tools is not none %}some{% else %}none{% endif %}", []) == "none"
    assert text("{% if tools %}some{% endif %}{% if documents %}some{% endif %}none", []) == "none"


def test_what_templates_use_of_jinja() -> None:
    lines = [
        ("{{ messages[1:] | length }}{{ messages[::-1][0].content }}{{ messages[-1]['role'] }}", "3Byeuser"),
        ("{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + loop.index %}"
         "{% endfor %}{{ ns.n }}", "3"),
        ("{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=Hi;"),
        ("{{ messages[0] is mapping }}{{ messages is sequence }}{{ 'a' is string }}{{ 1 is number }}", "True" * 4),
        ("{{ ' a '.strip() }}{{ 'a-b'.split('-')[1] }}{{ 'ab'.startswith('a') }}{{ 'x' in 'xy' }}", "abTrueTrue"),
        ("{{ 'abc'[:2] }}{{ 'abc'[-1] }}{{ 'a' ~ 1 ~ none }}{{ '%s-%d' % ('a', 2) }}{{ '{}!'.format(3) }}",
         "abca1Nonea-23!"),
        ("{{ {'a': [1, (2, 3)]} | tojson }}{{ dict(a=1).get('b', 'c') }}", '{"a": [1, [2, 3]]}c'),
        ("{{ messages | map(attribute='role') | list | join(',') }}", "system,user,assistant,user"),
        ("{{ messages | rejectattr('role', 'equalto', 'user') | list | length }}", "2"),
        ("{% macro tag(x, y='!') %}<{{ x }}{{ y }}>{% endmacro %}{{ tag('a') }}{{ tag('b', y='?') }}", "<a!><b?>"),
        ("{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}in{% endcall %}", "[in]"),
        ("{% set x %}{% for c in 'abc' %}{{ loop.last }}{% endfor %}{% endset %}{{ x | upper }}", "FALSEFALSETRUE"),
        ("{% for m in messages %}{{ loop.previtem.role if loop.previtem else '' }}|{% endfor %}",
         "|system|user|assistant|"),
        ("{% set a, b = 'x', 'y' %}{{ b ~ a }}{{ [1, 2] + [3] }}{{ 'ab' | replace('a', 'c') }}{{ 5 // 2 }}",
         "yx[1, 2, 3]cb2"),
        ("{% filter trim %}  a {% endfilter %}{{ none | default('d', true) }}{{ absent | default('e') }}", "ade"),
        ("{{ messages | selectattr('role', 'in', ['user', 'tool']) | map(attribute='content') | first }}", "Hi"),
    ]
    for template, expected in lines:
        # The end keeps the template from being taken for one without a system role.
        everything = "{% for m in messages %}{{ m.content }}{% endfor %}"
        assert text(template + "|" + everything, CONVERSATION) == expected + "|Be brief.HiYes?Bye"
