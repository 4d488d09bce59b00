"""BitNet checkpoints with packed weights: "quant_method": "bitnet".

`weight` is uint8 [N / 4, K]: bits 2i and 2i + 1 of packed row r are row i * (N / 4) + r, as value + 1, with values -1,
0 and 1. They are multiplied by weight_scale, one number, if "linear_class" is "autobitlinear", and else divided by it.
Source: transformers' integrations/bitnet.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...kernels.errors import LcpuError
from ..json_file import Config
from ..source import FLOATS, SourceTensor
from .packing import Packing, Parts, floats, shown
from .weight import Weight


def _check(settings: Config) -> None:
    if settings.flag("use_rms_norm"):
        raise settings.error("quantization_config", "has use_rms_norm: norms before every matrix are not supported")


def _is_packed(tensors: Mapping[str, SourceTensor]) -> bool:
    return ".weight" in tensors and tensors[".weight"].dtype == "U8"


def _read(parts: Parts, shape: tuple[int, ...]) -> Weight:
    weight = parts.tensor(".weight", [(shape[0] // 4, *shape[1:])], ("U8",))
    if shape[0] % 4:
        raise parts.error(weight, f"is packed, and {shape[0]} rows are not a multiple of 4")
    return ternary_weight(weight, _scale(parts))


def ternary_weight(source: SourceTensor, scale: float) -> Weight:
    """scale times the values of a packed tensor."""
    quarter = source.shape[0]

    def rows(wanted: np.ndarray) -> np.ndarray:
        codes = source.array()[wanted % quarter]  # a copy, which the next lines work in
        codes >>= (2 * (wanted // quarter)).astype(np.uint8)[:, None]
        codes &= 3
        if codes.max(initial=0) > 2:
            raise LcpuError(f"tensor {source.name!r} has values that are not -1, 0 or 1: damaged; download it again")
        made = codes.astype(np.float32)
        made -= 1
        made *= np.float32(scale)
        return made

    return Weight((4 * quarter, *source.shape[1:]), rows, release=source.release, scale=scale)


def _scale(parts: Parts) -> float:
    """What the values of a packed tensor are to be multiplied by."""
    stored = parts.tensor(".weight_scale")
    if math.prod(stored.shape) != 1 or stored.dtype not in FLOATS:
        raise parts.error(stored, f"has the shape {shown(stored.shape)} and type {stored.dtype}, not one float")
    scale = floats(stored).reshape(1)[0]
    if not (np.isfinite(scale) and scale > 0):
        raise parts.error(stored, f"is {scale}, not a positive number: damaged")
    return float(scale if parts.settings.get("linear_class") == "autobitlinear" else 1 / scale)


BITNET = Packing("BitNet", (".weight", ".weight_scale"), _is_packed, _read, _check)
