"""MXFP4 checkpoints (gpt-oss): "quant_method": "mxfp4". GGUF's MXFP4 holds them as they are.

X_blocks is uint8 [..., N, K / 32, 16]: byte i of a block has values 2 i and 2 i + 1, the first in its low 4 bits, as
codes of E2M1. X_scales is uint8 [..., N, K / 32], the exponents of blocks: 2 ** (e - 127). In GGUF's blocks, byte i has
values i and i + 16; the exponent is the same byte, since its levels are twice as large and its bias is 128.
Source: transformers' integrations/mxfp4.py, ggml's block_mxfp4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ..source import SourceTensor, as_float32
from .packing import Packing, Parts
from .weight import Weight

_LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_HALF = 16  # bytes of a block


def _is_packed(tensors: Mapping[str, SourceTensor]) -> bool:
    return "_blocks" in tensors


def _read(parts: Parts, shape: tuple[int, ...]) -> Weight:
    *rows, k = shape
    blocks = parts.tensor("_blocks", [(*rows, k // 32, _HALF), (*rows, k // 2)], ("U8",))
    scales = parts.tensor("_scales", [(*rows, k // 32)], ("U8", "F8_E8M0"))
    return mxfp4_weight(shape, blocks, scales, parts.release)


def mxfp4_weight(shape: tuple[int, ...], blocks: SourceTensor, scales: SourceTensor, release: Callable[[], None]
                 ) -> Weight:
    """A weight of such blocks and exponents."""
    count = math.prod(shape[:-1])

    def parts(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [rows, blocks, 32] and exponents [rows, blocks]."""
        packed = blocks.array().reshape(count, -1, _HALF)[wanted]
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], 2 * _HALF)
        return codes, scales.array().reshape(count, -1)[wanted]

    def values(wanted: np.ndarray) -> np.ndarray:
        codes, exponents = parts(wanted)
        return (_LEVELS[codes] * as_float32(exponents, "F8_E8M0")[..., None]).reshape(len(wanted), -1)

    def packed(type: str, wanted: np.ndarray) -> np.ndarray:
        codes, exponents = parts(wanted)
        nibbles = codes[..., :_HALF] | codes[..., _HALF:] << 4
        return np.concatenate([exponents[..., None], nibbles], axis=-1).reshape(len(wanted), -1)

    return Weight(shape, values, ("MXFP4",), blocks=packed, release=release)


MXFP4 = Packing("MXFP4", ("_blocks", "_scales"), _is_packed, _read, weight_ending="", takes_stacks=True)
