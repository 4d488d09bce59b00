"""Fields of some bits, one after another from the low end of the first word or byte on."""

from __future__ import annotations

import numpy as np


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` fields of each row of uint8 [rows, bytes]: uint8 [rows, count]. bits: 1 to 8."""
    if bits == 8:
        return packed[:, :count]
    if bits in (2, 4):
        fields = np.empty((*packed.shape, 8 // bits), np.uint8)
        for i in range(8 // bits):
            fields[..., i] = packed >> (bits * i) & ((1 << bits) - 1)
    else:
        digits = np.unpackbits(packed, axis=1, bitorder="little")[:, : bits * count].reshape(len(packed), count, bits)
        fields = (digits << np.arange(bits, dtype=np.uint8)).sum(-1, dtype=np.uint8)
    return fields.reshape(len(packed), -1)[:, :count]


def fields_at(words: np.ndarray, positions: np.ndarray, bits: int) -> np.ndarray:
    """Fields that begin at these bits of each row of uint32 [rows, words]: int32 [rows, positions]."""
    word, shift = positions // 32, (positions % 32).astype(np.uint64)
    after = np.minimum(word + 1, words.shape[1] - 1)
    pairs = words[:, word].astype(np.uint64) | words[:, after].astype(np.uint64) << np.uint64(32)
    return (pairs >> shift & np.uint64((1 << bits) - 1)).astype(np.int32)


def as_bytes(words: np.ndarray) -> np.ndarray:
    """Rows of words as rows of bytes: uint8 [rows, bytes]."""
    return np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
