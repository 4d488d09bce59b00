"""The memory of states: slots by number, each with the states of all layers of one sequence at one position."""

from __future__ import annotations

import numpy as np

from ..kernels.memory import zeros
from .state_cache import CHECK_POINTS

EACH = 2  # slots of a sequence: a step reads one and writes the other, so a rejected draft can go back
_SEQUENCES = 32  # that have slots at once, at most
_LEAST = 2


class StatePool:
    """float32 states, uint8 [slot][bytes of all layers]. Memory is taken as slots are first used."""

    def __init__(self) -> None:
        self.slot_bytes = 0
        self.count = EACH * _SEQUENCES + CHECK_POINTS  # if there are states
        self._array: np.ndarray | None = None

    def add(self, nbytes: int) -> int:
        """Make room for one more state; returns where in a slot it begins."""
        self.slot_bytes += nbytes
        return self.slot_bytes - nbytes

    @property
    def sequence_bytes(self) -> int:
        return EACH * self.slot_bytes

    @property
    def slots(self) -> int:
        return self.count if self.slot_bytes else 0

    def limit(self, nbytes: int) -> int:
        """Have at most so many bytes of slots more than one sequence needs. Returns how many these are."""
        if not self.slot_bytes:
            return 0
        self.count = max(EACH * _LEAST, min(self.count, EACH + nbytes // self.slot_bytes))
        return (self.count - EACH) * self.slot_bytes

    def allocate(self) -> None:
        self._array = zeros((max(1, self.slots), max(1, self.slot_bytes)), np.uint8, huge_pages=True)

    @property
    def array(self) -> np.ndarray:
        assert self._array is not None
        return self._array

    def copy(self, source: int, target: int) -> None:
        """Make a slot hold what another holds."""
        self.array[target] = self.array[source]
