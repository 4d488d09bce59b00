"""The KV cache: keys and values of every position so far, preallocated as F16."""

from __future__ import annotations

import numpy as np

from ..kernels.attention import POSITIONS
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
        self.value_bytes = 2 * self.capacity * (-(-h.head_dim // LANES) * LANES)
        heads = slots * h.head_count_kv
        self.keys = [zeros((heads, self.key_bytes), np.uint8) for _ in range(h.block_count)]
        self.values = [zeros((heads, self.value_bytes), np.uint8) for _ in range(h.block_count)]
