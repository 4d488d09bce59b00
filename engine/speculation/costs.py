"""How long a model's steps take, by their number of tokens: measured while it works, and guessed in between."""

from __future__ import annotations

from collections import deque

from .drafter import MOST

_REMEMBERED = 7  # measurements of each size; their median is not impressed by what else the machine does
_STALE = 100  # steps that a measurement is trusted, n of them n times as long: one slow one must not end drafting
_TOLERANCE, _RENEWAL = 0.02, 32  # the table is made anew for changes larger than this share, or after so many steps
_SLOPE = 0.1  # of a step's cost, for one token more: a guess, until a step of more tokens has been measured


class StepCosts:
    """Medians of the last steps of 1 to MOST + 1 tokens."""

    def __init__(self) -> None:
        self._measured: dict[int, deque[float]] = {}
        self._medians: dict[int, tuple[float, int]] = {}  # and the step when it was last measured
        self._steps = 0
        self._table: list[float] | None = None

    def record(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens, all with logits, took so long."""
        if tokens <= MOST + 1:
            measured = self._measured.setdefault(tokens, deque(maxlen=_REMEMBERED))
            measured.append(seconds)
            middle = sorted(measured)[(len(measured) - 1) // 2]
            before, _ = self._medians.get(tokens, (0.0, 0))
            self._steps += 1
            self._medians[tokens] = middle, self._steps
            if abs(middle - before) > _TOLERANCE * before or self._steps % _RENEWAL == 0:
                self._table = None

    @property
    def plain(self) -> float:
        """Seconds of a step of one token; 0 as long as none was measured."""
        return self._medians[1][0] if 1 in self._medians else 0.0

    def seconds(self, tokens: int) -> float:
        """What a step would cost; nothing as long as no step of one token was measured."""
        if tokens == 1 or not self.plain:
            return self.plain
        return self.table[min(tokens, MOST + 1)] + max(0, tokens - MOST - 1) * _SLOPE * self.plain

    @property
    def table(self) -> list[float]:
        """Seconds by number of tokens, 0 to MOST + 1, never less for more tokens. Steps of one must be known."""
        if self._table is None:
            self._table = self._interpolated()
        return self._table

    def _interpolated(self) -> list[float]:
        table = [0.0]
        for size, (seconds, step) in sorted(self._medians.items()):
            if size > 1 and self._steps - step > _STALE * len(self._measured[size]):
                continue
            low, high = table[-1], max(table[-1], seconds)
            gap = size - len(table) + 1
            table += [low + (high - low) * step / gap for step in range(1, gap + 1)]
        for _ in range(len(table), MOST + 2):
            table.append(table[-1] + _SLOPE * self.plain)
        return table
