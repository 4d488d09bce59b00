"""The engine against a llama written out in NumPy, float64, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.llm import LLM

TOKENS = np.random.default_rng(3).integers(3, 286, 150).tolist()


def read_f32(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata without the prefix "llama.", and tensors."""
    with GGUFFile.open(path) as file:
        metadata = {key.removeprefix("llama."): value for key, value in file.metadata.items()}
        return metadata, {name: file.data(name).view(np.float32).reshape(info.shape).astype(np.float64)
                          for name, info in file.tensors.items()}


def angles(m: Mapping[str, Any], position: int, factors: np.ndarray | float) -> tuple[np.ndarray, float]:
    """The angle of each pair of values at a position, and what multiplies cosines and sines."""
    dimensions = m["rope.dimension_count"]
    base = m.get("rope.freq_base", 10000.0)
    frequencies = base ** (-2 * np.arange(dimensions // 2) / dimensions) / factors
    kind, factor = m.get("rope.scaling.type"), m.get("rope.scaling.factor", 1.0)
    if kind == "linear":
        return position * frequencies / factor, 1.0
    if kind != "yarn":
        return position * frequencies, 1.0
    # YaRN: pairs that turn 32 times or more within the original context stay, those of less than one are divided.
    original = m["rope.scaling.original_context_length"]
    fast, slow = (dimensions * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1))
    low, high = max(math.floor(fast), 0), min(math.ceil(slow), dimensions - 1)
    divided = np.clip((np.arange(dimensions // 2) - low) / (high - low), 0, 1)
    return position * (frequencies * (1 - divided) + frequencies / factor * divided), 1 + 0.1 * math.log(factor)


def rotate(x: np.ndarray, turn: np.ndarray, magnitude: float) -> np.ndarray:
    """x: [heads][head size]. Neighbouring values rotate; what has no angle stays."""
    out = x.copy()
    for i, angle in enumerate(turn):
        a, b = x[:, 2 * i], x[:, 2 * i + 1]
        out[:, 2 * i] = magnitude * (a * math.cos(angle) - b * math.sin(angle))
        out[:, 2 * i + 1] = magnitude * (a * math.sin(angle) + b * math.cos(angle))
    return out


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / math.sqrt(np.mean(x**2) + epsilon) * weight


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def float16(x: np.ndarray) -> np.ndarray:
    """What attention keeps of queries, keys and values."""
    return x.astype(np.float16).astype(np.float64)


def llama(path: Path, tokens: list[int], seen: dict[str, list[np.ndarray]] | None = None) -> np.ndarray:
    """The logits after each token, float64 [len(tokens)][vocab]. seen: gets what each tensor was multiplied with."""
    m, w = read_f32(path)
    heads, kv_heads = m["attention.head_count"], m["attention.head_count_kv"]
    epsilon = m["attention.layer_norm_rms_epsilon"]
    cache: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in range(m["block_count"])]
    logits = []
    for position, token in enumerate(tokens):
        turn, magnitude = angles(m, position, w.get("rope_freqs.weight", 1.0))
        x = w["token_embd.weight"][token]
        for layer, (keys, values) in enumerate(cache):
            def linear(name: str, x: np.ndarray, layer: int = layer) -> np.ndarray:
                if seen is not None:
                    seen.setdefault(f"blk.{layer}.{name}.weight", []).append(x)
                return w[f"blk.{layer}.{name}.weight"] @ x + w.get(f"blk.{layer}.{name}.bias", 0.0)

            normed = rms_norm(x, w[f"blk.{layer}.attn_norm.weight"], epsilon)
            q = rotate(linear("attn_q", normed).reshape(heads, -1), turn, magnitude)
            keys.append(float16(rotate(linear("attn_k", normed).reshape(kv_heads, -1), turn, magnitude)))
            values.append(float16(linear("attn_v", normed).reshape(kv_heads, -1)))
            attended = []
            for head in range(heads):
                group = head // (heads // kv_heads)
                scores = [key[group] @ float16(q[head]) / math.sqrt(q.shape[1]) for key in keys]
                attended.append(softmax(np.array(scores)) @ np.array([value[group] for value in values]))
            x = x + linear("attn_output", np.concatenate(attended))
            normed = rms_norm(x, w[f"blk.{layer}.ffn_norm.weight"], epsilon)
            gate = linear("ffn_gate", normed)
            x = x + linear("ffn_down", gate / (1 + np.exp(-gate)) * linear("ffn_up", normed))
        normed = rms_norm(x, w["output_norm.weight"], epsilon)
        output = "output.weight" if "output.weight" in w else "token_embd.weight"
        if seen is not None:
            seen.setdefault(output, []).append(normed)
        logits.append(w[output] @ normed)
    return np.array(logits)


YARN = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 64, "llama.rope.freq_base": 100.0}
LLAMAS: dict[str, dict[str, Any]] = {
    "plain": {"kv_heads": 4},
    "grouped queries": {},
    "one KV head": {"heads": 6, "kv_heads": 1},
    "many queries for a KV head": {"heads": 20, "kv_heads": 1},
    "tied embeddings": {"tensors": {"output.weight": None}},
    "biases": {"biases": True},
    "frequency factors": {"head_dim": 16,
                          "tensors": {"rope_freqs.weight": np.array([1, 1, 1, 2, 4, 8, 8, 8], np.float32)}},
    "linear scaling": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 3.0},
    "YaRN": {"head_dim": 32, **YARN},
    "YaRN of a part of each head": {"head_dim": 32, "llama.rope.dimension_count": 20, **YARN},
    "a part of each head rotates": {"head_dim": 24, "llama.rope.dimension_count": 10},
    "large rotary base": {"head_dim": 64, "llama.rope.freq_base": 5e5},
    "heads wider than the embedding": {"heads": 5, "kv_heads": 5, "head_dim": 26},
    "rows that fill no panel": {"embedding": 45, "feed_forward": 71, "heads": 3, "kv_heads": 3, "head_dim": 10,
                                "vocab": 299},
    "one layer": {"layers": 1},
    "large epsilon": {"llama.attention.layer_norm_rms_epsilon": 0.5},
}


@pytest.mark.parametrize("changes", LLAMAS.values(), ids=LLAMAS.keys())
def test_llama(write_llama: Callable[..., Path], changes: dict[str, Any]) -> None:
    path = write_llama(context=256, **changes)
    expected = llama(path, TOKENS)
    assert expected.std() > 0.2
    with LLM.load(path, threads=2) as llm:
        assert np.abs(llm.logits(TOKENS) - expected).max() < 0.01


def optional(changes: dict[str, Any]) -> set[str]:
    """The changes without which the same weights still make a model."""
    return {key for key in changes if key in ("tensors", "biases") or ("." in key and "dimension_count" not in key)}


@pytest.mark.parametrize("changes", [c for c in LLAMAS.values() if optional(c)],
                         ids=[name for name, c in LLAMAS.items() if optional(c)])
def test_each_option_matters(write_llama: Callable[..., Path], changes: dict[str, Any]) -> None:
    """Else the test above could not tell whether the engine heeds it."""
    plain = {key: value for key, value in changes.items() if key not in optional(changes)}
    with_it, without = (llama(write_llama(context=256, **c), TOKENS[:40]) for c in (changes, plain))
    assert np.abs(with_it - without).max() > 0.1
