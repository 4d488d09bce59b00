"""Rotary position embedding: the angle of every position and pair, as tables of cosines and sines.

Source: Su et al., "RoFormer" (arXiv:2104.09864). Scaling for long contexts: linear, YaRN (arXiv:2309.00071), and
factors for each frequency, from tensors: Llama 3.1's, and LongRoPE's two sets (arXiv:2402.13753). Angles follow
llama.cpp's recurrence in float32, so that rotated keys round to the same float16 values as in llama.cpp.
"""

from __future__ import annotations

import math

import numpy as np

from ..kernels.memory import zeros
from .gguf_file import GGUFFile
from .hyperparameters import Hyperparameters

_ROWS = 256  # positions that are computed at once


class RopeTable:
    """float32 [context][pairs][2] of (cos, sin). Rows are filled when their positions are first used."""

    def __init__(self, h: Hyperparameters, context: int, factors: np.ndarray | None = None) -> None:
        self.pairs = h.rope_dimension_count // 2
        self._h, self._factors = h, factors
        rows = -(-context // _ROWS) * _ROWS
        self.array = zeros((rows, self.pairs, 2), np.float32)
        self.filled = 0  # rows

    def extend(self, positions: int) -> None:
        """Fill the rows of positions below `positions`, always in the same pieces, so that values are reproducible."""
        while self.filled < positions:
            end = self.filled + _ROWS
            angles, magnitude = angles_of(self._h, np.arange(self.filled, end), self._factors)
            self.array[self.filled : end, :, 0] = np.cos(angles, dtype=np.float64) * magnitude
            self.array[self.filled : end, :, 1] = np.sin(angles, dtype=np.float64) * magnitude
            self.filled = end


def rope_factors_name(file: GGUFFile, h: Hyperparameters, context: int) -> str | None:
    """The tensor of what divides the angles of each pair, if there is one.

    Of LongRoPE's two it is, as in llama.cpp, the one for long contexts if the context is longer than that of training
    before scaling: keys in the cache are rotated once, so that a text cannot change from one to the other.
    """
    is_long = context > h.rope_scaling.original_context_length
    names = ("rope_freqs.weight", f"rope_factors_{'long' if is_long else 'short'}.weight")
    return next((name for name in names if name in file.tensors), None)


def angles_of(h: Hyperparameters, positions: np.ndarray, factors: np.ndarray | None) -> tuple[np.ndarray, float]:
    """(angles in radians, float32 [positions][pairs]; the factor of cos and sin)."""
    scaling, pairs = h.rope_scaling, h.rope_dimension_count // 2
    ratio = np.float32(h.rope_freq_base) ** np.float32(-1.0 / pairs)
    steps = np.full((len(positions), pairs), ratio, np.float32)
    steps[:, 0] = positions
    plain = np.multiply.accumulate(steps, axis=1)
    if factors is not None:
        plain = plain / factors.astype(np.float32)
    scaled = plain * np.float32(1.0 / scaling.factor)
    if scaling.type != "yarn" or scaling.yarn_extrapolation_factor == 0.0:
        return scaled, scaling.attention_factor
    keep = _yarn_blend(h)
    magnitude = scaling.attention_factor * (1.0 + 0.1 * math.log(scaling.factor))
    return scaled * (1 - keep) + plain * keep, magnitude


def _yarn_blend(h: Hyperparameters) -> np.ndarray:
    """The share of the unscaled angle that each pair keeps, float32 [pairs]: 1 for fast pairs, 0 for slow ones."""
    scaling, dimensions = h.rope_scaling, h.rope_dimension_count

    def pair_with(turns: float) -> float:
        """The index (a fraction) of the pair that makes so many turns within the original context."""
        wavelength = scaling.original_context_length / (turns * 2 * math.pi)
        return dimensions * math.log(wavelength) / (2 * math.log(h.rope_freq_base))

    low, high = pair_with(scaling.yarn_beta_fast), pair_with(scaling.yarn_beta_slow)
    if scaling.yarn_truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(0.0, low), min(dimensions - 1.0, high)
    ramp = np.clip((np.arange(dimensions // 2) - low) / max(0.001, high - low), 0.0, 1.0)
    return ((1.0 - ramp) * scaling.yarn_extrapolation_factor).astype(np.float32)
