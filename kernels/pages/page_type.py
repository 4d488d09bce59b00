"""What a type of pages is: sizes, and the functions that store into a page and compute on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import float32

from ..jit import device
from ..simd import LANES, get_f32

POSITIONS = 128  # of a page
NOBODY = POSITIONS  # the owner of bytes that nothing reads


@device
def inverse_sum(results, panels):
    """1 / the sum of a row's weights, which follows its results; 0 if it is 0, as nothing was seen then."""
    sum = get_f32(results + 4 * LANES * panels + 4)
    return float32(0.0) if sum == 0 else float32(1.0) / sum


@dataclass(frozen=True)
class PageType:
    """How keys, or values, of 128 positions of one head are stored. Sizes in bytes are functions of the head's size.

    Keys are a weight matrix with a row for each position, values one with a row for each dimension, both in panels.
    """

    name: str  # as llama.cpp's -ctk and -ctv name it
    multiple: int  # a head must have a multiple of so many dimensions
    balanced: bool  # whether keys and queries are multiplied by factors first (see engine/key_balance.py)
    key_block: int  # dimensions of a block of a key
    value_size: int  # bytes of a value
    scale_size: int  # bytes of the scale of a key or of the values of one position
    key_bytes: Callable[[int], int]
    value_bytes: Callable[[int], int]
    key_owners: Callable[[int], np.ndarray]  # the position that each byte of the keys belongs to, or NOBODY: int64
    value_owners: Callable[[int], np.ndarray]
    query_bytes: Callable[[int], int]  # of a query as multiply_keys takes it
    store_key: Callable[..., Any]  # (keys, position in the page, float32 key, head_dim, float32 factors)
    store_value: Callable[..., Any]  # (values, position in the page, float32 value, head_dim, bytes of a page's values)
    put_query: Callable[..., Any]  # (float32 query, out, head_dim, scale, float32 factors)
    # As matmul.multiplier makes it. One more operand says how many bytes from there what is used next begins.
    multiply_keys: Callable[..., Any]
    # (values, bytes of a page's values, float32 weights, scratch of the same size, out, weights' stride, out's stride,
    # rows, panels, positions, accumulate, bytes to what is used next): out (+)= weights / their sum . values.
    # The sum of all weights of a row, also those of other pages, follows its results and one other float32.
    weighted_mean: Callable[..., Any]
