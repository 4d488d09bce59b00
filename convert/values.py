"""The values of a tensor to be written, made some rows at a time out of those of a checkpoint.

Rows may be taken in another order (llama's q and k) or unpacked on the way; nothing is held of them but what is asked
for.

The packed form of BitNet checkpoints is uint8 [rows / 4, k]: bits 2i and 2i + 1 of packed row r are row
i * (rows / 4) + r, as value + 1. Float masters of BitNet models become what training saw: round(w / m) * m with values
-1, 0 and 1 for the first factor, where m is the mean of |w| over the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..kernels.errors import LcpuError
from .source import SourceTensor, as_float32

CHUNK_VALUES = 1 << 19  # that are made at once: few enough for a cache
_LEAST_SCALE = 1e-5  # BitNet's


@dataclass(frozen=True)
class Values:
    """`rows(start, stop)` makes [stop - start, ...] of a tensor, in its dtype."""

    shape: tuple[int, ...]
    rows: Callable[[int, int], np.ndarray]
    dtype: str  # F32, F16, or BF16 as uint16
    scale: Callable[[], float] | None = None  # of ternary values, which are -scale, 0 or scale
    is_master: bool = False  # rows are what ternary values are to be rounded from
    release: Callable[[], None] = lambda: None  # to be called when the rows have been used

    @property
    def is_ternary(self) -> bool:
        return self.scale is not None

    def chunks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces of CHUNK_VALUES, or of a row if it is larger."""
        step = max(1, CHUNK_VALUES // math.prod(self.shape[1:]))
        for start in range(0, self.shape[0], step):
            yield start, min(start + step, self.shape[0])


def plain(source: SourceTensor, order: np.ndarray | None = None) -> Values:
    """The values as they are, but float64 as float32. Row i is row order[i] of the source."""
    dtype = "F32" if source.dtype == "F64" else source.dtype

    def rows(start: int, stop: int) -> np.ndarray:
        stored = source.array()[slice(start, stop) if order is None else order[start:stop]]
        return stored if dtype == source.dtype else as_float32(stored, source.dtype)

    return Values(source.shape, rows, dtype, release=source.release)


def unpacked(source: SourceTensor, scale: float, order: np.ndarray | None = None) -> Values:
    """scale times the values of a packed tensor."""
    quarter = source.shape[0]
    shape = (4 * quarter, *source.shape[1:])
    all_rows = np.arange(shape[0]) if order is None else order

    def rows(start: int, stop: int) -> np.ndarray:
        wanted = all_rows[start:stop]
        codes = source.array()[wanted % quarter]  # a copy, which the next lines work in
        codes >>= (2 * (wanted // quarter)).astype(np.uint8)[:, None]
        codes &= 3
        if codes.max(initial=0) > 2:
            raise LcpuError(f"tensor {source.name!r} has values that are not -1, 0 or 1: damaged; download it again")
        made = codes.astype(np.float32)
        made -= 1
        made *= np.float32(scale)
        return made

    return Values(shape, rows, "F32", lambda: scale, release=source.release)


def ternarized(source: SourceTensor, order: np.ndarray | None = None) -> Values:
    """What a BitNet layer computes with, from its master weights."""
    master = plain(source, order)

    @cache
    def scale() -> float:
        total = 0.0
        for chunk in master.chunks():
            made = as_float32(master.rows(*chunk), master.dtype)
            total += float(np.abs(made, out=made).sum(dtype=np.float64))
        return max(_LEAST_SCALE, total / math.prod(source.shape))

    return replace(master, scale=scale, is_master=True)


def constant(array: np.ndarray) -> Values:
    """Values that no checkpoint has, float32."""
    return Values(array.shape, lambda start, stop: array[start:stop], "F32")
