"""Quantized weights as checkpoints pack them, in plain NumPy.

Every packing is `pack(weights, random)` -> the tensors by the ends of their names, and the values, float32 [rows, k].
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lcpu.convert.source import SourceTensor

from .checkpoints import FLOAT8, bfloat16

GROUP = 32
Packed = tuple[dict[str, np.ndarray], np.ndarray]
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]


def source_of(name: str, array: np.ndarray, dtype: str) -> SourceTensor:
    """A tensor as if it lay in a file."""
    data = np.ascontiguousarray(array)
    file: Any = SimpleNamespace(buffer=data.tobytes(), path=Path("model.safetensors"), release=lambda *where: None)
    return SourceTensor(name, data.shape, dtype, file, 0)


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes along the last axis as int32, one after another from the low bits up."""
    rows = []
    for row in codes:
        number = sum(int(code) << bits * i for i, code in enumerate(row))
        rows.append(np.frombuffer(number.to_bytes(len(row) * bits // 8, "little"), "<i4"))
    return np.array(rows)


def grouped(weights: np.ndarray, bits: int, zeros: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, k] and float16 scales [rows, groups], by rounding; zeros is [rows, groups]."""
    scales = np.empty(zeros.shape, np.float16)
    for group in range(zeros.shape[1]):
        peaks = np.abs(weights[:, groups == group]).max(1)
        scales[:, group] = peaks / 2 ** (bits - 1)
    codes = np.round(weights / scales[:, groups].astype(np.float32)) + zeros[:, groups]
    return np.clip(codes, 0, 2**bits - 1).astype(int), scales


def gptq(bits: int = 4, *, symmetric: bool = True, less_one: bool = True, scattered: str = "",
         group: int = GROUP) -> Callable[..., Packed]:
    """group: how many columns share a scale, 0 for all of them.

    scattered: "all" columns are in groups at random, or so within "heads" of 64 columns, all in the same way.
    """

    def pack(weights: np.ndarray, random: np.random.Generator) -> Packed:
        rows, k = weights.shape
        size = group or k
        groups = np.arange(k) // size
        if scattered == "all" or (scattered == "heads" and k % 64):
            groups = random.permutation(groups)
        elif scattered == "heads":
            groups = groups.reshape(-1, 64)[:, random.permutation(64)].ravel()
        middle = np.full((rows, k // size), 2 ** (bits - 1))
        zeros = middle if symmetric else random.integers(0, 2**bits, middle.shape)
        codes, scales = grouped(weights, bits, zeros, groups)
        values = scales[:, groups].astype(np.float32) * (codes - zeros[:, groups]).astype(np.float32)
        stored = words(zeros.T, bits)
        if less_one and bits == 3:
            stored = words((zeros.T - 1) % 8, bits)
        elif less_one:  # a zero of 0 borrows from the next one in the word
            stored = (stored.view(np.uint32) - np.uint32(sum(1 << i for i in range(0, 32, bits)))).view(np.int32)
        tensors = {".qweight": words(codes, bits).T, ".qzeros": stored, ".scales": scales.T,
                   ".g_idx": groups.astype(np.int32)}
        return {ending: np.ascontiguousarray(array) for ending, array in tensors.items()}, values

    return pack


def awq(weights: np.ndarray, random: np.random.Generator) -> Packed:
    rows, k = weights.shape
    groups = np.arange(k) // GROUP
    zeros = random.integers(0, 16, (rows, k // GROUP))
    codes, scales = grouped(weights, 4, zeros, groups)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # the column in each nibble of a word

    def packed(columns: np.ndarray) -> np.ndarray:
        return words(columns.reshape(len(columns), -1, 8)[..., order].reshape(columns.shape), 4)

    values = scales[:, groups].astype(np.float32) * (codes - zeros[:, groups]).astype(np.float32)
    tensors = {".qweight": packed(codes.T), ".qzeros": packed(zeros.T), ".scales": np.ascontiguousarray(scales.T)}
    return tensors, values


def compressed(bits: int, *, symmetric: bool = True) -> Callable[..., Packed]:
    def pack(weights: np.ndarray, random: np.random.Generator) -> Packed:
        rows, k = weights.shape
        groups = np.arange(k) // GROUP
        middle = np.full((rows, k // GROUP), 2 ** (bits - 1))
        zeros = middle if symmetric else random.integers(0, 2**bits, middle.shape)
        codes, scales = grouped(weights, bits, zeros, groups)
        stored = bfloat16(scales.astype(np.float32))
        scales = (stored.astype(np.uint32) << 16).view(np.float32)
        tensors = {".weight_packed": words(codes, bits), ".weight_scale": stored,
                   ".weight_shape": np.array([rows, k], np.int64)}
        if not symmetric:
            tensors[".weight_zero_point"] = np.ascontiguousarray(words(zeros.T, bits).T)
        return tensors, scales[:, groups] * (codes - zeros[:, groups]).astype(np.float32)

    return pack


def int8_rows(weights: np.ndarray, random: np.random.Generator) -> Packed:
    """compressed-tensors' "int-quantized"."""
    scales = (np.abs(weights).max(1, keepdims=True) / 127).astype(np.float16)
    codes = np.clip(np.round(weights / scales.astype(np.float32)), -128, 127).astype(np.int8)
    return {".weight": codes, ".weight_scale": scales}, codes * scales.astype(np.float32)


def int8_scb(weights: np.ndarray, random: np.random.Generator) -> Packed:
    """bitsandbytes of 8 bits, whose scales float16 does not hold."""
    peaks = np.abs(weights).max(1)
    codes = np.round(weights / peaks[:, None] * 127).astype(np.int8)
    tensors = {".weight": codes, ".SCB": peaks, ".weight_format": np.zeros((), np.uint8)}
    return tensors, (codes * (peaks[:, None].astype(np.float64) / 127)).astype(np.float32)


def nf4(weights: np.ndarray, random: np.random.Generator) -> Packed:
    runs = weights.reshape(-1, 64)
    peaks = np.abs(runs).max(1)
    levels = np.array(NF4, np.float32)
    codes = np.abs(runs[..., None] / peaks[:, None, None] - levels).argmin(-1)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weights.shape)}
    tensors = {
        ".weight": (codes.reshape(-1, 2) @ [16, 1]).astype(np.uint8)[:, None], ".weight.absmax": peaks,
        ".weight.quant_map": levels,
        ".weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }  # fmt: skip
    return tensors, (levels[codes] * peaks[:, None]).reshape(weights.shape)


def float8(weights: np.ndarray, random: np.random.Generator) -> Packed:
    """Blocks of 128 rows and columns, of which a small matrix has but one, cut off."""
    scale = np.array([[np.abs(weights).max() / 448]], np.float32)
    codes = np.arange(127)
    levels = np.where(codes < 8, codes * 2.0**-9, (8 + codes % 8) * 2.0 ** (codes // 8 - 10))
    nearest = np.abs(np.abs(weights / scale)[..., None] - levels).argmin(-1)
    negative = weights < 0
    values = np.where(negative, -levels[nearest], levels[nearest]).astype(np.float32) * scale
    stored = np.where(negative, nearest + 128, nearest).astype(np.uint8)
    return {".weight": stored.view(FLOAT8), ".weight_scale_inv": scale}, values


def mxfp4(weights: np.ndarray, random: np.random.Generator) -> Packed:
    """compressed-tensors' "mxfp4-pack-quantized"."""
    runs = weights.reshape(len(weights), -1, 32)
    exponents = np.floor(np.log2(np.abs(runs).max(-1))) - 2
    scaled = runs / 2 ** exponents[..., None]
    codes = np.abs(scaled[..., None] - np.array(E2M1)).argmin(-1)
    values = (np.array(E2M1)[codes] * 2 ** exponents[..., None]).astype(np.float32).reshape(weights.shape)
    tensors = {".weight_packed": (codes.reshape(len(weights), -1, 2) @ [1, 16]).astype(np.uint8),
               ".weight_scale": (exponents + 127).astype(np.uint8)}
    return tensors, values


def packed_model(tensors: dict[str, np.ndarray], pack: Callable[..., Packed], seed: int = 0
                 ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A model with its linear layers packed, and the float model that it means."""
    random = np.random.default_rng(seed)
    stored, meant = {}, {}
    for name, array in tensors.items():
        if "_proj.weight" not in name and ".experts." not in name:
            stored[name] = meant[name] = array
            continue
        parts, meant[name] = pack(array, random)
        stored |= {name.removesuffix(".weight") + ending: part for ending, part in parts.items()}
    return stored, meant
