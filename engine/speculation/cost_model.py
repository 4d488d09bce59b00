"""How many seconds a model's step takes, by its number of tokens: measured while it generates, else interpolated."""

from __future__ import annotations

from collections import deque

from .drafter import MAX_DRAFT

_KEPT = 7  # measurements of each size. Their median is robust against what else the machine does
_MAX_AGE = 100  # n measurements of a size are used for n * _MAX_AGE steps: a single slow one must not end drafting
_TOLERANCE, _RENEWAL = 0.02, 32  # the table is computed again after a change by this share, and every so many steps
_SLOPE = 0.1  # assumed cost of one more token, as a share of a plain step, where no larger step has been measured


class CostModel:
    """Medians of the last steps of 1 to MAX_DRAFT + 1 tokens. A plain step is a step of one token."""

    def __init__(self) -> None:
        self._measured: dict[int, deque[float]] = {}
        self._medians: dict[int, tuple[float, int]] = {}  # (seconds, step of the last measurement)
        self._steps = 0
        self._table: list[float] | None = None

    def record(self, tokens: int, seconds: float) -> None:
        """Add a measurement: a step of so many tokens, all with logits, took so many seconds."""
        if tokens <= MAX_DRAFT + 1:
            measured = self._measured.setdefault(tokens, deque(maxlen=_KEPT))
            measured.append(seconds)
            middle = sorted(measured)[(len(measured) - 1) // 2]
            before, _ = self._medians.get(tokens, (0.0, 0))
            self._steps += 1
            self._medians[tokens] = middle, self._steps
            if abs(middle - before) > _TOLERANCE * before or self._steps % _RENEWAL == 0:
                self._table = None

    @property
    def plain(self) -> float:
        """Seconds of a plain step; 0 before one was measured."""
        return self._medians[1][0] if 1 in self._medians else 0.0

    def seconds(self, tokens: int) -> float:
        """Expected seconds of a step of so many tokens; 0 before a plain step was measured."""
        if tokens == 1 or not self.plain:
            return self.plain
        return self.table[min(tokens, MAX_DRAFT + 1)] + max(0, tokens - MAX_DRAFT - 1) * _SLOPE * self.plain

    @property
    def table(self) -> list[float]:
        """Seconds by number of tokens, 0 to MAX_DRAFT + 1, never decreasing. A plain step must have been measured."""
        if self._table is None:
            self._table = self._interpolated()
        return self._table

    def _interpolated(self) -> list[float]:
        table = [0.0]
        for size, (seconds, step) in sorted(self._medians.items()):
            if size > 1 and self._steps - step > _MAX_AGE * len(self._measured[size]):
                continue
            low, high = table[-1], max(table[-1], seconds)
            gap = size - len(table) + 1
            table += [low + (high - low) * step / gap for step in range(1, gap + 1)]
        for _ in range(len(table), MAX_DRAFT + 2):
            table.append(table[-1] + _SLOPE * self.plain)
        return table
