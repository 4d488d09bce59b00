"""A template that would run or grow without end is refused, in bounded time and memory."""

from __future__ import annotations

import time

import pytest

from lcpu.engine import template_sandbox
from lcpu.engine.chat import render
from lcpu.kernels.errors import LcpuError

DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"


def doubling(start: str, step: str) -> str:
    return DOUBLING.replace("START", start).replace("STEP", step)


def error_of(template: str) -> str:
    with pytest.raises(LcpuError) as caught:
        render(template, [{"role": "user", "content": "Hi"}])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("template", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if j > 99999 %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ range(99999) | select('odd') | first }}{% endfor %}",
    "{% for i in range(99999) %}{% set x = range(99999) | map('string') | list %}{% endfor %}",
    "{% macro twice(n) %}{% if n %}{{ twice(n - 1) }}{{ twice(n - 1) }}{% endif %}{% endmacro %}{{ twice(60) }}",
    "{% for x in [60] recursive %}{% if x %}{{ loop([x - 1]) }}{{ loop([x - 1]) }}{% endif %}{% endfor %}",
], ids=str)  # fmt: skip
def test_loops_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.2)
    started = time.thread_time()
    assert "it runs longer than" in error_of(template) or "it makes more than" in error_of(template)
    assert time.thread_time() - started < 3


def test_real_templates_have_ten_seconds() -> None:
    assert template_sandbox.MAX_SECONDS == 10


@pytest.mark.parametrize("template", [
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{% block again %}{{ self.again() }}{{ self.again() }}{% endblock %}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "1 + " * 30000 + "1 }}",
    "{{ x" + ".a" * 30000 + " }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    doubling("[]", "[ns.x]").replace("range(60)", "range(2000)"),
], ids=range(9))  # fmt: skip
def test_recursion_ends(template: str) -> None:
    assert "recursion" in error_of(template)


@pytest.mark.parametrize("template", [
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** 9 * [1] }}",
    "{{ ['a' * 1000000] * 1000000 }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a'.center(10 ** 9) }}",
    "{{ 'a'.zfill(10 ** 8) }}",
    "{{ '\t'.expandtabs(10 ** 9) }}",
    "{% filter center(10 ** 8) %}a{% endfilter %}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ ('{0}' * 100000).format('a' * 1000000) }}",
    "{{ '%s' * 100000 % (('a' * 1000000,) * 1) }}",
    "{{ ('%s' * 100000) | format('a' * 1000000) }}",
    "{{ ('a' * 1000000).replace('', 'a' * 1000000) }}",
    "{{ ('a' * 1000000) | replace('a', 'a' * 1000000) }}",
    "{{ ('a' * 1000000).join('a' * 1000000) }}",
    "{{ ('a' * 1000000) | join('a' * 1000000) }}",
    "{{ range(99999) | map('center', 99999) | join }}",
    "{{ range(9) | batch(10 ** 9, 'x') | list }}",
    "{{ [1] | slice(10 ** 9) | list }}",
    "{{ {'a': [1] * 99999} | tojson(indent=9999) }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ ('a\n' * 400000) | indent(1000) }}",
    "{{ ('<!---->' * 140000) | striptags }}",
    "{{ ('a' * 1000000).translate({97: 'b' * 1000000}) }}",
    "{% for i in range(500) %}{{ 'a' * 100000 }}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [('a' * 99999) ~ i] %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    doubling("'ab'", "ns.x + ns.x"),
    doubling("'ab'", "ns.x ~ ns.x"),
    doubling("'ab'", "[ns.x, ns.x] | join"),
    doubling("['ab']", "[ns.x, ns.x]"),
    doubling("('ab',)", "(ns.x, ns.x)"),
    doubling("{'a': 'b'}", "{'a': ns.x, 'b': ns.x}"),
    doubling("{'a': 'b'}", "dict(a=ns.x, b=ns.x)"),
    doubling("['ab']", "[ns.x] | batch(2, ns.x) | list"),
    doubling("3", "ns.x * ns.x"),
    "{{ 10 ** 10 ** 10 }}",
    "{% for i in range(10 ** 9) %}a{% endfor %}",
], ids=str)  # fmt: skip
def test_values_stay_small(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SIZE", 1 << 20)
    monkeypatch.setattr(template_sandbox, "MAX_MADE", 1 << 24)
    error = error_of(template)
    assert any(cause in error for cause in ("too long", "too large", "Range too big", "it makes", "it writes"))


def test_text_is_bounded() -> None:
    assert "more than 16777216 characters" in error_of("{% for i in range(500) %}{{ 'a' * 100000 }}{% endfor %}")


def test_namespaces_that_hold_each_other_have_a_short_text() -> None:
    assert render(doubling("namespace()", "namespace(a=ns.x, b=ns.x)"), []) == "namespace"


def test_no_random_text_of_any_length() -> None:
    assert "'lipsum' is undefined" in error_of("{{ lipsum(n=10 ** 7) }}")


def test_a_long_conversation_is_no_attack() -> None:
    """Three thousand messages of 300 characters, through a template that looks back at all of them in each turn."""
    template = """\
{%- set ns = namespace(text='') %}
{%- for message in messages %}
{%- set users = messages | selectattr('role', 'equalto', 'user') | list if loop.index0 % 100 == 0 else [] %}
{%- set ns.text = message.role ~ ': ' ~ message.content | trim %}
{{- ns.text + '\n' }}
{%- endfor %}"""
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} " + "word " * 60} for i in range(3000)]
    text = render(template, messages)
    assert text.count("\n") == 3000
