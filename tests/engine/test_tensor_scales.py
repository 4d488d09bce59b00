"""Scales of matrices in tensors of their own, and vectors that are not float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

from .test_identity import same

WriteLlama = Callable[..., Path]
SHAPE = {"embedding": 128, "feed_forward": 64, "heads": 4, "kv_heads": 2, "head_dim": 32}
TOKENS = np.random.default_rng(5).integers(3, 286, 30).tolist()
MIXTURE = {"llama.expert_count": 3, "llama.expert_used_count": 2}


def logits(path: Path, **options: object) -> np.ndarray:
    with LLM.load(path, threads=2, **options) as llm:
        return llm.logits(TOKENS)


def nvfp4(name: str, shape: tuple[int, ...], halvings: np.ndarray | int = 0) -> TensorToWrite:
    """Random blocks with scales of about 2 ** -4, halved so many times: those of each matrix of a stack."""
    random = np.random.default_rng(len(name) + sum(shape))
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // 64, 36), dtype=np.uint8)
    codes = random.integers(28, 36, (*blocks.shape[:-1], 4))
    less = np.broadcast_to(halvings, shape[:1] if len(shape) > 2 else ())
    blocks[..., :4] = codes - 8 * less.reshape(-1, *[1] * (codes.ndim - 1)) if less.ndim else codes - 8 * less
    return TensorToWrite(name, shape, 40, blocks)


def one(value: float) -> np.ndarray:
    return np.full(1, value, np.float32)


@pytest.mark.parametrize("output_type", [None, "q8_0"])
def test_a_scale_multiplies(write_llama: WriteLlama, output_type: str | None) -> None:
    """A power of two multiplies without rounding: it might as well be in the blocks."""
    shapes = {"attn_q": (128, 128), "attn_v": (64, 128), "ffn_gate": (64, 128), "ffn_up": (64, 128),
              "ffn_down": (128, 64)}
    names = {f"blk.{layer}.{name}": shape for layer in range(2) for name, shape in shapes.items()}
    names["output"] = (286, 128)
    halved = write_llama(tensors={f"{name}.weight": nvfp4(f"{name}.weight", shape, 1)
                                  for name, shape in names.items()}, **SHAPE)
    plain = {f"{name}.weight": nvfp4(f"{name}.weight", shape) for name, shape in names.items()}
    scaled = write_llama(tensors=plain | {f"{name}.scale": one(0.5) for name in names}, **SHAPE)
    expected = logits(halved, output_type=output_type)
    assert np.ptp(expected) > 0.1
    assert same(logits(scaled, output_type=output_type), expected)
    assert not same(logits(write_llama(tensors=plain, **SHAPE), output_type=output_type), expected)


@pytest.mark.parametrize("fused", [False, True])
def test_each_expert_has_its_own(write_llama: WriteLlama, fused: bool) -> None:
    halvings = np.array([0, 1, 2])
    parts = {"gate_up": (3, 128, 128)} if fused else {"gate": (3, 64, 128), "up": (3, 64, 128)}
    parts["down"] = (3, 128, 64)
    names = {f"blk.{layer}.ffn_{part}_exps": shape for layer in range(2) for part, shape in parts.items()}
    router = {f"blk.{layer}.ffn_gate_inp.weight": np.eye(3, 128, dtype=np.float32) for layer in range(2)}
    router |= {f"blk.{layer}.ffn_{part}.weight": None for layer in range(2) for part in ("gate", "up", "down")}
    halved = {f"{name}.weight": nvfp4(f"{name}.weight", shape, halvings) for name, shape in names.items()}
    plain = {f"{name}.weight": nvfp4(f"{name}.weight", shape) for name, shape in names.items()}
    scales = {f"{name}.scale": (0.5 ** halvings).astype(np.float32) for name in names}
    expected = logits(write_llama(tensors=router | halved, **SHAPE, **MIXTURE))
    assert same(logits(write_llama(tensors=router | plain | scales, **SHAPE, **MIXTURE)), expected)
    assert not same(logits(write_llama(tensors=router | plain, **SHAPE, **MIXTURE)), expected)


def test_a_scale_of_the_wrong_shape(write_llama: WriteLlama) -> None:
    weight = nvfp4("blk.0.attn_q.weight", (128, 128))
    path = write_llama(tensors={weight.name: weight, "blk.0.attn_q.scale": np.ones(2, np.float32)}, **SHAPE)
    with pytest.raises(LcpuError, match=r"'blk\.0\.attn_q\.scale' has the shape 2, but the hyperparameters say 1"):
        LLM.load(path)


@pytest.mark.parametrize(("type_id", "dtype"), [(1, "f2"), (24, "i1"), (25, "<i2"), (26, "<i4"), (27, "<i8"),
                                                (28, "<f8"), (30, "bf16")])
def test_norms_of_every_type_of_number(write_llama: WriteLlama, type_id: int, dtype: str) -> None:
    values = np.arange(-16, 16, dtype=np.float32)
    other = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bf16" else values.astype(dtype)
    names = ["blk.0.attn_norm.weight", "output_norm.weight"]
    expected = logits(write_llama(tensors=dict.fromkeys(names, values)))
    stored = {name: TensorToWrite(name, values.shape, type_id, other) for name in names}
    assert same(logits(write_llama(tensors=stored)), expected)


def test_norms_of_blocks_are_refused(write_llama: WriteLlama) -> None:
    norm = TensorToWrite("blk.1.ffn_norm.weight", (32,), 8, np.zeros(34, np.uint8))
    with pytest.raises(LcpuError, match=r"'blk\.1\.ffn_norm\.weight' is Q8_0, but norms, biases and scales must be"):
        LLM.load(write_llama(tensors={norm.name: norm}))
