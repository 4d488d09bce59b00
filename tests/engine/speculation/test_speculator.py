"""When drafts are made and how long they are, on a machine whose steps cost what a table says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import Sampler
from lcpu.engine.speculation import MAX_DRAFT, NO_DRAFT, Acceptance, CostModel, Proposal, Speculator, Statistics, verify

GREEDY = Sampler(GenerationOptions(temperature=0.0))


class Scripted:
    """Drafts token 1 again and again, for `seconds` each."""

    def __init__(self, seconds: float = 0.0, most: int = MAX_DRAFT, initial_budget: float = 0.5) -> None:
        self.acceptance, self.seconds, self.most = Acceptance(0.8, 2), seconds, most
        self.statistics = Statistics((self.acceptance,), initial_budget)
        self.started: list[int] = []

    def start(self, ids: Sequence[int]) -> None:
        self.started = list(ids)

    def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal | None:
        return Proposal(self.acceptance, lambda count: [1] * count, self.most, self.seconds, self.seconds)


def machine(cost: Callable[[int], float]) -> CostModel:
    costs = CostModel()
    for tokens in range(1, MAX_DRAFT + 2):
        costs.record(tokens, cost(tokens))
    return costs


def generate(drafters: Sequence[Scripted], cost: Callable[[int], float], rights: Sequence[float], count: int,
             room: int = 10**6) -> tuple[Speculator, float, list[int]]:
    """Seconds for `count` tokens where drafter i's tokens are right with probability rights[i], and draft lengths."""
    random = np.random.default_rng(0)
    speculator = Speculator(drafters, machine(cost), GREEDY)
    tokens, seconds, lengths = 0, 0.0, []
    while tokens < count:
        draft = speculator.choose_draft([1, 2, 3], room)
        right = random.random(len(draft.tokens)) < (rights[draft.drafter] if draft.tokens else 0)
        accepted = int(np.argmin([*right, False]))
        spent = cost(1 + len(draft.tokens)) + len(draft.tokens) * drafters[draft.drafter].seconds
        speculator.observe(draft, accepted + 1, spent)
        tokens += accepted + 1
        seconds += spent
        lengths.append(len(draft.tokens))
    return speculator, seconds * count / tokens, lengths


def flat(tokens: int) -> float:
    return 1.0 + 0.02 * (tokens - 1)


def steep(tokens: int) -> float:
    return float(tokens)


def test_nothing_before_the_first_step() -> None:
    speculator = Speculator([Scripted()], CostModel(), GREEDY)
    assert speculator.choose_draft([1, 2], 100) is NO_DRAFT


def test_no_room() -> None:
    assert Speculator([Scripted()], machine(flat), GREEDY).choose_draft([1, 2], 0).tokens == []
    assert Speculator([Scripted()], machine(flat), GREEDY).choose_draft([1, 2], 3).tokens == [1] * 3
    assert Speculator([Scripted(most=2)], machine(flat), GREEDY).choose_draft([1, 2], 9).tokens == [1] * 2


@pytest.mark.parametrize(("cost", "right", "least"), [(flat, 1.0, 9.0), (flat, 0.9, 4.5), (flat, 0.8, 3.3)])
def test_good_drafts_pay(cost: Callable[[int], float], right: float, least: float) -> None:
    _, seconds, _ = generate([Scripted()], cost, [right], 500)
    assert 500 / seconds > least


@pytest.mark.parametrize("cost", [flat, steep, lambda n: 1.0 + 0.3 * (n - 1)])
@pytest.mark.parametrize("right", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("initial_budget", [0.0, 0.5, 3.0])
def test_bad_drafts_cost_little(cost: Callable[[int], float], right: float, initial_budget: float) -> None:
    """1% of the time and the initial budget, however the machine is."""
    _, seconds, _ = generate([Scripted(initial_budget=initial_budget)], cost, [right], 400)
    assert seconds <= 400 * 1.01 + initial_budget + 0.01


def test_never_where_a_step_costs_as_much_as_its_tokens() -> None:
    assert set(generate([Scripted()], steep, [0.9], 300)[2]) == {0}


def test_the_length_is_the_best() -> None:
    """Where steps cost the same up to 8 tokens and twice as much then, with tokens that are mostly right: 7."""
    _, _, lengths = generate([Scripted()], lambda n: 1.0 if n <= 8 else 2.0, [0.85], 3000)
    assert max(set(lengths), key=lengths.count) == 7


def test_a_slow_drafter_drafts_little() -> None:
    quick = np.mean(generate([Scripted()], flat, [0.8], 1000)[2])
    slow = np.mean(generate([Scripted(seconds=0.3)], flat, [0.8], 1000)[2])
    assert 0 < slow < quick / 2


def test_the_better_drafter_is_chosen() -> None:
    poor, good = Scripted(), Scripted(seconds=0.05)
    speculator, seconds, _ = generate([poor, good], flat, [0.1, 0.9], 1000)
    assert 1000 / seconds > 2.5
    assert good.acceptance.rate > 0.8
    assert speculator.figures.mean_accepted > 4


def test_a_drafter_that_gets_better_gets_another_chance() -> None:
    drafter = Scripted()
    random, costs = np.random.default_rng(0), machine(flat)
    speculator = Speculator([drafter], costs, GREEDY)
    drafted_late = 0
    for step in range(6000):
        draft = speculator.choose_draft([1, 2, 3], 100)
        right = random.random(len(draft.tokens)) < (0.0 if step < 2000 else 0.95)
        speculator.observe(draft, int(np.argmin([*right, False])) + 1, flat(1 + len(draft.tokens)))
        drafted_late += len(draft.tokens) if step > 4000 else 0
    assert drafted_late > 2000


@pytest.mark.parametrize("pause", [2.0, 5.0, 50.0])
def test_a_pause_of_the_machine_does_not_end_drafting(pause: float) -> None:
    """The first step of several tokens takes far too long, as when something else ran meanwhile."""
    costs = CostModel()
    costs.record(1, 1.0)
    speculator, paused = Speculator([Scripted()], costs, GREEDY), False
    tokens = steps = 0
    while tokens < 1500:
        draft = speculator.choose_draft([1, 2, 3], 100)
        seconds = flat(1 + len(draft.tokens))
        if draft.tokens and not paused:
            seconds, paused = seconds * pause, True
        costs.record(1 + len(draft.tokens), seconds)
        speculator.observe(draft, 1 + len(draft.tokens), seconds)
        tokens += 1 + len(draft.tokens)
        steps += 1
    assert tokens / steps > 4


def test_what_was_learned_is_kept_for_the_next_text() -> None:
    """What was gained is not there to be lost in it; what was lost has to be gained again."""
    statistics = Scripted(initial_budget=0.5).statistics
    for before, after in ((30.0, 0.5), (0.1, 0.1)):
        drafter = Scripted()
        drafter.statistics = statistics
        statistics.budget = before
        Speculator([drafter], machine(flat), GREEDY).start([1])
        assert statistics.budget == after


def test_text_after_text_of_bad_drafts_costs_little() -> None:
    drafter, costs, spent, tokens = Scripted(initial_budget=2.0), machine(lambda n: 1.0 + 0.3 * (n - 1)), 0.0, 0
    for _ in range(20):
        speculator = Speculator([drafter], costs, GREEDY)
        speculator.start([1, 2])
        for _ in range(100):
            draft = speculator.choose_draft([1, 2, 3], 100)
            spent += costs.seconds(1 + len(draft.tokens))
            speculator.observe(draft, 1, costs.seconds(1 + len(draft.tokens)))
            tokens += 1
    assert spent <= tokens * 1.005 + 2.0


def test_asking_for_proposals_takes_little_time() -> None:
    """Where there is nothing to be found, and a step is as short as asking for a proposal."""
    calls = 0

    class Idle(Scripted):
        def propose(self, ids: Sequence[int], sampler: Sampler) -> Proposal | None:
            nonlocal calls
            calls += 1
            time.sleep(0.002)
            return None

    for plain, least, most in ((0.002, 1, 10), (100.0, 200, 200)):
        calls, speculator = 0, Speculator([Idle()], machine(lambda n: plain), GREEDY)  # noqa: B023
        for _ in range(200):
            assert speculator.choose_draft([1, 2, 3], 100) is NO_DRAFT
        assert least <= calls <= most


def test_start_reaches_every_drafter() -> None:
    drafters = [Scripted(), Scripted()]
    Speculator(drafters, CostModel(), GREEDY).start([4, 5])
    assert [drafter.started for drafter in drafters] == [[4, 5], [4, 5]]


def test_figures() -> None:
    speculator = Speculator([Scripted()], machine(flat), GREEDY)
    nothing = speculator.figures
    assert (nothing.acceptance_rate, nothing.mean_accepted, nothing.speed_up) == (0, 0, 1)
    speculator.observe(NO_DRAFT, 1, 1.5)
    draft = speculator.choose_draft([1, 2], 4)
    assert draft.tokens == [1] * 4
    speculator.observe(draft, 4, 1.25)
    figures = speculator.figures
    assert (figures.drafts, figures.drafted, figures.accepted) == (1, 4, 3)
    assert (figures.acceptance_rate, figures.mean_accepted) == (0.75, 3.0)
    assert figures.speed_up == pytest.approx((1.5 + 4 * 1.0) / (1.5 + 1.25))
    twice = figures.plus(figures)
    assert (twice.drafted, twice.speed_up) == (8, figures.speed_up)


def one_hot(tokens: Sequence[int]) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[list(tokens)]


@pytest.mark.parametrize(("said", "draft", "ends", "expected"), [
    ([5], [], (), [5]),
    ([5, 6, 7], [5, 6], (), [5, 6, 7]),
    ([5, 6, 7], [5, 9], (), [5, 6]),
    ([5, 6, 7], [9, 6], (), [5]),
    ([5, 6, 7], [5, 6], (6,), [5, 6]),  # nothing comes after the end
    ([5, 6, 7], [5, 6], (5,), [5]),
])
def test_verify(said: list[int], draft: list[int], ends: tuple[int, ...], expected: list[int]) -> None:
    assert verify(GREEDY, one_hot(said), [1, 2], draft, ends) == expected


def test_verify_chooses_along_the_text() -> None:
    """Penalties know the tokens that were just accepted."""
    sampler = Sampler(GenerationOptions(temperature=0.0, repeat_penalty=2.0))
    logits = np.tile(np.array([0, 3, 2.9, 2.8], np.float32), (3, 1))
    assert verify(sampler, logits, [0], [1, 2]) == [1, 2, 3]
