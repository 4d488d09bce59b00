"""The values of a tensor to be written, made some rows at a time out of those of a checkpoint.

Rows may be taken in another order (llama's q and k) or unpacked on the way; nothing is held of them but what is asked
for.

Float masters of BitNet models become what training saw: round(w / m) * m with values -1, 0 and 1 for the first factor,
where m is the mean of |w| over the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .source import SourceTensor, as_float32

CHUNK_VALUES = 1 << 19  # that are made at once: few enough for a cache
_LEAST_SCALE = 1e-5  # BitNet's


@dataclass(frozen=True)
class Blocks:
    """What keeps a weight that was quantized before: blocks of GGUF types with the same values."""

    types: tuple[str, ...]  # the smallest first; none if no type holds the weight
    rows: Callable[[str, int, int], np.ndarray]  # a type of these or `near`, start, stop: uint8 [rows, bytes of a row]
    is_exact: bool  # if not, scales are rounded to float16
    near: tuple[str, ...] = ()  # types that round offsets to float16
    is_scattered: bool = False  # no types, since columns that share scales are not neighbours


@dataclass(frozen=True)
class Values:
    """`rows(start, stop)` makes [stop - start, ...] of a tensor, in its dtype."""

    shape: tuple[int, ...]
    rows: Callable[[int, int], np.ndarray]
    dtype: str  # F32, F16, or BF16 as uint16
    scale: Callable[[], float] | None = None  # of ternary values, which are -scale, 0 or scale
    is_master: bool = False  # rows are what ternary values are to be rounded from
    kept: Blocks | None = None  # of weights that were quantized before, other than ternary ones
    release: Callable[[], None] = lambda: None  # to be called when the rows have been used

    @property
    def is_ternary(self) -> bool:
        return self.scale is not None

    def chunks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces of CHUNK_VALUES, or of a row if it is larger."""
        step = max(1, CHUNK_VALUES // math.prod(self.shape[1:]))
        for start in range(0, self.shape[0], step):
            yield start, min(start + step, self.shape[0])


def plain(source: SourceTensor, order: np.ndarray | None = None, columns: np.ndarray | None = None) -> Values:
    """The values as they are, but float64 as float32. Row i is row order[i] of the source, and columns likewise."""
    dtype = "F32" if source.dtype == "F64" else source.dtype

    def rows(start: int, stop: int) -> np.ndarray:
        stored = source.array()[slice(start, stop) if order is None else order[start:stop]]
        stored = stored if columns is None else stored[..., columns]
        return stored if dtype == source.dtype else as_float32(stored, source.dtype)

    return Values(source.shape, rows, dtype, release=source.release)


def changed(source: SourceTensor, change: Callable[[np.ndarray], np.ndarray],
            order: np.ndarray | None = None) -> Values:
    """What `change` makes of float32 values. Row i is row order[i] of the source."""
    same = plain(source, order)
    return replace(same, rows=lambda start, stop: change(as_float32(same.rows(start, stop), same.dtype)), dtype="F32")


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


def stacked(parts: Sequence[Values]) -> Values:
    """Values of one shape on top of each other, [parts, ...]: what experts have of a layer."""
    first = parts[0]
    dtype = first.dtype if all(part.dtype == first.dtype for part in parts) else "F32"
    kept = [part.kept for part in parts if part.kept is not None]

    def rows(start: int, stop: int) -> np.ndarray:
        made = (part.rows(0, part.shape[0]) for part in parts[start:stop])
        return np.stack([each if part.dtype == dtype else as_float32(each, part.dtype)
                         for part, each in zip(parts[start:stop], made, strict=True)])

    def blocks(type: str, start: int, stop: int) -> np.ndarray:
        return np.stack([each.rows(type, 0, first.shape[0]) for each in kept[start:stop]])

    def release() -> None:
        for part in parts:
            part.release()

    whole = kept if len(kept) == len(parts) else []
    types, near = (_common([getattr(each, name) for each in whole]) for name in ("types", "near"))
    together = Blocks(types, blocks, all(each.is_exact for each in kept), near, any(each.is_scattered for each in kept))
    return Values((len(parts), *first.shape), rows, dtype, kept=together if kept else None, release=release)


def _common(lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What is in all lists, in the order of the first."""
    return tuple(each for each in lists[0] if all(each in others for others in lists)) if lists else ()


def constant(array: np.ndarray) -> Values:
    """Values that no checkpoint has, float32."""
    return Values(array.shape, lambda start, stop: array[start:stop], "F32")
