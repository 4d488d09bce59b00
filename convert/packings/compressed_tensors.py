"""Checkpoints of compressed-tensors (llm-compressor, vLLM): "quant_method": "compressed-tensors".

weight_packed int32 [N, K b / 32] has whole numbers of b bits along K, stored 2 ** (b - 1) too large, and
weight_zero_point int32 [N b / 32, G], if there is one, zeros in the same way along N. weight_scale is [1], [N, 1] or
[N, G]; weight_g_idx int [K] the group of each column, where groups are not runs. value = scale * (number - zero). In
"int-quantized" checkpoints, `weight` is int8 [N, K], and zeros are int8 [N, 1]. 8-bit floats are as in `fp8`, MXFP4
(uint8 weight_packed) as in `mxfp4`. Source: compressed_tensors/compressors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..json_file import Config
from ..source import SMALL_FLOATS, SourceTensor
from .bits import as_bytes, fields_at, unpack
from .fp8 import WEIGHTS, read_fp8
from .integers import Integers
from .mxfp4 import mxfp4_weight
from .packing import Packing, Parts, floats
from .weight import Weight

_ENDINGS = (".weight", ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_g_idx", ".weight_shape")
_IGNORED = (".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".k_scale", ".v_scale")
_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mxfp4-pack-quantized",
            "mixed-precision", "dense")
_MOST_BITS = 8


def _check(settings: Config) -> None:
    form = settings.get("format") or "dense"
    sparsity = settings.section("sparsity_config").get("format") or "dense"
    if form not in _FORMATS or sparsity != "dense":
        named = str(form if sparsity == "dense" else sparsity)[:40]
        raise settings.error("quantization_config", f"has the format {named!r}; of compressed-tensors, lcpu reads "
                             f"{', '.join(_FORMATS)}")


def _is_packed(tensors: Mapping[str, SourceTensor]) -> bool:
    weight = tensors.get(".weight")
    return ".weight_packed" in tensors or (weight is not None and weight.dtype in ("I8", *WEIGHTS))


def _read(parts: Parts, shape: tuple[int, ...]) -> Integers | Weight:
    packed, weight = parts.tensors.get(".weight_packed"), parts.tensors.get(".weight")
    if packed is not None and packed.dtype == "U8":
        return _read_mxfp4(parts, shape)
    if weight is not None and weight.dtype in SMALL_FLOATS:
        return read_fp8(parts, shape)
    return _read_int8(parts, shape) if packed is None else _read_packed(parts, shape)


def _read_packed(parts: Parts, shape: tuple[int, ...]) -> Integers:
    rows, k = shape
    packed = parts.tensor(".weight_packed", dtypes=("I32",))
    bits = next((bits for bits in range(1, _MOST_BITS + 1) if packed.shape == (rows, -(-k * bits // 32))), None)
    if bits is None:
        raise parts.error(packed, f"has the shape {packed.shape}, which is not that of {rows} x {k} values of 1 to "
                          f"{_MOST_BITS} bits")
    half = 2 ** (bits - 1)
    scales, groups = _scales(parts, rows, k)

    def codes(wanted: np.ndarray) -> np.ndarray:
        return unpack(as_bytes(packed.array()[wanted]), bits, k)

    def zeros(wanted: np.ndarray) -> np.ndarray:
        stored = parts.tensors.get(".weight_zero_point")
        if stored is None or stored.file is None:
            return np.full((len(wanted), scales.shape[-1]), half, np.int32)
        parts.tensor(".weight_zero_point", [(-(-rows * bits // 32), scales.shape[-1])], ("I32",))
        return fields_at(np.ascontiguousarray(stored.array().T).view(np.uint32), wanted * bits, bits).T

    return Integers(shape, (0, 2**bits - 1), codes, lambda wanted: _rows_of(scales, wanted), zeros, groups,
                    parts.release)


def _read_int8(parts: Parts, shape: tuple[int, ...]) -> Integers:
    weight = parts.tensor(".weight", [shape], ("I8",))
    scales, groups = _scales(parts, *shape)

    def zeros(wanted: np.ndarray) -> np.ndarray:
        stored = parts.tensors.get(".weight_zero_point")
        if stored is None or stored.file is None:
            return np.zeros((len(wanted), scales.shape[-1]), np.int32)
        parts.tensor(".weight_zero_point", [scales.shape], ("I8",))
        return np.broadcast_to(stored.array(), (shape[0], scales.shape[-1]))[wanted].astype(np.int32)

    return Integers(shape, (-128, 127), lambda wanted: weight.array()[wanted], lambda wanted: _rows_of(scales, wanted),
                    zeros, groups, parts.release)


def _scales(parts: Parts, rows: int, k: int) -> tuple[SourceTensor, np.ndarray]:
    """The tensor of scales, and the group of each column."""
    scales = parts.scales(".weight_scale")
    count = scales.shape[1] if len(scales.shape) == 2 and scales.shape[1] else 1
    parts.scales(".weight_scale", [(rows, count), (1,), (1, 1)])
    if k % count:
        raise parts.error(scales, f"has {count} groups, which do not divide {k} columns")
    g_idx = parts.tensors.get(".weight_g_idx")
    if g_idx is None or g_idx.file is None:
        return scales, np.arange(k) // (k // count)
    groups = parts.tensor(".weight_g_idx", [(k,)], ("I32", "I64")).array().astype(np.int64)
    if groups.max() >= count or (groups.min() < 0 and groups.max() >= 0):
        raise parts.error(g_idx, f"names groups that are not among the {count} of the layer: damaged")
    return scales, groups if groups.min() >= 0 else np.arange(k) // (k // count)  # -1: runs


def _rows_of(scales: SourceTensor, wanted: np.ndarray) -> np.ndarray:
    found = floats(scales).reshape(-1, scales.shape[-1])
    return found[wanted] if len(found) > 1 else np.broadcast_to(found, (len(wanted), found.shape[1]))


def _read_mxfp4(parts: Parts, shape: tuple[int, ...]) -> Weight:
    *rows, k = shape
    packed = parts.tensor(".weight_packed", [(*rows, k // 2)], ("U8",))
    scales = parts.tensor(".weight_scale", [(*rows, k // 32)], ("U8", "F8_E8M0"))
    return mxfp4_weight(shape, packed, scales, parts.release)


COMPRESSED_TENSORS = Packing("compressed-tensors", _ENDINGS, _is_packed, _read, _check, _IGNORED)
