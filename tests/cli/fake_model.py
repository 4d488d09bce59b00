"""A model for `lcpu bench` that computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from lcpu.engine.batch import Piece


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
        self.pool = SimpleNamespace(most=-(-context // 128), position_bytes=0)
        self.sizes: list[int] = []
        self.positions: list[int] = []
        self.closed = False
        self.loaded.append(self)

    def step(self, pieces: Sequence[Piece]) -> np.ndarray:
        (piece,) = pieces
        assert not self.closed
        assert piece.start + len(piece.tokens) <= self.context
        self.sizes.append(len(piece.tokens))
        self.positions.append(piece.start)
        if self.error_after is not None and len(self.sizes) > self.error_after:
            raise KeyboardInterrupt
        return np.zeros((piece.outputs, self.h.vocab_size), np.float32)

    def close(self) -> None:
        self.closed = True
