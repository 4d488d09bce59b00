"""Measure an importance matrix: for each tensor, sums of squares by column of what a text multiplies it with.

The method is llama-imatrix's (llama.cpp, tools/imatrix): the text is cut into windows, each is computed on its own, and
all tokens count. For the output layer, as large as many layers of a small model, the last tokens of each window do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..kernels.pages import POSITIONS
from .batch import Piece
from .input_squares import Squares, not_numbers
from .model import BATCH, Model

OUTPUTS = 32  # tokens of a window whose logits are computed, for the input of the output layer

Told = Callable[[int, int], None]  # windows done, windows in all


def most_at_once(size: int, batch: int = BATCH) -> int:
    """How many windows of so many tokens a step computes."""
    return max(1, batch // size)


def pages_of(size: int) -> int:
    """How many pages a window has."""
    return -(-size // POSITIONS)


def batches(pages: Sequence[int], windows: Sequence[Sequence[int]], outputs: int, told: Told | None = None,
            batch: int = BATCH, state: int | None = None) -> Iterator[list[Piece]]:
    """The steps that compute windows of one size, each on its own. outputs: how many last tokens' logits are wanted.

    pages: of the pool, for as many windows as one step computes, or fewer. batch: the most tokens of a step, up to
    BATCH. state: the slot to use, where layers have states; a step then computes one window.
    """
    size, each = len(windows[0]), pages_of(len(windows[0]))
    own = [pages[i : i + each] for i in range(0, len(pages) - each + 1, each)]
    at_once = 1 if state is not None else min(len(own), most_at_once(size, batch))
    states = None if state is None else (state, state)
    for first in range(0, len(windows), at_once):
        group = windows[first : first + at_once]
        for start in range(0, size, batch):
            end = min(start + batch, size)
            wanted = max(0, end - max(start, size - outputs))
            yield [Piece(window[start:end], start, own[i], wanted, states=states) for i, window in enumerate(group)]
        if told:
            told(first + len(group), len(windows))


def measure(model: Model, pages: Sequence[int], windows: Sequence[Sequence[int]], told: Told | None = None,
            batch: int = BATCH, state: int | None = None) -> dict[str, Squares]:
    """The sums of windows of one size, by tensor, in the file's order of layers.

    pages, batch, state: as `batches` takes them; they do not change the result. Raises LcpuError for sums that are not
    numbers.
    """
    assert model.input_squares is not None
    for pieces in batches(pages, windows, OUTPUTS, told, batch, state):
        model.step(pieces)
    found = model.input_squares.by_tensor()
    for name, squares in found.items():
        if not (squares.sums < float("inf")).all():
            raise not_numbers(name)
    return found
