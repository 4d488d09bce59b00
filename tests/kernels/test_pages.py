"""Which bytes of a page belong to a position: those that storing it writes, on every SIMD path."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu.kernels.attention import store
from lcpu.kernels.pages import PAGES, POSITIONS
from lcpu.kernels.pages.page_type import NOBODY

from .running import int64, run

HEADS = [("f16", "f16", head_dim) for head_dim in (4, 8, 32, 80, 100, 128)]
HEADS += [("q8_0", "q8_0", head_dim) for head_dim in (32, 64, 96)]


def page_with(keys: str, values: str, head_dim: int, position: int, fill: int, beside: float) -> np.ndarray:
    """The bytes of a head, all of them `fill`, after a position was stored. beside: what follows its key and value."""
    key_bytes, value_bytes = PAGES[keys].key_bytes(head_dim), PAGES[values].value_bytes(head_dim)
    page = np.full(key_bytes + value_bytes, fill, np.uint8)
    rows = np.full((2, 256), beside, np.float32)
    balance = np.ones((2, head_dim), np.float32)
    rows[:, :head_dim] = np.random.default_rng(position).standard_normal((2, head_dim))
    run(store(PAGES[keys], PAGES[values]), count=int64(1), positions=int64(position), slots=int64(0),
        tables=int64(0), table_bytes=8, k=rows[:1], v=rows[1:], stride=rows.strides[0], heads=1, head_dim=head_dim,
        balance=balance, pages=page, page_bytes=page.nbytes, key_bytes=key_bytes, value_bytes=value_bytes)
    return page


@pytest.mark.parametrize(("keys", "values", "head_dim"), HEADS, ids=[f"{case[0]} {case[2]}" for case in HEADS])
def test_what_a_position_writes(keys: str, values: str, head_dim: int) -> None:
    found = np.concatenate([PAGES[keys].key_owners(head_dim), PAGES[values].value_owners(head_dim)])
    for position in (0, 1, 5, 37, 64, 126, 127):
        first, second, third = (page_with(keys, values, head_dim, position, *filling)
                                for filling in ((0, 1.1), (255, 1.1), (0, -7.3)))
        is_written, is_behind_the_head = first == second, first != third
        assert np.array_equal(found == position, is_written & ~is_behind_the_head)
        assert (found[is_behind_the_head] == NOBODY).all()
    assert set(found.tolist()) - {NOBODY} == set(range(POSITIONS))
