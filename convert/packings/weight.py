"""A weight that was quantized before, whatever its packing: its values, and the blocks of GGUF types that keep them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..values import Blocks, Values


def _no_blocks(type: str, rows: np.ndarray) -> np.ndarray:
    raise AssertionError(f"no blocks of {type}")


@dataclass(frozen=True)
class Weight:
    """Functions take row numbers, an int array; rows are counted through all leading dimensions."""

    shape: tuple[int, ...]
    rows: Callable[[np.ndarray], np.ndarray]  # float32 [rows, k]
    types: tuple[str, ...] = ()  # GGUF types that keep it, the smallest first
    near: tuple[str, ...] = ()  # and those that round offsets to float16
    blocks: Callable[[str, np.ndarray], np.ndarray] = _no_blocks  # of one of these types: uint8 [rows, bytes of a row]
    is_exact: bool = True  # the types keep all values; if not, scales are rounded to float16
    is_scattered: bool = False  # no types, since columns that share scales are not neighbours
    scale: float | None = None  # of ternary values, which are -scale, 0 or scale
    release: Callable[[], None] = lambda: None


def every(weight: Weight, first: int, step: int) -> Weight:
    """Of each matrix of a stack, every so many rows from the `first` on."""
    *stack, rows, k = weight.shape

    def number(wanted: np.ndarray) -> np.ndarray:
        return first + step * wanted  # matrices have whole steps of rows

    return replace(weight, shape=(*stack, rows // step, k), rows=lambda wanted: weight.rows(number(wanted)),
                   blocks=lambda type, wanted: weight.blocks(type, number(wanted)))


def reordered(weight: Weight, columns: np.ndarray) -> Weight:
    """Column k is column columns[k] of the weight. No blocks keep it."""
    return replace(weight, rows=lambda wanted: weight.rows(wanted)[:, columns], types=(), near=())


def weight_values(weight: Weight, order: np.ndarray | None = None) -> Values:
    """The values of a weight. Row i is row order[i] of it."""
    inner = math.prod(weight.shape[1:-1])  # rows of one step in the first dimension

    def numbers(start: int, stop: int) -> np.ndarray:
        return np.arange(start * inner, stop * inner) if order is None else order[start:stop]

    def rows(start: int, stop: int) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused when it is written
            return weight.rows(numbers(start, stop)).reshape(stop - start, *weight.shape[1:])

    def blocks(type: str, start: int, stop: int) -> np.ndarray:
        return weight.blocks(type, numbers(start, stop))

    scale = weight.scale
    if scale is not None:
        return Values(weight.shape, rows, "F32", lambda: scale, release=weight.release)
    kept = Blocks(weight.types, blocks, weight.is_exact, weight.near, weight.is_scattered)
    return Values(weight.shape, rows, "F32", release=weight.release, kept=kept)
