"""Many texts at once, in Python: each is what it is alone, whoever runs beside it, fails, or is given up."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.engine.generate import Generation, GenerationOptions
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

PROMPTS = ["abc", "hello there", "x", "the quick brown fox", "abc", "zebra " * 5, "q"]
OPTIONS: dict[str, Any] = {"max_tokens": 20, "temperature": 1.0, "seed": 7}
LONG = GenerationOptions(seed=1, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tiny_gguf: Path) -> Iterator[LLM]:
    with LLM.load(tiny_gguf, threads=2, parallel=3) as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(tiny_gguf: Path) -> list[str]:
    """The text after each of the prompts, each of a model of its own."""
    texts = []
    for prompt in PROMPTS:
        with LLM.load(tiny_gguf, threads=1) as llm:
            texts.append("".join(llm.generate(prompt, **OPTIONS)))
    assert len(set(texts)) == 6
    return texts


@pytest.mark.parametrize("draft", [None, "ngram"])
def test_each_text_is_what_it_is_alone(llm: LLM, alone: list[str], draft: Any) -> None:
    assert llm.generate_batch(PROMPTS, draft=draft, **OPTIONS) == alone


def test_options_and_defaults_are_those_of_generate(llm: LLM) -> None:
    found = llm.generate_batch(PROMPTS, seed=3)
    assert found == ["".join(llm.generate(prompt, seed=3)) for prompt in PROMPTS]
    stop = found[1][4:6]
    assert llm.generate_batch(PROMPTS[1:2], seed=3, stop=stop) == [found[1].partition(stop)[0]]
    with pytest.raises(TypeError, match="max_token"):
        llm.generate_batch(PROMPTS, max_token=3)


def test_no_prompts_and_no_tokens(llm: LLM) -> None:
    assert llm.generate_batch([]) == []
    assert llm.generate_batch(PROMPTS, max_tokens=0) == [""] * len(PROMPTS)


def test_more_prompts_than_pages(tiny_gguf: Path, alone: list[str]) -> None:
    """Pages for one text at a time: the others wait, or give theirs up."""
    with LLM.load(tiny_gguf, threads=2, parallel=4, cache_tokens=64) as llm:
        assert llm.cache_tokens == 128
        assert llm.generate_batch(PROMPTS, **OPTIONS) == alone


def test_a_prompt_that_cannot_be_taken(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(llm._model, "step", None)  # nothing may be computed
        with pytest.raises(LcpuError, match="prompt 2: the prompt has 82 tokens and the context only 64"):
            llm.generate_batch(["abc", "x", "a" * 80, "abc"])
    assert llm.generate_batch(["abc"], **OPTIONS) == ["".join(llm.generate("abc", **OPTIONS))]


def test_one_that_fails_leaves_the_others(llm: LLM, alone: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of one are not numbers after a while."""
    step = llm._model.step
    victim = llm.tokenize(PROMPTS[3])

    def broken(pieces: Any) -> np.ndarray:
        logits = step(pieces)
        row = 0
        for piece in pieces:
            if piece.outputs and piece.start == len(victim) + 2:  # only the longest of them get so far at this step
                logits[row] = np.nan
            row += piece.outputs
        return logits

    monkeypatch.setattr(llm._model, "step", broken)
    options = GenerationOptions(**OPTIONS)
    one = llm.stream(victim, options, None)
    texts: dict[Generation, str] = {one: ""}
    for generation, text in llm.stream_batch([one]):
        texts[generation] += text
    assert one.finish_reason == "error"
    assert "not numbers" in str(one.error)
    assert alone[3].startswith(texts[one])
    assert len(one.generated_ids) == 3
    with pytest.raises(LcpuError, match="not numbers"):
        llm.generate_batch(PROMPTS, **OPTIONS)
    with pytest.raises(LcpuError, match="not numbers"):
        list(llm.generate(PROMPTS[3], **OPTIONS))
    others = [llm.stream(llm.tokenize("x"), GenerationOptions(max_tokens=2, seed=1)), llm.stream(victim, options, None)]
    assert [generation.finish_reason for generation, _ in llm.stream_batch(others) if generation.finish_reason] == [
        "length", "error"]


def test_generations_are_taken_as_they_are_needed(llm: LLM) -> None:
    taken = 0

    def endless() -> Iterator[Generation]:
        nonlocal taken
        for taken in itertools.count(1):
            yield llm.stream([1, 5 + taken % 200], GenerationOptions(max_tokens=3, seed=1, ignore_eos=True))

    ended = []
    for generation, _ in llm.stream_batch(endless()):
        if generation.finish_reason:
            ended.append(generation)
            assert taken - len(ended) <= 2 * 3
        if len(ended) == 50:
            break
    assert {generation.finish_reason for generation in ended} == {"length"}


def test_a_source_that_has_nothing_just_now(llm: LLM) -> None:
    """Those at hand go on meanwhile, to their ends if need be."""
    first, second = (llm.stream([1, n], GenerationOptions(max_tokens=9, seed=1, ignore_eos=True)) for n in (10, 20))

    def source() -> Iterator[Generation | None]:
        yield first
        while first.finish_reason is None:
            yield None
        yield second

    ended = [generation for generation, _ in llm.stream_batch(source()) if generation.finish_reason]
    assert ended == [first, second]


def test_one_that_its_reader_gives_up(llm: LLM) -> None:
    generations = [llm.stream([1, n], GenerationOptions(max_tokens=9, seed=1, ignore_eos=True)) for n in (10, 20, 30)]
    for generation, _ in llm.stream_batch(generations):
        if generation is generations[1] and len(generation.generated_ids) >= 3:
            generation.close()
    assert [generation.finish_reason for generation in generations] == ["length", None, "length"]
    assert len(generations[1].generated_ids) == 3


def test_an_abandoned_batch(llm: LLM, alone: list[str]) -> None:
    generations = [llm.stream([1, n], LONG) for n in range(10, 20)]
    together = llm.stream_batch(generations)
    next(together)
    del together
    assert [generation.closed for generation in generations] == [True] * 6 + [False] * 4  # which never began
    assert llm.generate_batch(PROMPTS, **OPTIONS) == alone
    assert not llm._scheduler._running


def test_iterators_that_stay_half_read(llm: LLM, alone: list[str]) -> None:
    """They hold pages, and are ahead of their readers, but nobody waits for them."""
    half_read = [iter(llm.stream([1, n], LONG)) for n in range(10, 20)]
    for pieces in half_read:
        next(pieces)
    assert llm.generate_batch(PROMPTS, **OPTIONS) == alone
    rest = ["".join(pieces) for pieces in half_read]
    assert rest == ["".join(list(llm.stream([1, n], LONG))[1:]) for n in range(10, 20)]


def test_several_iterators_in_turns(llm: LLM, alone: list[str]) -> None:
    turns = {number: llm.generate(prompt, **OPTIONS) for number, prompt in enumerate(PROMPTS)}
    texts = [""] * len(PROMPTS)
    while turns:
        for number, pieces in list(turns.items()):
            piece = next(pieces, None)
            if piece is None:
                del turns[number]
            texts[number] += piece or ""
    assert texts == alone


def test_batches_in_threads(llm: LLM, alone: list[str]) -> None:
    found: list[list[str]] = []

    def work() -> None:
        for _ in range(3):
            found.append(llm.generate_batch(PROMPTS, **OPTIONS))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert "".join(llm.generate(PROMPTS[0], **OPTIONS)) == alone[0]
    assert found == [alone] * 9


def test_closed_meanwhile(tiny_gguf: Path) -> None:
    with LLM.load(tiny_gguf, threads=1) as llm:
        together = llm.stream_batch([llm.stream([1, 10], LONG)])
        next(together)
    with pytest.raises(LcpuError, match="the model is closed"):
        list(together)
