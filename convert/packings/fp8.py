"""Checkpoints with weights in 8-bit floats: "quant_method": "fp8" (DeepSeek, Qwen, ...), "fbgemm_fp8", "modelopt".

`weight` is E4M3 or E5M2 [N, K]. It is multiplied by weight_scale or weight_scale_inv (which is no inverse, in spite of
its name): of one value, [N] or [N, 1], or [N / 128, K / 128] for blocks, whose last ones may be smaller.
Source: transformers' integrations/finegrained_fp8.py and fbgemm_fp8.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..json_file import Config
from ..source import SourceTensor, as_float32
from .packing import Packing, Parts, floats
from .weight import Weight

WEIGHTS = ("F8_E4M3", "F8_E5M2")
_SCALES = (".weight_scale", ".weight_scale_inv")
_IGNORED = (".input_scale", ".activation_scale", ".input_scale_ub", ".k_scale", ".v_scale", ".q_scale")
_BLOCK = (128, 128)


def _is_packed(tensors: Mapping[str, SourceTensor]) -> bool:
    return ".weight" in tensors and tensors[".weight"].dtype in WEIGHTS


def _check(settings: Config) -> None:
    algorithm = settings.get("quant_algo")
    if algorithm is not None and algorithm != "FP8":
        raise settings.error("quantization_config", f"has the quant_algo {str(algorithm)[:40]!r}; of ModelOpt, lcpu "
                             "reads 'FP8'")


def read_fp8(parts: Parts, shape: tuple[int, ...]) -> Weight:
    """The weight [N, K] of a layer."""
    weight = parts.tensor(".weight", [shape], WEIGHTS)
    ending = next((ending for ending in _SCALES if ending in parts.tensors), _SCALES[0])
    scales = parts.scales(ending)
    rows, k = shape
    height, width = _block(parts.settings)
    blocks = (-(-rows // height), -(-k // width))
    if math.prod(scales.shape) == 1:
        grid, height, width = floats(scales).reshape(1, 1), rows, k
    elif scales.shape in ((rows,), (rows, 1)):
        grid, height, width = floats(scales).reshape(rows, 1), 1, k
    else:
        parts.scales(ending, [blocks])
        grid = floats(scales)
    columns = np.arange(k) // width

    def values(wanted: np.ndarray) -> np.ndarray:
        made = as_float32(weight.array()[wanted], weight.dtype)
        made *= grid[wanted // height][:, columns]
        return made

    return Weight(shape, values, release=parts.release)


def _block(settings: Config) -> tuple[int, int]:
    """How many rows and columns share a scale, where neither a tensor nor a row does."""
    groups = settings.section("config_groups")
    structures = [groups.section(name).section("weights").get("block_structure") for name in groups.values]
    for size in (settings.get("weight_block_size"), *structures):
        if isinstance(size, list) and len(size) == 2 and all(type(each) is int and each > 0 for each in size):
            return size[0], size[1]
    return _BLOCK


FP8 = Packing("FP8", (".weight", *_SCALES), _is_packed, read_fp8, _check, _IGNORED)
