"""Layers with a state: what is served is what is computed alone, whatever runs beside it, and whoever drafts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lcpu.engine import random_model
from lcpu.engine.batch import Piece
from lcpu.engine.model import Model
from lcpu.engine.options import GenerationOptions
from lcpu.engine.random_model import RandomModel, Shape
from lcpu.engine.sampler import Sampler
from lcpu.engine.scheduler import Evaluation, Scheduler
from lcpu.engine.sequence import TokenSequence
from lcpu.engine.speculation import MAX_DRAFT, Acceptance, CostModel, Proposal, Statistics

TINY = Shape(4, 64, 96, 4, 2, 300, 512, 1e4, architecture="qwen35", head_dim=32, keys=(
    ("rope.dimension_count", 16), ("ssm.conv_kernel", 4), ("ssm.state_size", 16), ("ssm.group_count", 2),
    ("ssm.time_step_rank", 4), ("ssm.inner_size", 64), ("full_attention_interval", 4)))
TOKENS = np.random.default_rng(1).integers(0, 300, 150).tolist()


class Guesses:
    """Drafts the text that is known to come, with a wrong token now and then."""

    def __init__(self, text: Sequence[int]) -> None:
        self._text, self._acceptance = text, Acceptance(1.0, 1e9)
        self.statistics = Statistics((self._acceptance,), initial_budget=1e9)

    def start(self, ids: Sequence[int]) -> None:
        pass

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal:
        coming, wrong = list(self._text[len(ids) :]) + [0] * 8, len(ids) % 4
        coming[wrong] = (coming[wrong] + (len(ids) % 3 > 0)) % 300
        return Proposal(self._acceptance, lambda count: coming[:count], max_tokens=4)


class Flat(CostModel):
    """Every step costs the same."""

    def record(self, tokens: int, seconds: float) -> None:
        super().record(1, 1.0)
        super().record(MAX_DRAFT + 1, 1.0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(random_model.SHAPES, "tiny", TINY)


def model(context: int = 512, threads: int = 2, **options) -> Model:
    return Model(RandomModel("tiny", "f32"), context, threads, **options)


def logits(sizes: list[int], threads: int) -> np.ndarray:
    one, at, out = model(threads=threads), 0, []
    for size in sizes:
        out.append(one.step([Piece(TOKENS[at : at + size], at, range(4), size)]).copy())
        at += size
    one.close()
    return np.concatenate(out)


def test_bits_do_not_depend_on_pieces_or_threads():
    whole = logits([150], 1)
    assert len(np.unique(whole.argmax(1))) > 20
    for sizes, threads in (([1] * 150, 2), ([7, 60, 1, 82], 3)):
        assert logits(sizes, threads).tobytes() == whole.tobytes()


def texts(prompts: list[list[int]], context: int = 512, *, sequences: int = 0, cache_tokens: int = 4096,
          shift: bool = False, tokens: int = 100,
          guessed: list[list[int]] | None = None) -> list[list[int]]:
    one = model(context, cache_tokens=cache_tokens)
    one.pool.states.sequences = sequences or one.pool.states.sequences
    scheduler = Scheduler(one, 300)
    scheduler.costs = Flat()
    options = GenerationOptions(max_tokens=tokens, temperature=0.0, context_shift=shift)
    drafters = [[Guesses(text)] for text in guessed] if guessed else [[] for _ in prompts]
    made = [TokenSequence(prompt, context, options, [], guessing, scheduler.costs)
            for prompt, guessing in zip(prompts, drafters, strict=True)]
    for sequence in made:
        scheduler.add(sequence)
    while going := [sequence for sequence in made if sequence.finish_reason is None]:
        scheduler.advance(*going)
        for sequence in made:
            sequence.read()
    one.close()
    if guessed:
        accepted = [(sequence.speculation.drafted, sequence.speculation.accepted) for sequence in made]
        assert all(0 < right < drafted for drafted, right in accepted), accepted
    return [sequence.ids for sequence in made]


def test_served_is_what_is_computed_alone():
    prompts = [[*TOKENS, 1], [*TOKENS, 2, 3], TOKENS[:30], [5, 6, 7] * 20]
    alone = [texts([prompt])[0] for prompt in prompts]
    assert texts(prompts) == alone
    assert texts(prompts, sequences=2) == alone  # others wait
    assert texts(prompts, cache_tokens=512) == alone  # pages are given up
    assert texts(prompts, guessed=alone) == alone
    shifted = [texts([prompt], 180, shift=True, tokens=150)[0] for prompt in prompts]
    assert texts(prompts, 180, shift=True, tokens=150) == shifted


def test_an_evaluation_goes_back_to_a_state():
    one = model()
    evaluation = Evaluation(Scheduler(one, 300))
    wanted = evaluation.logits(TOKENS, 0)[0]
    assert np.array_equal(evaluation.logits(TOKENS[:100], 90)[0], wanted[90:100])
    assert np.array_equal(evaluation.logits(TOKENS[:105], 100)[0], wanted[100:105])
    found, known = evaluation.logits([*TOKENS[:103], TOKENS[103]], 103)
    assert known == 100
    assert np.array_equal(found, wanted[103:104])
    one.close()
