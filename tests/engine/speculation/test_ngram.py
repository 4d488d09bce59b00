"""Prompt lookup against a search from the end of the text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import Sampler
from lcpu.engine.speculation import NGrams

GREEDY = Sampler(GenerationOptions(temperature=0.0))
LENGTHS = (6, 4, 2)


def twin(ids: Sequence[int], count: int) -> list[int] | None:
    """What followed the longest of these sequences where it stood last, and again from there on at the text's end."""
    for length in LENGTHS:
        for end in range(len(ids) - 1, length - 1, -1):
            if list(ids[end - length : end]) == list(ids[-length:]):
                text = list(ids)
                for i in range(count):
                    text.append(text[end + i])
                return text[len(ids) :]
    return None


def draft(drafter: NGrams, ids: Sequence[int], count: int) -> list[int] | None:
    proposal = drafter.propose(ids, GREEDY)
    return None if proposal is None else proposal.tokens(count)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 16))
def test_against_a_search(ids: list[int], count: int) -> None:
    assert draft(NGrams(), ids, count) == twin(ids, count)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_a_growing_text(ids: list[int], steps: list[int]) -> None:
    """What an index knows does not depend on when it was asked."""
    drafter, end = NGrams(), 0
    drafter.start(ids[:1])
    for step in steps:
        end = min(len(ids), end + step)
        assert draft(drafter, ids[:end], 5) == twin(ids[:end], 5)


@pytest.mark.parametrize(("ids", "expected"), [
    ([], None),
    ([1], None),
    ([1, 2, 3], None),
    ([1, 2, 3, 1, 2], [3, 1, 2, 3, 1]),
    ([5, 5, 5], [5, 5, 5, 5, 5]),
    ([1, 2, 7, 1, 2, 8, 1, 2], [8, 1, 2, 8, 1]),  # the latest of two
    ([3, 4, 1, 2, 9, 0, 1, 2, 8, 3, 4, 1, 2], [9, 0, 1, 2, 8]),  # the longer match, though another is later
])
def test_examples(ids: list[int], expected: list[int] | None) -> None:
    assert draft(NGrams(), ids, 5) == expected


def test_longer_matches_have_a_record_of_their_own() -> None:
    short = NGrams().propose([1, 2, 3, 1, 2], GREEDY)
    long = NGrams().propose([1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6], GREEDY)
    assert short is not None
    assert long is not None
    assert short.acceptance.rate < long.acceptance.rate
