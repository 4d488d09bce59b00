"""Quantize matrices with error feedback (`kernels.error_feedback`), from what they are multiplied with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..kernels.error_feedback import SPAN
from ..kernels.formats import Format
from ..kernels.program import Program
from ..kernels.team import Team

ROUNDS = 2  # how often scales of a block are searched anew
DAMPING = 0.01  # of the mean of a Hessian's diagonal
_TOKENS_PER_COLUMN = 4  # so many make the measured products of different columns worth half


@dataclass(frozen=True)
class Feedback:
    """What a Hessian says of a matrix's columns, float32: factors [k][k], 0 unless i < k, and importance [k]."""

    factors: np.ndarray
    importance: np.ndarray


def shrinkage(tokens: int, k: int) -> float:
    """By how much products of different columns are made smaller that were measured on so many tokens.

    A sample has correlations that the next text has not, the more of them the fewer tokens there are to a column. Where
    they are believed, errors are moved to where they do harm. (Ledoit and Wolf, "A well-conditioned estimator for
    large-dimensional covariance matrices", shrink in this way.)
    """
    return 1 / (1 + tokens / (_TOKENS_PER_COLUMN * k))


def feedback_of(hessian: np.ndarray, damping: float = DAMPING, shrinkage: float = 0.0) -> Feedback:
    """hessian: [k][k], symmetric; of it the lower triangle is used. damping: this share of the mean of its diagonal is
    added to the diagonal. shrinkage: by this share, all others are made smaller.

    Raises numpy.linalg.LinAlgError if it is not positive definite even so.
    """
    flipped = hessian[::-1, ::-1].astype(np.float64)  # for a root that is upper triangular
    diagonal = np.einsum("ii->i", flipped)
    mean, before = diagonal.mean(), diagonal.copy()
    flipped *= 1 - shrinkage
    diagonal[:] = before
    diagonal += damping * mean if mean > 0 else 1.0
    root = np.linalg.cholesky(flipped, upper=True).T[::-1, ::-1]
    del flipped, diagonal
    ends = np.diagonal(root).copy()
    factors = np.empty(root.shape, np.float32)
    np.divide(root, ends, out=factors, casting="same_kind")
    np.fill_diagonal(factors, 0)
    return Feedback(factors, np.maximum(ends**2 / np.mean(ends**2), 1e-12).astype(np.float32))


def quantize_rows(team: Team, weights: np.ndarray, feedback: Feedback, format: Format, out: np.ndarray,
                  told: Callable[[int], None] | None = None) -> None:
    """Fill `out`, uint8 [rows][bytes of a row], with blocks. weights: float32 [rows][k]; errors take their place.

    told(columns): is called after each step.
    """
    assert format.sweep is not None
    rows, k = weights.shape
    for first in range(0, k, SPAN):
        last = min(first + SPAN, k)
        x = weights[:, first:last] + weights[:, :first] @ feedback.factors[:first, first:last]
        own = np.ascontiguousarray(feedback.factors[first:last, first:last])
        program = Program()
        program.add(format.sweep, rows=rows, columns=last - first, x=x, x_bytes=x.strides[0],
                    weights=weights[:, first:], weight_bytes=weights.strides[0], importance=feedback.importance[first:],
                    factors=own, factor_bytes=own.strides[0],
                    target=out[:, first // format.block * format.block_bytes :], target_bytes=out.strides[0],
                    rounds=ROUNDS)
        team.run(program.finish())
        if told:
            told(last)
