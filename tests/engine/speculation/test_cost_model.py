"""What steps cost: as measured, and interpolated in between and beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.speculation import MAX_DRAFT, Acceptance, CostModel


def test_nothing_is_known_at_first() -> None:
    costs = CostModel()
    assert (costs.plain, costs.seconds(1), costs.seconds(5)) == (0.0, 0.0, 0.0)
    costs.record(4, 1.0)
    assert (costs.plain, costs.seconds(5)) == (0.0, 0.0)  # without a step of one, there is nothing to compare with


def test_medians() -> None:
    costs = CostModel()
    for seconds in (1.0, 9.0, 1.2):
        costs.record(1, seconds)
    assert costs.plain == costs.seconds(1) == 1.2
    for _ in range(7):
        costs.record(1, 3.0)
    assert costs.plain == 3.0  # old ones are forgotten


def test_old_ones_are_not_known_any_more() -> None:
    """Except what a step of one costs."""
    costs = CostModel()
    costs.record(1, 1.0)
    costs.record(5, 30.0)
    costs.record(1, 1.0)
    assert costs.seconds(5) == 30.0
    for _ in range(200):
        costs.record(2, 1.05)
    assert costs.plain == 1.0
    assert costs.seconds(5) == pytest.approx(1.35)


def test_many_measurements_are_known_for_longer() -> None:
    costs = CostModel()
    for tokens in (1, 5, 5, 5):
        costs.record(tokens, float(tokens))
    for _ in range(150):
        costs.record(2, 1.05)
    assert costs.seconds(5) == pytest.approx(5.0)
    for _ in range(200):
        costs.record(2, 1.05)
    assert costs.seconds(5) == pytest.approx(1.35)


def test_between_and_beyond() -> None:
    costs = CostModel()
    costs.record(1, 1.0)
    assert costs.seconds(2) == pytest.approx(1.1)
    assert costs.seconds(11) == pytest.approx(2.0)
    costs.record(5, 3.0)
    assert [costs.seconds(n) for n in (2, 3, 4, 5, 6)] == pytest.approx([1.5, 2.0, 2.5, 3.0, 3.1])
    costs.record(3, 1.2)
    assert [costs.seconds(n) for n in (2, 3, 4, 5)] == pytest.approx([1.1, 1.2, 2.1, 3.0])
    costs.record(8, 2.0)  # cannot be: noise
    assert costs.seconds(8) == pytest.approx(3.0)
    assert costs.seconds(117) == pytest.approx(costs.seconds(MAX_DRAFT + 1) + 10.0)


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(1e-6, 10)), max_size=60))
def test_more_tokens_never_cost_less(records: list[tuple[int, float]]) -> None:
    costs = CostModel()
    costs.record(1, 1.0)
    for tokens, seconds in records:
        costs.record(tokens, seconds)
    table = [costs.seconds(tokens) for tokens in range(1, 30)]
    assert table == sorted(table)
    assert len(costs.table) == MAX_DRAFT + 2


def test_acceptance() -> None:
    acceptance = Acceptance(prior=0.6, weight=2)
    assert acceptance.rate == 0.6
    for _ in range(200):
        acceptance.observe(4, 4)
    assert acceptance.rate > 0.97
    for _ in range(200):
        acceptance.observe(4, 1)  # of two tokens that say something, one is right
    assert acceptance.rate == pytest.approx(0.5, abs=0.02)
    for _ in range(200):
        acceptance.observe(3, 0)
    assert acceptance.rate < 0.06
    for _ in range(1000):
        acceptance.decay()
    assert acceptance.rate == pytest.approx(0.6)
