"""The scripted engine of these tests has the same interface as the real one, as `lcpu.cli.protocols` declares it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from lcpu.cli import protocols
from lcpu.engine import chat, generate, llm, tokenizer

REAL = {"LLM": llm.LLM, "Generation": generate.Generation, "Tokenizer": tokenizer.Tokenizer}
METHODS = [(name, method) for name in REAL for method, value in vars(getattr(protocols, name)).items()
           if inspect.isfunction(value) and method not in ("__init__", "__subclasshook__")]


def members(protocol: type) -> set[str]:
    """The names that a protocol declares: attributes, properties and methods."""
    return {*inspect.get_annotations(protocol),
            *(name for name, value in vars(protocol).items() if isinstance(value, property))}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults. mypy compares the types."""
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def test_the_protocols_declare_something():
    assert {("LLM", "stream"), ("LLM", "tokenize"), ("Generation", "__iter__"), ("Tokenizer", "token_bytes")} <= set(
        METHODS)
    assert {"context", "tokenizer"} <= members(protocols.LLM)


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_methods_take_what_the_real_ones_take(engine, name, method):
    declared = parameters(getattr(getattr(protocols, name), method))
    assert parameters(getattr(getattr(engine, name), method)) == declared
    assert parameters(getattr(REAL[name], method)) == declared


def test_functions_take_what_the_real_ones_take(engine):
    assert parameters(engine.LLM.load) == parameters(llm.LLM.load)
    assert parameters(engine.render) == parameters(chat.render)


def test_attributes_are_all_there(engine):
    model = engine.LLM.load()
    fakes = {"LLM": model, "Generation": model.stream([1]), "Tokenizer": model.tokenizer}
    for name, fake in fakes.items():
        missing = {member for member in members(getattr(protocols, name)) if not hasattr(fake, member)}
        assert not missing, f"the scripted {name} lacks {missing}"
        unknown = {each for each, value in vars(type(fake)).items()
                   if inspect.isfunction(value) and each != "__init__"} - {*vars(getattr(protocols, name))}
        assert not unknown, f"the command may not use {unknown} of {name}: the protocol does not have it"
