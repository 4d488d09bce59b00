"""Texts longer than the context: what is dropped, and that what comes then depends on what is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lcpu.engine.generate import GenerationOptions
from lcpu.engine.llm import LLM
from lcpu.engine.sequence import shifted
from lcpu.kernels.errors import LcpuError

CONTEXT = 160
PROMPT = [1, *range(20, 50)]
OPTIONS = GenerationOptions(max_tokens=500, temperature=0.0, ignore_eos=True, context_shift=True, keep=5)


@pytest.fixture(scope="module")
def path(write_llama: Callable[..., Path]) -> Path:
    return write_llama("q8_0", embedding=64, head_dim=32, context=CONTEXT)


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[LLM]:
    with LLM.load(path, threads=2) as llm:
        yield llm


def ids_after(llm: LLM, prompt: list[int], options: GenerationOptions, draft: LLM | str | None = None) -> list[int]:
    generation = llm.stream(prompt, options, draft)  # type: ignore[arg-type]
    "".join(generation)
    assert generation.finish_reason == "length"
    return generation.generated_ids


@pytest.mark.parametrize(("length", "context", "keep", "kept", "first"), [
    (100, 100, 0, 0, 0),  # nothing has to go
    (101, 100, 0, 0, 50),
    (101, 100, 10, 10, 55),  # half of the 90 that are not kept
    (250, 100, 10, 10, 190),  # as often as it takes: 4 times 45
    (101, 100, 96, 96, 98),
    (101, 100, 100, 96, 98),  # four are never kept
    (101, 100, 10**9, 96, 98),
    (2, 1, 5, 0, 1),
    (4, 3, 2, 0, 1),
])
def test_what_is_dropped(length: int, context: int, keep: int, kept: int, first: int) -> None:
    left = shifted(range(length), context, keep)
    assert left == [*range(kept), *range(max(first, kept), length)]
    assert len(left) <= context


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("keep", [0, 5, -1])
def test_as_if_the_rest_had_been_the_prompt(llm: LLM, temperature: float, keep: int) -> None:
    options = replace(OPTIONS, temperature=temperature, seed=7, keep=keep, repeat_penalty=1.2)
    text = ids_after(llm, PROMPT, options)
    assert len(text) == 500
    kept = {0: 1, 5: 6, -1: len(PROMPT)}[keep]  # with the BOS token
    seen, found, dropped = list(PROMPT), list[int](), 0
    while len(found) < 500:
        generation = llm.stream(seen, replace(options, context_shift=False, max_tokens=500 - len(found)), None)
        generation.sequence._sampler.dropped = dropped
        "".join(generation)
        found += generation.generated_ids
        seen += generation.generated_ids
        half = (CONTEXT - kept) // 2
        seen[kept : kept + half] = []
        dropped += half
    assert text == found
    assert dropped > 4 * half


def test_without_it_the_text_ends(llm: LLM) -> None:
    generation = llm.stream(PROMPT, replace(OPTIONS, context_shift=False))
    "".join(generation)
    assert generation.finish_reason == "context"
    assert len(generation.generated_ids) == CONTEXT + 1 - len(PROMPT)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.usefixtures("always_draft")
def test_drafts_batches_and_pages_change_nothing(path: Path, llm: LLM, seed: int) -> None:
    options = replace(OPTIONS, temperature=0.5 * (seed - 1), seed=seed, repeat_penalty=1.0)
    prompts = [PROMPT[: 3 + 4 * number] for number in range(6)]
    expected = [ids_after(llm, prompt, options) for prompt in prompts]
    with LLM.load(path, beside=llm) as same, LLM.load(path, threads=1, cache_tokens=0, parallel=4) as other:
        for draft in ("ngram", same):
            assert [ids_after(llm, prompt, options, draft) for prompt in prompts] == expected
        generations = [other.stream(prompt, options, None) for prompt in prompts]
        for _ in other.stream_batch(generations):
            pass
        assert [generation.generated_ids for generation in generations] == expected


@pytest.mark.usefixtures("always_draft")
def test_drafts_are_right_after_a_shift(path: Path, llm: LLM) -> None:
    with LLM.load(path, beside=llm) as same:
        options = replace(OPTIONS, temperature=2.0, seed=3)  # a text that n-grams do not guess
        generation = llm.stream(PROMPT, options, same)
        "".join(generation)
        assert generation.speculation.drafted > 2 * CONTEXT
        assert generation.speculation.acceptance_rate > 0.9


def test_at_the_smallest_contexts(path: Path) -> None:
    for context in (1, 2, 3, 5):
        with LLM.load(path, threads=1, context=context) as llm:
            for keep in (0, 3, -1):
                options = replace(OPTIONS, keep=keep, max_tokens=12)
                assert len(ids_after(llm, PROMPT[:context], options)) == 12
                assert len(ids_after(llm, PROMPT[:context], options, "ngram")) == 12


def test_a_full_context_and_the_last_token_at_once(llm: LLM) -> None:
    assert len(ids_after(llm, PROMPT, replace(OPTIONS, max_tokens=CONTEXT + 1 - len(PROMPT)))) == 130


def test_a_prompt_that_is_too_long(llm: LLM) -> None:
    """Is no text yet: what to leave out is for the caller to say."""
    long = [1, *range(3, 250)]
    with pytest.raises(LcpuError, match="the prompt has 248 tokens and the context only 160"):
        llm.stream(long, OPTIONS)
    left = llm.shifted(long, OPTIONS)
    assert left == [*long[:6], *long[6 + 2 * 77 :]]
    assert len(ids_after(llm, left, OPTIONS)) == 500


def test_keep_out_of_range() -> None:
    with pytest.raises(LcpuError, match="keep is -2; it must be at least -1"):
        GenerationOptions(keep=-2)
