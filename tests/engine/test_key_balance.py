"""Factors of keys: what they are, and how much they bring where dimensions of keys differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine import key_balance
from lcpu.engine.llm import LLM

from .test_experts import Mixture

WriteLlama = Callable[..., Path]
SHAPE = {"embedding": 64, "heads": 4, "kv_heads": 2, "head_dim": 32, "context": 256}
TOKENS = np.random.default_rng(5).integers(3, 286, 200).tolist()
Q8_0 = ("q8_0", "q8_0")


def factors_of(path: Path) -> np.ndarray:
    """Of the first layer: float64 [kv_heads][2][head_dim]."""
    with LLM.load(path, cache_types=Q8_0) as llm:
        return llm._model._builder.balances[0].factors.astype(np.float64)


def with_large_biases(write_llama: WriteLlama) -> Path:
    """A Qwen 2 whose keys have a few dimensions that are a hundred times as large as the others."""
    bias = np.zeros((2, 32), np.float32)
    bias[0, [3, 7, 30]] = 150, -90, 40
    bias[1, [12, 31]] = 120, 60
    tensors = {f"blk.{layer}.attn_k.bias": bias.ravel() for layer in range(2)}
    return write_llama(architecture="qwen2", tensors=tensors, **SHAPE)


def test_queries_and_keys_are_multiplied_by_inverses(write_llama: WriteLlama) -> None:
    for architecture in ("llama", "qwen2", "qwen3", "bitnet"):
        queries, keys = factors_of(write_llama(architecture=architecture, **SHAPE)).swapaxes(0, 1)
        np.testing.assert_allclose(queries * keys, 1, rtol=1e-6)


def test_the_size_of_a_dimension_is_its_bias_and_three_deviations(write_llama: WriteLlama) -> None:
    random = np.random.default_rng(1)
    weight, gain, bias = (random.standard_normal(shape).astype(np.float32) for shape in ((64, 64), (64,), (64,)))
    tensors = {"blk.0.attn_k.weight": weight, "blk.0.attn_norm.weight": gain, "blk.0.attn_k.bias": bias}
    wanted = np.abs(bias.reshape(2, 2, 16)), np.linalg.norm(weight * gain, axis=1).reshape(2, 2, 16)
    both = [np.hypot(each[:, 0], each[:, 1]) for each in wanted]  # value i of the first half turns with i of the second
    size = both[0] + 3 * both[1]
    found = factors_of(write_llama(architecture="qwen2", tensors=tensors, **SHAPE))[:, 0].reshape(2, 2, 16)
    np.testing.assert_allclose(found[:, 0], size, rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], size, rtol=1e-5)


def test_keys_that_are_normed_have_the_size_of_the_norm(write_llama: WriteLlama) -> None:
    norm = np.repeat([1.0, 4.0], 16).astype(np.float32)
    found = factors_of(write_llama(architecture="qwen3", tensors={"blk.0.attn_k_norm.weight": norm}, **SHAPE))
    np.testing.assert_allclose(found[:, 0], 3 * np.hypot(1, 4), rtol=1e-6)


def test_a_norm_of_whole_keys_leaves_their_dimensions_unlike(write_llama: WriteLlama) -> None:
    random = np.random.default_rng(1)
    weight, norm = (random.standard_normal(shape).astype(np.float32) for shape in ((64, 64), (64,)))
    tensors = {"blk.0.attn_k.weight": weight, "blk.0.attn_norm.weight": np.ones(64, np.float32),
               "blk.0.attn_k_norm.weight": norm}
    mixture = Mixture(embedding=64)
    path = write_llama(architecture="olmoe", tensors=mixture.tensors() | tensors, **SHAPE, **mixture.metadata)
    found = factors_of(path)[:, 0].reshape(2, 2, 16)
    sizes = (np.linalg.norm(weight, axis=1) * np.abs(norm)).reshape(2, 2, 16)
    both = 3 * np.hypot(sizes[:, 0], sizes[:, 1])
    np.testing.assert_allclose(found, np.stack([both, both], axis=1), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_weights_that_say_nothing_leave_keys_alone(write_llama: WriteLlama, value: float) -> None:
    weight = np.full((64, 64), value, np.float32)
    assert (factors_of(write_llama(tensors={"blk.0.attn_k.weight": weight}, **SHAPE)) == 1).all()


def test_large_biases_cost_little_precision(write_llama: WriteLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_large_biases(write_llama)

    def error() -> float:
        with LLM.load(path) as exact, LLM.load(path, cache_types=("q8_0", "f16")) as rounded:
            return float(abs(exact.logits(TOKENS) - rounded.logits(TOKENS)).mean())

    balanced = error()
    monkeypatch.setattr(key_balance, "fill", lambda *ignored: None)
    assert balanced < error() / 3
