"""I2_S tensors in NumPy, as bitnet.cpp lays them out: what the engine's kernels are compared with."""

from __future__ import annotations

import numpy as np


def encode(signs: np.ndarray, scale: float) -> np.ndarray:
    """-1, 0 and 1 times a scale to the bytes of a tensor: uint8 [signs.size / 4 + 32]."""
    codes = (signs.ravel() + 1).astype(np.uint8)
    codes[np.flatnonzero(codes == 1)[::7]] = 3  # means 0 as well
    group, place = np.divmod(np.arange(codes.size), 128)
    data = np.zeros(codes.size // 4 + 32, np.uint8)
    np.bitwise_or.at(data, 32 * group + place % 32, codes << (6 - 2 * (place // 32)).astype(np.uint8))
    data[-32:] = 0xA5  # what is behind the scale means nothing
    data[-32:-28] = np.array([scale], "<f4").view(np.uint8)
    return data


def decode(data: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """The bytes of a tensor to float64 -1, 0 and 1 of its shape, and their scale."""
    crumbs = [data[:-32].reshape(-1, 32) >> shift & 3 for shift in (6, 4, 2, 0)]
    signs = np.array([-1.0, 0.0, 1.0, 0.0])[np.stack(crumbs, axis=1)]
    return signs.reshape(shape), float(data[-32:-28].view("<f4")[0])
