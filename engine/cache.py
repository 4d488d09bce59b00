"""The KV cache: the keys and values of all positions so far, as F16, in preallocated memory."""

from __future__ import annotations

import numpy as np

from ..kernels.attention import POSITIONS
from ..kernels.matmul import whole_groups
from ..kernels.memory import zeros
from ..kernels.simd import LANES
from .hyperparameters import Hyperparameters


class KVCache:
    """For each layer, uint8 [slot][kv head][region]: keys as panels over positions, values as panels over dimensions.

    Memory is reserved for `capacity` positions in each of `slots` sequences. Pages are only taken when they are used.
    """

    def __init__(self, h: Hyperparameters, context: int, slots: int = 1) -> None:
        self.capacity = -(-context // POSITIONS) * POSITIONS
        self.key_bytes = 2 * self.capacity * h.head_dim
        self.value_bytes = 2 * self.capacity * whole_groups(h.head_dim) * LANES
        self._heads = slots * h.head_count_kv
        self.nbytes = 0  # of all layers so far

    def layer(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys and values of one more layer. Called when a layer is built, after its weights are checked."""
        self.nbytes += self._heads * (self.key_bytes + self.value_bytes)
        return zeros((self._heads, self.key_bytes), np.uint8), zeros((self._heads, self.value_bytes), np.uint8)
