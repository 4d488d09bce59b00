"""Layers with a state: what is served is what is computed alone, whatever runs beside it, and whoever drafts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lcpu.engine import random_model, state_cache
from lcpu.engine.batch import Piece
from lcpu.engine.benchmark import Case
from lcpu.engine.benchmark_parallel import ParallelBenchmark
from lcpu.engine.model import Model
from lcpu.engine.options import GenerationOptions
from lcpu.engine.random_model import RandomModel, Shape
from lcpu.engine.sampler import Sampler
from lcpu.engine.scheduler import Evaluation, Scheduler
from lcpu.engine.sequence import TokenSequence
from lcpu.engine.speculation import MAX_DRAFT, Acceptance, CostModel, Proposal, Statistics
from lcpu.kernels.errors import LcpuError

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


def texts(prompts: list[list[int]], context: int = 512, *, slots: int = 0, cache_tokens: int = 4096,
          shift: bool = False, tokens: int = 100,
          guessed: list[list[int]] | None = None) -> list[list[int]]:
    one = model(context, cache_tokens=cache_tokens)
    one.pool.states.count = slots or one.pool.states.count
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
    assert texts(prompts, slots=4) == alone  # others wait
    assert texts(prompts, cache_tokens=512) == alone  # pages are given up
    assert texts(prompts, guessed=alone) == alone
    shifted = [texts([prompt], 180, shift=True, tokens=150)[0] for prompt in prompts]
    assert texts(prompts, 180, shift=True, tokens=150) == shifted


class Counted:
    """A scheduler, and how many tokens its model computes."""

    def __init__(self) -> None:
        self.model, self.tokens = model(cache_tokens=4096), 0
        step = self.model.step

        def counting(pieces: Sequence[Piece], *rest) -> np.ndarray:
            self.tokens += sum(len(piece.tokens) for piece in pieces)
            return step(pieces, *rest)

        self.model.step = counting  # type: ignore[method-assign]
        self.scheduler = Scheduler(self.model, 300)

    def answer(self, *prompts: list[int]) -> tuple[list[list[int]], int]:
        """Their texts, and how many tokens were computed for them."""
        before = self.tokens
        options = GenerationOptions(max_tokens=4, temperature=0.0)
        made = [TokenSequence(prompt, 512, options, [], [], self.scheduler.costs) for prompt in prompts]
        for sequence in made:
            self.scheduler.add(sequence)
        while going := [sequence for sequence in made if sequence.finish_reason is None]:
            self.scheduler.advance(*going)
            for sequence in made:
                sequence.read()
        return [sequence.ids for sequence in made], self.tokens - before


def test_texts_go_on_from_check_points():
    long, shared = TOKENS * 2, TOKENS[:140]
    prompts = [[*long, 7], [*shared, 8], [*shared, 9], [*long, 10, 11]]
    alone = [texts([prompt], tokens=4)[0] for prompt in prompts]
    served = Counted()
    (first,), cost = served.answer(prompts[0])
    assert cost == 301 + 3
    (again,), cost = served.answer(prompts[0])
    assert cost == 301 - 256 + 3  # the last whole page of its prompt
    (second,), cost = served.answer(prompts[1])
    assert cost == 141 + 3  # the first page is known, but not the state there
    (third,), cost = served.answer(prompts[2])
    assert cost == 141 - 128 + 3  # it was kept when the text before left the first one
    (fourth,), cost = served.answer(prompts[3])
    assert cost == 302 - 256 + 3
    assert [first, second, third, fourth] == alone
    assert again == alone[0]
    (more,), cost = served.answer([*third, 12])
    assert cost == 2 + 3  # the state where a text ended, before its last token
    assert more == texts([[*third, 12]], tokens=4)[0]
    together = Counted()
    assert together.answer(*prompts) == (alone, 301 + 141 - 128 + 141 - 128 + 302 - 256 + 4 * 3)
    served.model.close()
    together.model.close()


def test_check_points_are_given_up(monkeypatch):
    """When texts need their slots, and beyond a number."""
    monkeypatch.setattr(state_cache, "CHECK_POINTS", 2)
    prompts = [[*TOKENS, 7], TOKENS[1:], TOKENS[2:], [*TOKENS, 7]]
    alone = [texts([prompt], tokens=4)[0] for prompt in prompts]
    served = Counted()
    assert [served.answer(prompt) for prompt in prompts] == [
        ([text], len(prompt) + 3) for text, prompt in zip(alone, prompts, strict=True)]
    assert served.answer(prompts[3]) == ([alone[3]], 151 - 128 + 3)
    served.model.close()


def test_more_sequences_than_states_are_refused():
    one = model()
    with pytest.raises(LcpuError, match="81 sequences at once: this model keeps the states of 80; take fewer"):
        one.step([Piece([1], 0, [0])] * 81)
    with pytest.raises(LcpuError, match="pp1 x81: memory is left for the states of 80 sequences: take fewer \\(-np\\)"):
        ParallelBenchmark(model(cache_tokens=81 * 128)).run(Case(1, 0, sequences=81), 1)
    one.close()


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
