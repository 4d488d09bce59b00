"""Factors that make the dimensions of a key alike, for pages that have one scale for all of them.

A projection with a bias gives keys of which some dimensions are a thousand times as large as others (Qwen 2.5). A key
is multiplied by factors, and a query by their inverses, which leaves the scores as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..kernels.program import Program
from ..kernels.team import Team
from .gguf_file import GGUFFile
from .tensors import Matrix, has_tail

_DEVIATIONS = 3  # how many standard deviations a dimension is expected to reach
_SMALLEST = 1e-3  # of the largest dimension: those below are treated alike
_ROWS = 1024  # that are read at once


@dataclass(frozen=True, eq=False)
class KeyBalance:
    """What keys of a layer are made of, and their factors.

    gain: the weight of the norm before the projection, [k]. bias: [kv_heads * head_dim]. norm: of each head of a key,
    [head_dim], or of whole keys, [kv_heads * head_dim]. pairs, step, distance: of the rotation, as in `kernels.rope`.
    """

    factors: np.ndarray = field(repr=False)  # float32 [kv_heads][2][head_dim]: for queries, and for keys
    matrix: Matrix
    gain: np.ndarray | None = None
    bias: np.ndarray | None = None
    norm: np.ndarray | None = None
    pairs: int = 0
    step: int = 1
    distance: int = 0


def fill(balance: KeyBalance, team: Team, file: GGUFFile) -> None:
    """Estimate how large each dimension becomes, and set the factors."""
    heads, _, head_dim = balance.factors.shape
    center, spread = np.zeros((heads, head_dim)), np.ones((heads, head_dim))
    if balance.bias is not None:
        center[:] = balance.bias.reshape(heads, head_dim)
    whole = balance.norm is None or len(balance.norm) > head_dim  # a norm of whole keys leaves their dimensions unlike
    if whole and not has_tail(balance.matrix.stored):  # such a matrix is ternary, and its rows are alike
        spread[:] = _row_norms(balance, team, file).reshape(heads, head_dim)
    if balance.norm is not None:
        spread *= balance.norm.reshape(-1, head_dim)
    first = np.arange(balance.pairs) * balance.step
    for values in (spread, center):  # a pair turns, so that either value comes in the other's place
        both = np.hypot(values[:, first], values[:, first + balance.distance])
        values[:, first] = values[:, first + balance.distance] = both
    size = np.abs(center) + _DEVIATIONS * np.abs(spread)
    largest = size.max(axis=1, keepdims=True)
    if np.isfinite(largest).all() and (largest > 0).all():
        size = np.maximum(size, _SMALLEST * largest)
        balance.factors[:, 0], balance.factors[:, 1] = size, 1 / size


def _row_norms(balance: KeyBalance, team: Team, file: GGUFFile) -> np.ndarray:
    """The length of each row of the projection: the deviation of its results where its input has one of 1."""
    matrix, part = balance.matrix, balance.matrix.parts[0]
    values = np.empty((_ROWS, matrix.k), np.float32)
    norms = np.empty(matrix.rows)
    for first in range(0, matrix.rows, _ROWS):
        rows = np.arange(part.first + first, part.first + min(first + _ROWS, matrix.rows), dtype=np.int64)
        program = Program()
        program.add(matrix.stored.dequantize, count=np.array([len(rows)], np.int64), indices=rows,
                    table=file.data(part.tensor), blocks=matrix.k // matrix.stored.block,
                    block_bytes=matrix.stored.block_bytes, block_values=matrix.stored.block, out=values,
                    out_stride=values.strides[0])
        team.run(program.finish())
        read = values[: len(rows)]
        scaled = read if balance.gain is None else read * balance.gain
        norms[first : first + len(rows)] = np.sqrt(np.einsum("rk,rk->r", scaled, scaled, dtype=np.float64))
    return norms if matrix.scales is None else norms * np.abs(matrix.scales[0])
