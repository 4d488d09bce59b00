"""The KV cache: keys and values of every position so far, preallocated as F16."""

from __future__ import annotations

import numpy as np

from ..kernels.attention import POSITIONS
from ..kernels.matmul import whole_groups
from ..kernels.memory import zeros
from ..kernels.simd import LANES
from .hyperparameters import Hyperparameters


class KVCache:
    """For each layer, uint8 [slot][kv head][region]: keys as panels over positions, values as panels over dimensions.

    Memory is reserved for `capacity` positions in each of `slots` sequences, but taken only as positions are used.
    """

    def __init__(self, h: Hyperparameters, context: int, slots: int = 1) -> None:
        self.capacity = -(-context // POSITIONS) * POSITIONS
        self.key_bytes = 2 * self.capacity * h.head_dim
        self.value_bytes = 2 * self.capacity * whole_groups(h.head_dim) * LANES
        self._heads = slots * h.head_count_kv
        self.nbytes = 0  # of all layers so far

    def layer(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of one more layer: made when the layer is built, so that its weights are checked first."""
        self.nbytes += self._heads * (self.key_bytes + self.value_bytes)
        return zeros((self._heads, self.key_bytes), np.uint8), zeros((self._heads, self.value_bytes), np.uint8)
