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

    def __init__(self, file, context, threads, *, cache_tokens=0, cache_types=("f16", "f16"), team=None,
                 check_memory=True, context_flags="", progress=None) -> None:
        from lcpu.engine import hyperparameters

        self.h = hyperparameters.read(file.metadata)
        self.name, self.context, self.threads = file.path.name, context, threads
        self.check_memory = check_memory
        self.team = object() if team is None else team
        self.matrices: dict[str, object] = {}
        self.attended: list[object] = []
        self.cache_types = cache_types
        self.pool = SimpleNamespace(most=-(-context // 128), count=-(-max(context, cache_tokens) // 128),
                                    copy=lambda source, target: None,
                                    states=SimpleNamespace(slots=0, copy=lambda source, target: None))
        self.sizes: list[int] = []
        self.positions: list[int] = []
        self.closed = False
        self.loaded.append(self)

    def step(self, pieces: Sequence[Piece]) -> np.ndarray:
        assert not self.closed
        assert all(piece.start + len(piece.tokens) <= self.context for piece in pieces)
        self.sizes.append(sum(len(piece.tokens) for piece in pieces))
        self.positions.append(pieces[0].start)
        if self.error_after is not None and len(self.sizes) > self.error_after:
            raise KeyboardInterrupt
        return np.zeros((sum(piece.outputs for piece in pieces), self.h.vocab_size), np.float32)

    def close(self) -> None:
        self.closed = True
