"""Queries that grow with their position, so that attention stays sharp in long texts (Llama 4, Ministral)."""

from __future__ import annotations

import numpy as np

from ..kernels import elementwise
from ..kernels.pages import POSITIONS
from .builder import Builder
from .rows import Rows


class PositionScale:
    """q * (1 + slope * ln(1 + floor(position / length))), in place. One for all layers."""

    def __init__(self, b: Builder, slope: float, length: int) -> None:
        """length: positions of one factor."""
        count = b.pool.most * POSITIONS
        self._builder, self._factors = b, b.buffer("position factors", 4, count).view(np.float32)
        self._factors[:, 0] = 1 + slope * np.log1p(np.arange(count) // length)

    def __call__(self, q: Rows) -> Rows:
        b = self._builder
        b.program.add(elementwise.scale_by_position, count=q.count, positions=b.batch.positions, factors=self._factors,
                      x=q.array, stride=q.stride, vectors=q.vectors)
        return q.changed()
