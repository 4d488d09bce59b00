"""Logits are the same to the last bit however tokens are split into batches, threads and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.engine.batch import Piece
from lcpu.engine.generate import GenerationOptions
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.llm import LLM
from lcpu.engine.model import BATCH, Model

MIXTURE = {"attn_q.weight": "q8_0", "attn_k.weight": "q4_0", "attn_v.weight": "f16", "ffn_gate.weight": "q6_k",
           "ffn_up.weight": "bf16", "ffn_down.weight": "q4_0", "output.weight": "q6_k", "": "f32"}

# Rows that fill no panel; rows that no block of 32 divides, where the format allows; every kind of head.
PLAIN = {"embedding": 44, "feed_forward": 172, "heads": 3, "kv_heads": 1, "head_dim": 100, "vocab": 301}
BLOCKS = {"embedding": 64, "feed_forward": 160, "heads": 4, "kv_heads": 2, "head_dim": 64, "vocab": 301}
SUPERBLOCKS = {"embedding": 256, "feed_forward": 512, "heads": 1, "kv_heads": 1, "head_dim": 256, "vocab": 301}
GROUPS = {"embedding": 128, "feed_forward": 384, "heads": 8, "kv_heads": 1, "head_dim": 16, "vocab": 301,
          "architecture": "bitnet-b1.58"}
MODELS = {
    "f32": ("f32", PLAIN),
    "f16": ("f16", PLAIN),
    "bf16": ("bf16", PLAIN | {"heads": 8, "kv_heads": 8, "head_dim": 8}),
    "q8_0": ("q8_0", BLOCKS | {"heads": 8, "kv_heads": 1, "head_dim": 8}),
    "q4_0": ("q4_0", BLOCKS),
    "q6_k": ("q6_k", SUPERBLOCKS),
    "i2_s": ({"token_embd.weight": "f16", "output.weight": "f32", "": "i2_s"}, GROUPS),
    "mixture": (MIXTURE, SUPERBLOCKS | {"heads": 4, "kv_heads": 2, "head_dim": 64}),
}
WINDOWS = {"llama.attention.sliding_window": 37, "llama.attention.sliding_window_pattern": 2}
MODELS |= {
    "gemma": ("q8_0", BLOCKS | {"architecture": "gemma"}),
    "gemma2": ("f16", PLAIN | {"architecture": "gemma2"} | WINDOWS),
    "gemma3": ("q4_0", BLOCKS | {"architecture": "gemma3"} | WINDOWS),
}
TOKENS = np.random.default_rng(1).integers(3, 286, 700).tolist()

WriteLlama = Callable[..., Path]
MakeModel = Callable[..., Model]


@pytest.fixture(scope="module", params=MODELS)
def path(request: pytest.FixtureRequest, write_llama: WriteLlama) -> Path:
    kinds, shape = MODELS[request.param]
    return write_llama(kinds, **shape, context=1024)


@pytest.fixture
def model(path: Path) -> Iterator[MakeModel]:
    """model(threads, ...) -> a Model of the file, closed after the test."""
    made = []

    def make(threads: int = 2, **options: Any) -> Model:
        made.append(Model(GGUFFile.open(path), 1024, threads, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


PAGES = 8  # of a sequence


def run(model: Model, tokens: Sequence[int], sizes: Sequence[int], pages: Sequence[int] = range(PAGES)) -> np.ndarray:
    """The logits of all tokens, computed in batches of the given sizes."""
    logits, start = [], 0
    for size in sizes:
        logits.append(model.step([Piece(tokens[start : start + size], start, pages, size)]).copy())
        start += size
    return np.concatenate(logits)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.int32), b.view(np.int32))


def test_batches(model: MakeModel) -> None:
    count = 150  # attention takes positions in blocks of 128
    one = model()
    whole = run(one, TOKENS, [count])
    assert whole.shape == (count, 301)
    assert np.isfinite(whole).all()
    assert np.ptp(whole) > 1
    for sizes in ([1] * count, [7, count - 7], [2, 3, 5, 11, 129], [count - 1, 1]):
        assert same(run(one, TOKENS, sizes), whole), sizes


def test_threads(model: MakeModel) -> None:
    whole = run(model(1), TOKENS, [40])
    for threads in (2, 3):
        other = model(threads)
        assert same(run(other, TOKENS, [40]), whole), threads
        assert same(run(other, TOKENS, [33, *[1] * 7]), whole), threads


def test_only_wanted_logits(model: MakeModel) -> None:
    one = model()
    whole = run(one, TOKENS, [20])
    assert same(one.step([Piece(TOKENS[:20], 0, range(PAGES), 3)]), whole[17:])
    assert one.step([Piece(TOKENS[:20], 0, range(PAGES))]).shape == (0, 301)


def test_wherever_pages_lie(model: MakeModel) -> None:
    count = 300
    whole = run(model(), TOKENS, [count])
    scattered = model(cache_tokens=5120)
    assert same(run(scattered, TOKENS, [200, 1, 99], [31, 7, 22]), whole)
    scattered.pool.copy(7, 39)
    last = scattered.step([Piece(TOKENS[299:300], 299, [31, 39, 22], 1)])
    assert same(last, whole[299:])


def test_sequences(model: MakeModel) -> None:
    """Three sequences of different lengths in one batch, then one more token of each, out of order."""
    first, second, third = TOKENS[:9], TOKENS[50:55], TOKENS[90:113]
    apart = model()
    expected = [run(apart, [*tokens, 42], [len(tokens) + 1]) for tokens in (first, second, third)]
    together = model(cache_tokens=384)
    logits = together.step([Piece(tokens, 0, [page], len(tokens))
                            for page, tokens in ((2, first), (0, second), (1, third))]).copy()
    assert same(logits, np.concatenate([e[:-1] for e in expected]))
    last = together.step([Piece([42], 23, [1], 1), Piece([42], 9, [2], 1), Piece([42], 5, [0], 1)])
    assert same(last, np.stack([expected[2][-1], expected[0][-1], expected[1][-1]]))


def test_sequences_do_not_wait_for_each_other(model: MakeModel) -> None:
    """A prompt of one sequence beside the next tokens of another."""
    expected = [run(model(), TOKENS[:12], [12]), run(model(), TOKENS[30:42], [12])]
    together = model(cache_tokens=256)
    run(together, TOKENS[:8], [8], [0])
    logits = []
    for i in range(4):
        logits.append(together.step([Piece(TOKENS[8 + i : 9 + i], 8 + i, [0], 1),
                                     Piece(TOKENS[30 + 3 * i : 33 + 3 * i], 3 * i, [1], 3)]).copy())
    assert same(np.stack([each[0] for each in logits]), expected[0][8:])
    assert same(np.concatenate([each[1:] for each in logits]), expected[1])


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_share_a_long_sequence(path: Path, threads: int) -> None:
    with GGUFFile.open(path) as file:
        lone, many = Model(file, 2048, 1), Model(file, 2048, threads)
        tokens = [*TOKENS, *TOKENS, 5]
        pages = range(16)
        for one in (lone, many):
            run(one, tokens, [500, 500, 400], pages)
        assert same(lone.step([Piece([5], 1400, pages, 1)]), many.step([Piece([5], 1400, pages, 1)]))
        lone.close()
        many.close()


def test_across_the_largest_batch(path: Path) -> None:
    assert BATCH == 512
    with LLM.load(path, threads=2) as llm:
        whole = llm.logits(TOKENS[:600])
        assert whole.shape == (600, 301)
        assert same(llm.logits(TOKENS[:530]), whole[:530])
        one = Model(GGUFFile.open(path), 1024, 2)
        assert same(run(one, TOKENS, [300, 300]), whole)
        one.close()


def test_reused_prompt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sampler sees after a prompt whose beginning was in the cache."""
    prompt, options = TOKENS[:560], GenerationOptions(max_tokens=2, temperature=0.0)
    with LLM.load(path, threads=2) as llm:
        seen = _spy(llm, monkeypatch)
        list(llm.stream(prompt, options, None))
        fresh = seen[:]
        for before in (prompt[:300], prompt[:520] + TOKENS[:20], prompt):
            list(llm.stream(before, GenerationOptions(max_tokens=1)))
            seen.clear()
            again = llm.stream(prompt, options, None)
            list(again)
            assert again.reused_tokens in (300, 520, 559)
            assert all(same(a, b) for a, b in zip(seen, fresh, strict=True))


def _spy(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The logits of all steps that want some."""
    seen: list[np.ndarray] = []
    step = llm._model.step

    def spy(pieces: Sequence[Piece]) -> np.ndarray:
        logits = step(pieces)
        if len(logits):
            seen.append(logits.copy())
        return logits

    monkeypatch.setattr(llm._model, "step", spy)
    return seen
