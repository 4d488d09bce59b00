"""Activations between operations: values in memory that later operations use again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..kernels.simd import LANES

WHOLE_VECTORS = 16  # so many values, and multiples, are whole vectors of every instruction set


@dataclass(eq=False)
class Memory:
    """Scratch for all tokens of a batch, the same for every layer. `version` counts the values that it has held."""

    name: str
    array: np.ndarray = field(repr=False)  # float32 [capacity][width in whole vectors]
    version: int = 0


class Rows:
    """A value: float32 [capacity][width], of which `count` (an address, read at each step) are in use.

    Once another value is put into its memory, it must not be used any more: `array` raises, while the program is built.
    """

    def __init__(self, memory: Memory, width: int, count: int) -> None:
        """A new value in this memory; what it held before is lost."""
        memory.version += 1
        self.memory, self.width, self.count = memory, width, count
        self._version = memory.version

    @property
    def array(self) -> np.ndarray:
        if self._version != self.memory.version:
            raise RuntimeError(f"'{self.memory.name}' is used after another value has taken its place")
        return self.memory.array

    @property
    def capacity(self) -> int:
        return len(self.memory.array)

    @property
    def stride(self) -> int:
        return self.memory.array.strides[0]

    @property
    def vectors(self) -> int:
        return -(-self.width // LANES)

    def changed(self) -> Rows:
        """The value after an operation in place."""
        assert self.array is not None
        return Rows(self.memory, self.width, self.count)
