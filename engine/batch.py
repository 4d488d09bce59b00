"""A batch: tokens that one step computes together, whichever sequences they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.attention import SPAN
from ..kernels.errors import LcpuError
from ..kernels.pages import POSITIONS

QUERY_ROWS = 16  # query heads that attention takes at once against a block of positions


@dataclass(frozen=True)
class Piece:
    """The next tokens of one sequence. Its pages must hold what comes before them, and have room for them."""

    tokens: Sequence[int]
    start: int  # position of the first
    pages: Sequence[int] | np.ndarray  # page numbers, from position 0 on
    outputs: int = 0  # of how many of the last tokens logits are wanted
    states: tuple[int, int] | None = None  # slots before and after; None: both are its place among the pieces


class Batch:
    """The arrays that a program's instructions read, filled anew for every step. All are int64.

    counts: [tokens, outputs, jobs, spans of the deepest job, pieces]. slots: which row of tables a token has.
    outputs: which tokens want logits. jobs [n][4]: runs of consecutive positions of one sequence, as attention takes
    them: first token, number of tokens, slot, position of the first. spans and saves: see `kernels.states`.
    """

    def __init__(self, capacity: int, queries_per_job: int, pages: int) -> None:
        """capacity: the most tokens of a step. pages: the most pages of a sequence."""
        self.capacity = capacity
        self._queries = queries_per_job
        self.counts = np.zeros(5, np.int64)
        self.tokens, self.slots, self.positions, self.outputs = np.zeros((4, capacity), np.int64)
        self.jobs = np.zeros((capacity, 4), np.int64)
        self.tables = np.zeros((capacity, pages), np.int64)
        self.spans, self.saves = np.zeros((capacity, 3), np.int64), np.zeros(capacity, np.int64)
        self.state_slots = 0  # of layers with a state; 0: there are none
        self.pages_used = 0  # of the pool, so far: the highest page number and one

    def fill(self, pieces: Sequence[Piece]) -> None:
        """At most `capacity` tokens in all. Raises LcpuError for more pieces than there are states."""
        if 0 < self.state_slots < len(pieces):
            raise LcpuError(f"{len(pieces)} sequences at once: this model keeps the states of {self.state_slots}; take "
                            "fewer sequences")
        at, deepest = 0, 0
        jobs: list[tuple[int, int, int, int]] = []
        outputs: list[int] = []
        for slot, piece in enumerate(pieces):
            count = len(piece.tokens)
            end = piece.start + count
            self.tokens[at : at + count] = piece.tokens
            self.slots[at : at + count] = slot
            self.positions[at : at + count] = range(piece.start, end)
            needed = -(-end // POSITIONS)
            self.tables[slot, :needed] = piece.pages[:needed]
            self.pages_used = max(self.pages_used, int(piece.pages[needed - 1]) + 1)
            jobs += [(at + i, min(self._queries, count - i), slot, piece.start + i)
                     for i in range(0, count, self._queries)]
            outputs += range(at + count - piece.outputs, at + count)
            if self.state_slots:
                before, after = piece.states or (slot, slot)
                self.spans[slot] = at, count, before if piece.start else -1
                self.saves[at : at + count] = -1
                self.saves[at + count - 1] = after
            at, deepest = at + count, max(deepest, (end - 1) // SPAN + 1)
        self.jobs[: len(jobs)] = jobs
        self.outputs[: len(outputs)] = outputs
        self.counts[:] = at, len(outputs), len(jobs), deepest, len(pieces)
