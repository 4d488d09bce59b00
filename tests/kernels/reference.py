"""Plain NumPy twins of the kernels: slow, in float64 where rounding is not the point, and obviously right."""

from __future__ import annotations

import gguf
import numpy as np

from lcpu.kernels.activations import MOST_OF_16
from lcpu.kernels.formats import Format

BLOCK = 32  # values that share an activation's scale


def f16(x: np.ndarray) -> np.ndarray:
    """x rounded to the nearest float16, in its own dtype."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(x.dtype)


def bf16(x: np.ndarray) -> np.ndarray:
    """Finite float32 rounded to the nearest bfloat16, half to even."""
    word = x.view(np.uint32)
    return (word + 0x7FFF + (word >> 16 & 1) & 0xFFFF0000).view(np.float32)


def ternary(raw: np.ndarray) -> np.ndarray:
    """I2_S blocks uint8 [rows][bytes] as float32 -1, 0 and 1 [rows][k]."""
    crumbs = [raw.reshape(len(raw), -1, 32) >> shift & 3 for shift in (6, 4, 2, 0)]
    return np.array([-1, 0, 1, 0], np.float32)[np.stack(crumbs, axis=2).reshape(len(raw), -1)]


def few_bits(raw: np.ndarray, bits: int) -> np.ndarray:
    """Q1_0 or Q2_0 blocks uint8 [rows][bytes] as float32 [rows][k]: as libggml 0.25.3 reads them."""
    blocks = raw.reshape(len(raw), -1, 18)
    scales, codes = blocks[..., :2].copy().view(np.float16), np.arange(0, 8, bits, dtype=np.uint8)
    codes = blocks[..., 2:, None] >> codes & (1 << bits) - 1
    levels = np.array([-1, 1] if bits == 1 else [-1, 0, 1, 2], np.float32)[codes]
    return (scales.astype(np.float32) * levels.reshape(*blocks.shape[:2], -1)).reshape(len(raw), -1)


def dequantize(format: Format, raw: np.ndarray) -> np.ndarray:
    """Blocks uint8 [rows][bytes] as float32 [rows][k], by the gguf package; ternary ones without their scale."""
    if format.name == "i2_s":
        return ternary(raw)
    if format.name in ("q1_0", "q2_0"):  # gguf 0.19 cannot dequantize them
        return few_bits(raw, int(format.name[1]))
    plain = {"f32": np.float32, "f16": np.float16}
    stored = raw.view(plain[format.name]) if format.name in plain else raw
    with np.errstate(invalid="ignore"):
        return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType(format.type_id)).astype(np.float32)


def quantize(x: np.ndarray, offset: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [tokens][k] -> int8 [tokens][k / 32][32], float32 scales [tokens][k / 32], int32 biases [..][32 / group].

    A block that has no finite peak has a NaN for its scale, and then its other numbers mean nothing.
    """
    blocks = x.reshape(len(x), -1, BLOCK)
    peak = abs(blocks).max(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(peak > 0, np.float32(127) / peak, np.float32(0))
        values = np.rint(blocks * inverse[..., None]).astype(np.int8)
        scales = f16(np.where(np.isfinite(peak), peak / np.float32(127), np.float32("nan")))
        sums = values.reshape(*peak.shape, -1, group).sum(axis=3, dtype=np.int32)
        return values, scales, -offset * sums


def quantize_large(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """float32 [tokens][k] -> int8 [tokens][k / 256][256], float32 scales [tokens][k / 256], and int16: minus the sums
    of each 32 values [tokens][k / 256][8], and -32 times those of each 16 [tokens][k / 256][16].

    A block that has no finite peak has a NaN for its scale, and then its other numbers mean nothing.
    """
    blocks = x.reshape(len(x), -1, 256)
    peak = abs(blocks).max(axis=2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(peak > 1e-36, np.float32(127) / peak, np.float32(0))
        sums = abs(np.rint(blocks * inverse[..., None])).reshape(*peak.shape, 16, 16).sum(axis=3).max(axis=2)
        inverse = np.where(sums > MOST_OF_16, inverse * (np.float32(1006) / sums), inverse)
        values = np.rint(blocks * inverse[..., None]).astype(np.int8)
        scales = np.where(peak > 1e-36, np.float32(1) / inverse, np.float32(0))
        scales = np.where(np.isfinite(peak), scales, np.float32("nan"))
    groups = values.reshape(*peak.shape, 16, 16).sum(axis=3, dtype=np.int16)
    return values, scales, -(groups[..., ::2] + groups[..., 1::2]), -32 * groups


def quantize_rows(x: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [tokens][k] -> int8 [tokens][k], float32 scales [tokens], int32 biases [tokens]."""
    peak = np.maximum(abs(x).max(axis=1), np.float32(1e-5))
    values = np.rint(x * (np.float32(127) / peak)[:, None]).astype(np.int8)
    return values, peak / np.float32(127), -offset * values.sum(axis=1, dtype=np.int32)


def error_weights(x: np.ndarray, importance: np.ndarray, block: int) -> np.ndarray:
    """What squared errors of values [..., row length] count, in blocks: `kernels.quantizing.weigh`."""
    blocks = x.reshape(-1, block).astype(np.float64)
    means = (blocks**2).mean(axis=1, keepdims=True)
    factor = np.sqrt(8 / 9 + blocks**2 / np.where(means > 0, 9 * means, 1)).reshape(x.shape)
    return (factor * importance).astype(np.float32)


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + epsilon) * weight


def silu_multiply(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate = gate.astype(np.float64)
    return gate / (1 + np.exp(-gate)) * up


def clamped_swish_multiply(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """float64"""
    gate, up = np.minimum(gate.astype(np.float64), 7), np.clip(up.astype(np.float64), -7, 7)
    return gate / (1 + np.exp(-1.702 * gate)) * (up + 1)


def gelu_multiply(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate = gate.astype(np.float64)
    return gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up


def relu_squared_multiply(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    return np.maximum(gate.astype(np.float64), 0) ** 2 * up


def rope(x: np.ndarray, positions: np.ndarray, angles: np.ndarray, halves: bool) -> np.ndarray:
    """x [tokens][heads][head_dim], angles [context][pairs]: each pair is a complex number to be turned."""
    x = x.astype(np.float64)
    pairs = angles.shape[1]
    first = np.arange(pairs) if halves else 2 * np.arange(pairs)
    second = first + (pairs if halves else 1)
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles[positions])[:, None, :]
    x[..., first], x[..., second] = turned.real, turned.imag
    return x


def attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float, cap: float = 0.0,
              sink: float | None = None) -> np.ndarray:
    """One query [head_dim] over the keys and values [positions][head_dim] that it may see."""
    scores = keys.astype(np.float64) @ q.astype(np.float64) * scale
    if cap:
        scores = cap * np.tanh(scores / cap)
    weights = np.exp(scores - scores.max())
    return weights @ values.astype(np.float64) / (weights.sum() + (0 if sink is None else np.exp(sink - scores.max())))
