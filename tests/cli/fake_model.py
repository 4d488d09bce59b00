"""A model for `lcpu bench` that computes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class FakeModel:
    """Remembers what it was loaded with, and the number of tokens and the first position of each step."""

    loaded: list[FakeModel]
    error_after: int | None = None  # steps

    def __init__(self, file, context, threads, *, team=None, check_memory=True, context_flags="",
                 progress=None) -> None:
        from lcpu.engine import hyperparameters

        self.h = hyperparameters.read(file.metadata)
        self.name, self.context, self.threads = file.path.name, context, threads
        self.check_memory = check_memory
        self.team = object() if team is None else team
        self.matrices: dict[str, object] = {}
        self.sizes: list[int] = []
        self.positions: list[int] = []
        self.closed = False
        self.loaded.append(self)

    def step(self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int],
             outputs: Sequence[int]) -> np.ndarray:
        assert not self.closed
        assert max(positions) < self.context
        self.sizes.append(len(tokens))
        self.positions.append(positions[0])
        if self.error_after is not None and len(self.sizes) > self.error_after:
            raise KeyboardInterrupt
        return np.zeros((len(outputs), self.h.vocab_size), np.float32)

    def close(self) -> None:
        self.closed = True
