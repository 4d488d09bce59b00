"""A batch: the tokens that one step computes together. They may belong to different sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUERY_ROWS = 16  # query rows that attention multiplies at once with a block of positions


class Batch:
    """The arrays that a program's instructions read. They are filled before every step. All are int64.

    counts: [tokens, outputs, jobs]. outputs: the rows whose logits are computed. jobs [n][4]: runs of consecutive
    positions of one slot, for attention: first token, number of tokens, slot, position of the first token.
    """

    def __init__(self, capacity: int, queries_per_job: int) -> None:
        self.capacity = capacity
        self._queries = queries_per_job
        self.counts = np.zeros(3, np.int64)
        self.tokens, self.slots, self.positions, self.outputs = np.zeros((4, capacity), np.int64)
        self.jobs = np.zeros((capacity, 4), np.int64)

    def fill(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int],
             outputs: Sequence[int]) -> None:
        """Token i is at positions[i] of slots[i]. The tokens of a slot must be in order of position."""
        n = len(tokens)
        self.tokens[:n], self.slots[:n], self.positions[:n] = tokens, slots, positions
        self.outputs[: len(outputs)] = outputs
        jobs = self._split(n)
        self.jobs[: len(jobs)] = jobs
        self.counts[:] = n, len(outputs), len(jobs)

    def _split(self, count: int) -> list[tuple[int, int, int, int]]:
        jobs = []
        first = 0
        while first < count:
            slot, position = int(self.slots[first]), int(self.positions[first])
            size = 1
            while (size < self._queries and first + size < count and self.slots[first + size] == slot
                   and self.positions[first + size] == position + size):
                size += 1
            jobs.append((first, size, slot, position))
            first += size
        return jobs
