"""Chat templates: what they may write, and what they may not do."""

from __future__ import annotations

from datetime import datetime

import pytest

from lcpu.engine.chat import CHATML, render
from lcpu.kernels.errors import LcpuError

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Is 1 < 2 & "é"?'},
]


def error_of(template: str) -> str:
    with pytest.raises(LcpuError) as caught:
        render(template, MESSAGES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("template", [None, "", CHATML])
def test_without_a_template_it_is_chatml(template):
    assert render(template, MESSAGES) == (
        '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs 1 < 2 & "é"?<|im_end|>\n<|im_start|>assistant\n'
    )
    assert render(template, MESSAGES[:1], add_generation_prompt=False) == "<|im_start|>system\nBe brief.<|im_end|>\n"


def test_blocks_leave_no_white_space():
    template = """\
{%- for message in messages %}
    {%- if message.role == "user" %}
[{{ message.content }}]
    {% endif %}
{% endfor %}
{{ bos_token }}|{{ eos_token }}"""
    assert render(template, MESSAGES[1:], bos_token="<s>", eos_token="</s>") == '[Is 1 < 2 & "é"?]\n<s>|</s>'


def test_what_transformers_adds_to_jinja():
    assert render("{{ messages[0] | tojson }}", MESSAGES[1:]) == '{"role": "user", "content": "Is 1 < 2 & \\"é\\"?"}'
    assert render("{{ {'b': '<', 'a': 1} | tojson(indent=1, sort_keys=true) }}", []) == '{\n "a": 1,\n "b": "<"\n}'
    assert render("{{ strftime_now('%Y') }}", []) in {str(datetime.now().year), str(datetime.now().year - 1)}
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", []) == "01"
    assert render("{% generation %}{{ messages[0].role }}{% endgeneration %}!", MESSAGES) == "system!"
    assert render("{{ tools is none }} {{ documents is none }} {{ thinking is defined }}", []) == "True True False"


def test_a_template_can_refuse():
    assert "no system prompt, please" in error_of("{{ raise_exception('no system\n  prompt, please') }}")


def test_a_template_that_is_not_valid():
    assert "in line 2" in error_of("fine\n{% if %}")


def test_a_template_that_fails():
    assert "'nothing' is undefined" in error_of("{{ nothing.at.all }}")
    assert "division" in error_of("{{ 1 / 0 }}")
    assert "recursion" in error_of("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ (messages | map(attribute='__class__') | list)[0].__base__ }}",
        "{{ '{0.__class__.__base__}'.format(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='user') }}",
        "{{ messages[0].clear() }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template):
    messages = [dict(message) for message in MESSAGES]
    with pytest.raises(LcpuError):
        render(template, messages)
    assert messages == MESSAGES


def test_small_products_are_fine():
    assert render("{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ 3 * 4 }}{{ 2 ** -1 }}", []) == "ababab1024120.5"
