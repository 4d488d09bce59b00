"""Sums of squares by column: against NumPy, and the same bits however rows come."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu.kernels.program import Program
from lcpu.kernels.simd import LANES
from lcpu.kernels.squares import add_expert_squares, add_squares

from .running import int64, padded, run, same_bits, team, vectors_of


def sums_of(x: np.ndarray, sizes: list[int], threads: int = 1) -> np.ndarray:
    """float32 [2][columns], after batches of these sizes."""
    rows = padded(x, spare=0)
    sums, counts = np.zeros((2, rows.shape[1]), np.float32), int64(0)
    first = 0
    for size in sizes:
        run(add_squares, threads=threads, count=int64(size), x=rows[first:] if size else rows, stride=rows.strides[0],
            vectors=vectors_of(rows), sums=sums, sums_bytes=sums.strides[0], counts=counts)
        first += size
    assert counts[0] == first == len(x)
    return sums


def test_many_rows_lose_nothing() -> None:
    x = np.random.default_rng(1).standard_normal((20_000, 3)).astype(np.float32) + np.float32([0, 10, 1000])
    found = sums_of(x, [20_000]).sum(axis=0, dtype=np.float64)[:3]
    np.testing.assert_allclose(found, (x.astype(np.float64) ** 2).sum(axis=0), rtol=1e-7)  # float32 alone: 1e-5


@pytest.mark.parametrize("width", [1, 5, 16 * LANES, 16 * LANES + 1, 35 * LANES])
def test_same_bits_for_every_split_and_every_number_of_threads(width: int) -> None:
    x = np.random.default_rng(width).standard_normal((40, width)).astype(np.float32)
    whole = sums_of(x, [40])
    for threads in (1, 2, 3):
        assert same_bits(sums_of(x, [1, 0, 7, 32], threads), whole)


@pytest.mark.parametrize("by_token", [False, True])
def test_experts(by_token: bool) -> None:
    """Groups of 3, 1 and 0 rows, which begin where tiles do, with spare rows that do not count."""
    width, random = 20 * LANES + 1, np.random.default_rng(2)
    x = padded(random.standard_normal((12, width)).astype(np.float32), spare=0)
    groups = int64(12, 2, 3, 2, 0, 3, 0, 8, 1)  # expert 2 has rows 0 to 2, expert 0 row 8
    rows = np.stack([random.permutation(12), np.zeros(12, np.int64)], axis=1)
    sums, counts = np.zeros((3, 2, x.shape[1]), np.float32), int64(5, 5, 5)
    program = Program()
    for _ in range(2):
        program.add(add_expert_squares, groups=groups, rows=rows if by_token else 0, x=x, stride=x.strides[0],
                    vectors=vectors_of(x), sums=sums, sums_bytes=sums.strides[1], counts=counts)
    team(2).run(program.finish())
    assert counts.tolist() == [7, 5, 11]
    for expert, own in ((0, [8]), (1, []), (2, [0, 1, 2])):
        chosen = rows[own, 0] if by_token else own
        expected = 2 * (x[chosen].astype(np.float64) ** 2).sum(axis=0)
        np.testing.assert_allclose(sums[expert].sum(axis=0, dtype=np.float64), expected, rtol=1e-6)
