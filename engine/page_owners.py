"""Which position of a page each byte belongs to, in the layouts of `kernels/pages`.

A page may hold keys and values of an earlier text behind those of its own, and what is behind a head that does not fill
its vectors. This tells them apart, where a page is to be seen elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..kernels.activations import BLOCK
from ..kernels.matmul import padded_width
from ..kernels.pages import POSITIONS
from ..kernels.simd import LANES

NOBODY = POSITIONS  # the owner of bytes that nothing reads
_GROUP = 4  # bytes next to each other: dimensions of a Q8_0 key, positions of Q8_0 values

Owners = Callable[[int], np.ndarray]


def owners(keys: str, values: str, head_dim: int) -> np.ndarray:
    """The position of each byte of a head's keys and then values, of these types: int64 [bytes]"""
    return np.concatenate([_KEYS[keys](head_dim), _VALUES[values](head_dim)])


def _spread(positions: np.ndarray, *shape: int) -> np.ndarray:
    return np.broadcast_to(positions, shape).reshape(-1)


def _f16_keys(head_dim: int) -> np.ndarray:
    """[panel][dimension][position of the panel][2 bytes]"""
    panels = np.arange(POSITIONS).reshape(-1, 1, LANES, 1)
    return _spread(panels, len(panels), head_dim, LANES, 2)


def _f16_values(head_dim: int) -> np.ndarray:
    """[panel][position][dimension of the panel][2 bytes], with whole vectors for the last dimensions"""
    dimensions = np.arange(padded_width(head_dim)).reshape(-1, 1, LANES, 1)
    positions = np.arange(POSITIONS).reshape(1, -1, 1, 1)
    return _spread(np.where(dimensions < head_dim, positions, NOBODY), len(dimensions), POSITIONS, LANES, 2)


def _q8_0_keys(head_dim: int) -> np.ndarray:
    """[panel][block]: the scales of all positions [LANES][2 bytes], then [group of dimensions][LANES][4]"""
    panels = np.arange(POSITIONS).reshape(-1, LANES)
    scales, codes = np.repeat(panels, 2, axis=1), np.tile(np.repeat(panels, _GROUP, axis=1), BLOCK // _GROUP)
    blocks = np.concatenate([scales, codes], axis=1)[:, None]
    return _spread(blocks, len(panels), head_dim // BLOCK, blocks.shape[-1])


def _q8_0_values(head_dim: int) -> np.ndarray:
    """[panel][group of positions][dimension of the panel][4], then a scale for each position [4 bytes]"""
    width, groups = padded_width(head_dim), np.arange(POSITIONS).reshape(1, -1, 1, _GROUP)
    dimensions = np.arange(width).reshape(-1, 1, LANES, 1)
    codes = _spread(np.where(dimensions < head_dim, groups, NOBODY), width // LANES, groups.shape[1], LANES, _GROUP)
    return np.concatenate([codes, np.repeat(np.arange(POSITIONS), 4)])


_KEYS: dict[str, Owners] = {"f16": _f16_keys, "q8_0": _q8_0_keys}
_VALUES: dict[str, Owners] = {"f16": _f16_values, "q8_0": _q8_0_values}
