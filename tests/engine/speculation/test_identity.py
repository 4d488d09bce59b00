"""Text with drafts is, byte for byte, the text without: every drafter, threads, greedy and sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from lcpu import models
from lcpu.engine.llm import LLM
from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import Sampler
from lcpu.engine.speculation import MAX_DRAFT, Acceptance, CostModel, DraftModelStatistics, NGrams, Proposal, Statistics

TOKENS = 200
NAMES = ("Tom", "Sue", "Ben", "Mia", "Lily", "Max", "Anna", "Sam", "Leo", "Zoe")
OPENINGS = ("Once upon a time, {} had a", "One day {} went to the", "{} and the little dog", "In the morning {} saw",
            "{} was sad because")
PROMPTS = [opening.format(name) for opening in OPENINGS for name in NAMES]
DRAFT = models.path().parent / "stories-draft.gguf"

needs_models = pytest.mark.skipif(not DRAFT.exists(), reason="the embedded models are not there")


class Contrary:
    """Drafts random tokens, of which now and then one is right, and is always listened to."""

    new_statistics = NGrams.new_statistics
    _seeds = count()

    def __init__(self, statistics: Statistics) -> None:
        self._random, self._acceptance = np.random.default_rng(next(self._seeds)), Acceptance(1.0, 1e9)
        self.statistics = Statistics((self._acceptance,), initial_budget=1e9)

    def start(self, ids: Sequence[int]) -> None:
        pass

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal:
        known = [*ids, *range(280)]
        return Proposal(self._acceptance, lambda count: self._random.choice(known, count).tolist(),
                        max_tokens=int(self._random.integers(1, 9)))


class Flat(CostModel):
    """Every step costs the same."""

    def record(self, tokens: int, seconds: float) -> None:
        super().record(1, 1.0)
        super().record(MAX_DRAFT + 1, 1.0)


class Free(CostModel):
    """No step costs anything."""

    def record(self, tokens: int, seconds: float) -> None:
        pass


@pytest.fixture(autouse=True)
def drafts_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they are made whatever this machine is busy with."""
    monkeypatch.setattr("lcpu.engine.scheduler.CostModel", Flat)
    monkeypatch.setattr("lcpu.engine.drafters.DraftModelStatistics", lambda: DraftModelStatistics(costs=Free()))


@pytest.fixture(params=[1, 2])
def pair(request: pytest.FixtureRequest, drafts_pay: None) -> Iterator[tuple[LLM, LLM]]:
    with LLM.load(threads=request.param) as target, LLM.load(DRAFT, beside=target) as draft:
        yield target, draft


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, float], list[int]]:
    """What one thread says without drafts."""
    with LLM.load(threads=1) as llm:
        return {(prompt, temperature): ids(llm, prompt, temperature, None)[0]
                for temperature, prompts in ((0.0, PROMPTS), (0.8, PROMPTS[::5])) for prompt in prompts}


def ids(llm: LLM, prompt: str, temperature: float, draft: LLM | str | None) -> tuple[list[int], int]:
    """The ids of a text, and how many tokens were drafted."""
    options = GenerationOptions(max_tokens=TOKENS, temperature=temperature, seed=7, ignore_eos=True)
    generation = llm.stream(llm.tokenize(prompt), options, draft)  # type: ignore[arg-type]
    "".join(generation)
    return generation.generated_ids, generation.speculation.drafted


@needs_models
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("kind", ["n-grams", "model", "contrary"])
def test_fifty_stories(pair: tuple[LLM, LLM], expected: dict[tuple[str, float], list[int]], kind: str,
                       temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft_model = pair
    draft: LLM | str = draft_model if kind == "model" else "ngram"
    if kind == "contrary":
        monkeypatch.setattr("lcpu.engine.drafters.NGrams", Contrary)
    drafted = 0
    for prompt in PROMPTS if temperature == 0 and kind != "contrary" else PROMPTS[::5]:
        found, more = ids(target, prompt, temperature, draft)
        assert found == expected[prompt, temperature]
        drafted += more
    assert drafted > 50


@needs_models
def test_the_prompts_differ(expected: dict[tuple[str, float], list[int]]) -> None:
    assert len(PROMPTS) >= 50
    assert len({tuple(text) for text in expected.values()}) > 50
    assert all(len(text) == TOKENS for text in expected.values())


TERNARY = {"token_embd.weight": "f16", "output.weight": "f16", "": "i2_s"}
TERNARY_SHAPE = {"embedding": 128, "feed_forward": 128, "heads": 16, "kv_heads": 4}
MODELS = {
    "llama f16": ("f16", "llama", {}), "llama bf16": ("bf16", "llama", {}), "qwen2 q8_0": ("q8_0", "qwen2", {}),
    "qwen3 q4_0": ("q4_0", "qwen3", {}), "llama q6_k": ("q6_k", "llama", {"embedding": 256, "feed_forward": 256,
                                                                        "heads": 32, "kv_heads": 8}),
    "gemma3 q8_0": ("q8_0", "gemma3", {"llama.attention.sliding_window": 5,
                                       "llama.attention.sliding_window_pattern": 2}),
    "llama i2_s": (TERNARY, "llama", TERNARY_SHAPE), "bitnet i2_s": (TERNARY, "bitnet", TERNARY_SHAPE),
    "bitnet-b1.58 i2_s": (TERNARY, "bitnet-b1.58", TERNARY_SHAPE),
}  # fmt: skip


@pytest.mark.parametrize("model", list(MODELS))
def test_formats_and_architectures(write_llama: Callable[..., Path], model: str,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, architecture, shape = MODELS[model]
    monkeypatch.setattr("lcpu.engine.drafters.NGrams", Contrary)
    with LLM.load(write_llama(kinds, architecture=architecture, **shape), threads=2) as llm:
        for temperature in (0.0, 1.0):
            plain, _ = ids(llm, "one two", temperature, None)
            for _ in range(3):
                found, drafted = ids(llm, "one two", temperature, "ngram")
                assert found == plain
                assert drafted > 50


@pytest.mark.parametrize("name", ["f32", "q8_0"])
@pytest.mark.parametrize("threads", [1, 2])
def test_stories260k(shared: Path, name: str, threads: int) -> None:
    path = shared / "models" / f"stories260K-{name}.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with LLM.load(path, threads=threads) as llm, LLM.load(path, beside=llm) as itself:
        for prompt in PROMPTS[:50:10]:
            plain, _ = ids(llm, prompt, 0.0, None)
            assert ids(llm, prompt, 0.0, "ngram")[0] == plain
            assert ids(llm, prompt, 0.0, itself)[0] == plain
