"""Chat templates: programs that come with a model."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from lcpu.engine import template_sandbox
from lcpu.engine.chat import CHATML, render

from .mutate import Fields, altered, mutated

SHARE = 4
# Less than elsewhere, so that a million cases take minutes: many templates go to the bounds.
template_sandbox.MAX_SECONDS = 0.5
template_sandbox.MAX_MADE = 1 << 22
_TOKEN = re.compile(r"\{%-?|-?%\}|\{\{|\}\}|'[^']*'|\w+|\s+|.")
_TEMPLATES = [
    CHATML,
    "{%- if messages[0]['role'] == 'system' -%}{{ messages[0].content | trim }}{%- set rest = messages[1:] -%}"
    "{%- else -%}{%- set rest = messages -%}{%- endif -%}{%- for m in rest -%}{{ bos_token if loop.first }}"
    "{%- if m.role not in ['user', 'assistant'] %}{{ raise_exception('no role ' ~ m.role) }}{% endif -%}"
    "{{ '[' + m['role'].upper() + ']' + m.content.strip() }}{%- endfor -%}",
    "{% macro show(x, n=2) %}{% for i in range(n) %}{{ x | tojson }}{{ i * 3 }}{% endfor %}{% endmacro %}"
    "{% set ns = namespace(count=0) %}{% for m in messages %}{% set ns.count = ns.count + 1 %}{{ show(m.content) }}"
    "{% endfor %}{{ ns.count ** 2 }}{{ strftime_now('%Y') }}{% generation %}x{% endgeneration %}",
    "{% for a in range(9) %}{% for b in 'abc' %}{{ loop.index }}{{ a ~ b }}{% break %}{% endfor %}{% endfor %}"
    "{{ messages | map(attribute='content') | join('|') | replace('e', 'ee') | length }}{{ 'x' * 5 }}{{ [1, 2] * 3 }}",
]
_SEEDS: list[Fields] = [[token.encode() for token in _TOKEN.findall(template)] for template in _TEMPLATES]
_WORDS = [word.encode() for word in (
    "range(99999)", "range(10 ** 9)", "'x' * 10 ** 9", "9 ** 9 ** 9", "10 ** 60", "[0] * 999999", "('x' * 1000) * 1000",
    "'%999999999d' % 1", "'{:999999999}'.format(1)", "'%s' | format(1)", "'x'.center(999999999)", "'x'.ljust(10**9)",
    "messages | tojson(indent=999999999)", "'a,b' | replace('', 'x' * 1000)", "'x' | indent(99999999)", "'ab' | list",
    "''.__class__.__mro__", "messages.append(1)", "self", "self.__init__", "loop", "cycler('a')", "joiner()",
    "lipsum(n=999999)", "lipsum()", "namespace()", "dict(a=1)", "[1] | batch(9) | list", "'x' | wordwrap(1)",
    "messages | sum(attribute='content')", "range(99999) | sort | reverse | list | string", "[[[[[[]]]]]]", "none",
    "{% for i in range(9999) %}", "{% for j in range(9999) %}", "{% endfor %}", "{% if %}", "{% include 'x' %}",
    "{% import 'x' as y %}", "{% extends 'x' %}", "{% set x = x ~ x %}", "{% set ns.s = ns.s ~ ns.s %}",
    "{% block a %}", "{% endblock %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% raw %}", "{#", "#}",
    "{% filter upper %}", "{% endfilter %}", "{% call show(1) %}", "{% endcall %}", "{{ " + "(" * 300 + " }}",
    "{{ " + "not " * 3000 + "1 }}", "{% if 1 %}" * 200, "-" * 2000 + "1", "\x00", "\U0001f642", "é" * 100,
    "(range(99999) | map('string') | join)", "1 // 0", "1 / 0", "'a' + 1", "undefined_thing.x.y", "messages[99].role",
    "0x" + "f" * 5000, "1e999999", "'\\ud800'", "'\\N{x}'", "strftime_now('%' * 9999)", "strftime_now('\\ud800')",
)]
_MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello\n'there' <|im_end|>"},
             {"role": "assistant", "content": ""}, {"role": "user", "content": "é🙂"}]


def case(random: Random) -> bytes:
    template = b"".join(mutated(random, _SEEDS, _WORDS))
    return altered(random, template) if random.random() < 0.1 else template


def run(path: Path) -> None:
    template = path.read_bytes().decode("utf-8", "surrogateescape")
    render(template, _MESSAGES, bos_token="<s>", eos_token="</s>")
