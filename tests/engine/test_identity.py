"""Logits are the same to the last bit however tokens are split into batches, threads and sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

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

    def make(threads: int = 2, **options: int) -> Model:
        made.append(Model(GGUFFile.open(path), 1024, threads, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def run(model: Model, tokens: Sequence[int], sizes: Sequence[int], slot: int = 0) -> np.ndarray:
    """The logits of all tokens, computed in batches of the given sizes."""
    logits, start = [], 0
    for size in sizes:
        piece = tokens[start : start + size]
        logits.append(model.step(piece, [slot] * size, range(start, start + size), range(size)).copy())
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
    some = one.step(TOKENS[:20], [0] * 20, range(20), [0, 7, 19])
    assert same(some, whole[[0, 7, 19]])
    assert one.step(TOKENS[:20], [0] * 20, range(20), []).shape == (0, 301)


def test_slots(model: MakeModel) -> None:
    """Three sequences of different lengths in one batch, then one more token of each, out of order."""
    first, second, third = TOKENS[:9], TOKENS[50:55], TOKENS[90:113]
    apart = model()
    expected = [run(apart, [*tokens, 42], [len(tokens) + 1]) for tokens in (first, second, third)]
    together = model(slots=3)
    tokens = [*first, *second, *third]
    slots = [0] * 9 + [2] * 5 + [1] * 23
    logits = together.step(tokens, slots, [*range(9), *range(5), *range(23)], range(37)).copy()
    assert same(logits, np.concatenate([e[:-1] for e in expected]))
    last = together.step([42, 42, 42], [1, 0, 2], [23, 9, 5], [0, 1, 2])
    assert same(last, np.stack([expected[2][-1], expected[0][-1], expected[1][-1]]))


def test_slots_do_not_wait_for_each_other(model: MakeModel) -> None:
    """A prompt of one sequence beside the next tokens of another, interleaved."""
    expected = [run(model(), TOKENS[:12], [12]), run(model(), TOKENS[30:42], [12])]
    together = model(slots=2)
    run(together, TOKENS[:8], [8], slot=0)
    tokens, slots, positions = [], [], []
    for i in range(4):
        tokens += [TOKENS[8 + i], *TOKENS[30 + 3 * i : 33 + 3 * i]]
        slots += [0, 1, 1, 1]
        positions += [8 + i, *range(3 * i, 3 * i + 3)]
    logits = together.step(tokens, slots, positions, range(16))
    assert same(logits[::4].copy(), expected[0][8:])
    assert same(np.delete(logits, range(0, 16, 4), axis=0), expected[1])


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
    seen: list[np.ndarray] = []
    forward = llm._forward

    def spy(ids: Sequence[int], draft: Sequence[int] = ()) -> tuple[np.ndarray, int]:
        logits, reused = forward(ids, draft)
        seen.append(logits.copy())
        return logits, reused

    monkeypatch.setattr(llm, "_forward", spy)
    return seen
