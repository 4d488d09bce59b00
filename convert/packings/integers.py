"""Weights of whole numbers with scales, which GGUF's Q4_0, Q5_0 and Q8_0 hold as they are.

A block of these types is a float16 scale d and 32 values along a row: d * q, with q of -8 to 7, -16 to 15 or -128 to
127. So they hold a weight whose columns share scales in runs of 32, or of a multiple of it. Q4_1 is d * q + m with q of
0 to 15, and nearly holds weights of 4 bits with zeros: m = -d * zero is rounded to float16, by less than 0.008 d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .weight import Weight

_BLOCK = 32
_RANGES = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-128, 127)}
_NIBBLE = (0, 15)  # codes of Q4_1
_ROUNDED = 2**-11 * 1.001  # the largest relative error of a float16


@dataclass(frozen=True)
class Integers:
    """value[n, k] = scales[n, g] * (codes[n, k] - zeros[n, g]), where g = groups[k].

    Functions take row numbers, an int array, which are counted through all leading dimensions.
    """

    shape: tuple[int, ...]
    span: tuple[int, int]  # the smallest and the largest code
    codes: Callable[[np.ndarray], np.ndarray]  # uint8 or int8 [rows, k]
    scales: Callable[[np.ndarray], np.ndarray]  # float32 [rows, groups]
    zeros: Callable[[np.ndarray], np.ndarray]  # int32 [rows, groups]
    groups: np.ndarray  # int [k]
    release: Callable[[], None] = lambda: None


def column_order(groups: np.ndarray, span: int) -> np.ndarray | None:
    """How to order columns so that runs of 32 share scales, each span of columns by itself; None if that is no way."""
    order = np.concatenate([start + np.argsort(groups[start : start + span], kind="stable")
                            for start in range(0, len(groups), span)])
    return order if in_runs(groups[order]) else None


def integer_weight(source: Integers, columns: np.ndarray | None = None) -> Weight:
    """The weight, with its columns in another order: column k is column columns[k] of the source."""
    groups = source.groups if columns is None else source.groups[columns]

    def codes(rows: np.ndarray) -> np.ndarray:
        found = source.codes(rows)
        return found if columns is None else found[:, columns]

    def values(rows: np.ndarray) -> np.ndarray:
        numbers = codes(rows) - source.zeros(rows)[:, groups]
        return source.scales(rows)[:, groups] * numbers.astype(np.float32)

    def blocks(type: str, rows: np.ndarray) -> np.ndarray:
        runs = groups[::_BLOCK]
        found, zeros = codes(rows).reshape(len(rows), -1, _BLOCK), source.zeros(rows)[:, runs]
        scales = source.scales(rows)[:, runs]
        if type == "Q4_1":
            return _pack(type, found, scales.astype(np.float16), (-scales * zeros).astype(np.float16))
        return _pack(type, found - zeros.astype(np.int16)[..., None], scales.astype(np.float16))

    whole = in_runs(groups)
    types, is_exact = _types(source) if whole else ((), False)
    scattered = not whole and len(groups) % _BLOCK == 0 and bool((np.diff(groups) < 0).any())
    near = ("Q4_1",) if types and "Q4_0" not in types and source.span == _NIBBLE else ()
    return Weight(source.shape, values, types, near, blocks, is_exact, scattered, release=source.release)


def in_runs(groups: np.ndarray) -> bool:
    """Whether runs of 32 columns share scales: groups has the group of each."""
    if len(groups) % _BLOCK:
        return False
    runs = groups.reshape(-1, _BLOCK)
    return bool((runs == runs[:, :1]).all())


def _types(source: Integers) -> tuple[tuple[str, ...], bool]:
    """The types that hold all numbers, the smallest first, and whether they hold all scales too."""
    every = np.arange(int(np.prod(source.shape[:-1])))
    zeros, scales = source.zeros(every), source.scales(every)
    lowest, highest = source.span[0] - int(zeros.max()), source.span[1] - int(zeros.min())
    source.release()
    with np.errstate(over="ignore", invalid="ignore"):
        errors, sizes = np.abs(scales.astype(np.float16).astype(np.float32) - scales), np.abs(scales)
        are_held = np.all(errors <= _ROUNDED * np.maximum(sizes, sizes.mean()))  # few may be so small that they vanish
    if not are_held:  # too small or too large for float16, or no numbers
        return (), False
    types = (type for type, (low, high) in _RANGES.items() if low <= lowest and highest <= high)
    return tuple(types), not errors.any()


def _pack(type: str, numbers: np.ndarray, *heads: np.ndarray) -> np.ndarray:
    """Blocks of ggml from numbers [rows, blocks, 32] and float16 scales [rows, blocks], for Q4_1 offsets as well:
    uint8 [rows, bytes]."""
    scales = heads[0]
    head = np.stack(heads, axis=-1).view(np.uint8)
    if type == "Q8_0":
        return np.concatenate([head, numbers.astype(np.int8).view(np.uint8)], axis=-1).reshape(len(scales), -1)
    codes = numbers if type == "Q4_1" else (numbers - _RANGES[type][0]).astype(np.uint8)
    nibbles = codes[..., :16] & 15 | codes[..., 16:] << 4
    fifth = [np.packbits(codes >> 4, axis=-1, bitorder="little")] if type == "Q5_0" else []
    return np.concatenate([head, *fifth, nibbles], axis=-1).reshape(len(scales), -1)
