"""What a model's matrices are multiplied with: sums of products by pairs of columns, X^T X, while the model runs.

Errors E of a matrix change what it computes by E X^T, whose squares add up to the trace of E (X^T X) E^T: so this is
half the Hessian of these squares. The engine's program is run in parts. Between two of them, the products of what the
next part multiplies are added by BLAS. Sums take so much memory that only some inputs are measured in one pass over the
text. A pass ends at the last one that it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .batch import Piece
from .input_squares import Point, not_numbers
from .model import Model

MOST_BYTES = 2 << 30  # of the sums of a pass, if no single one is larger
_STRIPE = 1024  # rows of a sum that are made at once

Steps = Callable[[], Iterable[list[Piece]]]  # the batches of a text, with logits wanted of all tokens


@dataclass(frozen=True)
class Products:
    """Of tensors that are multiplied with the same value: float32 [k][k], of which the lower triangle is filled."""

    tensors: tuple[str, ...]
    sums: np.ndarray


def measure(model: Model, steps: Steps, most_bytes: int = MOST_BYTES) -> Iterator[Products]:
    """The sums over all tokens, of one input after another, in the order of the program.

    Where keys and values are made, first tokens of windows count as much as all others together: attention goes to
    them from everywhere, so that errors there are errors everywhere. Raises LcpuError for sums that are not numbers.
    """
    assert model.input_squares is not None
    left = model.input_squares.points()
    while left:
        own = [left.pop(0)]
        nbytes = own[0].nbytes
        while left and nbytes + left[0].nbytes <= most_bytes:
            nbytes += left[0].nbytes
            own.append(left.pop(0))
        sums = _pass(model, own, steps)
        for point in own:
            yield Products(point.tensors, _checked(point, sums.pop(0)))


def _pass(model: Model, points: Sequence[Point], steps: Steps) -> list[np.ndarray]:
    starts = [0, *(point.at for point in points)]
    parts = [model.program.part(start, end) for start, end in pairwise(starts)]
    sums = [np.zeros((point.width, point.width), np.float32) for point in points]
    scratch = np.empty(_STRIPE * max(point.width for point in points), np.float32)
    firsts: list[list[np.ndarray]] = [[] for _ in points]
    tokens = 0
    for pieces in steps():
        tokens += sum(len(piece.tokens) for piece in pieces)
        for i, (point, part) in enumerate(zip(points, parts, strict=True)):
            model.step(pieces, part) if i == 0 else model.team.run(part)
            x = np.ascontiguousarray(point.rows())
            _add_products(x, sums[i], scratch)
            if point.is_attended:
                firsts[i].append(x[_firsts(pieces)])
    for each, rows in zip(sums, firsts, strict=True):
        first = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
        if len(first):
            _add_products(first * np.float32(np.sqrt(tokens / len(first))), each, scratch)
    return sums


def _firsts(pieces: Sequence[Piece]) -> list[int]:
    """Which rows of a batch are first tokens of their sequences."""
    ends = np.cumsum([len(piece.tokens) for piece in pieces])
    return [int(end) - len(piece.tokens) for piece, end in zip(pieces, ends, strict=True) if piece.start == 0]


def _add_products(x: np.ndarray, sums: np.ndarray, scratch: np.ndarray) -> None:
    """sums += x^T x, the lower triangle. Sums of a batch are added up by themselves first, which keeps them exact."""
    for start in range(0, len(sums), _STRIPE):
        end = min(start + _STRIPE, len(sums))
        products = scratch[: (end - start) * end].reshape(end - start, end)
        with np.errstate(invalid="ignore", over="ignore"):  # `_checked` finds what is no number
            np.matmul(x[:, start:end].T, x[:, :end], out=products)
            sums[start:end, :end] += products


def _checked(point: Point, sums: np.ndarray) -> np.ndarray:
    if not np.isfinite(np.diagonal(sums)).all():
        raise not_numbers(point.tensors[0])
    return sums
