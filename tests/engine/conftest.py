"""Small models of any shape, architecture and weight format, made on the spot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.engine.llm import LLM
from lcpu.engine.random_model import SCALES, random_blocks

from . import ternary

TYPE_IDS = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "q6_k": 14, "iq4_nl": 20, "bf16": 30, "i2_s": 36, "mxfp4": 39,
            "nvfp4": 40}
Kinds = str | Mapping[str, str]


def tensor_of(name: str, values: np.ndarray, kind: str) -> TensorToWrite:
    """A tensor with float32 `values`, in a format; of those that gguf cannot quantize to, with random blocks.

    Of I2_S, with the values rounded to -1, 0 and 1 times their mean magnitude.
    """
    return TensorToWrite(name, values.shape, TYPE_IDS[kind], _encoded(values, kind))


def _encoded(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "i2_s":
        scale = np.abs(values).mean()
        return ternary.encode(np.clip(np.rint(values / scale), -1, 1), scale)
    if kind not in ("q6_k", "iq4_nl", "nvfp4"):
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType(TYPE_IDS[kind]))
    count = values.size // TENSOR_TYPES[TYPE_IDS[kind]].block_values
    scale = 1 / (SCALES[kind].spread * values.shape[-1] ** 0.5)
    return random_blocks(kind, count, scale, np.random.default_rng(values.size))


def vectors_of(architecture: str, embedding: int, feed_forward: int, q_width: int, kv_width: int,
               head_dim: int) -> dict[str, int]:
    """What a layer of an architecture has more than one of a llama."""
    post_norms = {"post_attention_norm.weight": embedding, "post_ffw_norm.weight": embedding}
    return {
        "llama": {},
        "gemma": {},
        "gemma2": post_norms,
        "gemma3": post_norms | {"attn_q_norm.weight": head_dim, "attn_k_norm.weight": head_dim},
        "qwen2": {"attn_q.bias": q_width, "attn_k.bias": kv_width, "attn_v.bias": kv_width},
        "qwen3": {"attn_q_norm.weight": head_dim, "attn_k_norm.weight": head_dim},
        "olmoe": {"attn_q_norm.weight": q_width, "attn_k_norm.weight": kv_width},
    }.get(architecture, {"attn_sub_norm.weight": q_width, "ffn_sub_norm.weight": feed_forward})


def shapes_of(embedding: int, feed_forward: int, q_width: int, kv_width: int, layers: int, vocab: int,
              vectors: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The tensors of a model; `vectors`: what each layer has more than one of a llama."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, embedding)}
    for layer in range(layers):
        name = f"blk.{layer}."
        shapes |= {
            name + "attn_norm.weight": (embedding,),
            name + "attn_q.weight": (q_width, embedding),
            name + "attn_k.weight": (kv_width, embedding),
            name + "attn_v.weight": (kv_width, embedding),
            name + "attn_output.weight": (embedding, q_width),
            name + "ffn_norm.weight": (embedding,),
            name + "ffn_gate.weight": (feed_forward, embedding),
            name + "ffn_up.weight": (feed_forward, embedding),
            name + "ffn_down.weight": (embedding, feed_forward),
        } | {name + vector: (width,) for vector, width in vectors.items()}
    return shapes | {"output_norm.weight": (embedding,), "output.weight": (vocab, embedding)}


@pytest.fixture(scope="session")
def write_llama(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write_llama(kinds, embedding=..., ...) -> path of a random llama, with the vocabulary of the tiny one.

    architecture: another that the engine runs, with the tensors that it has more than a llama.
    kinds: a format for all matrices, or formats by the ends of tensors' names ("" for the others).
    tensors: what replaces or adds tensors, float32 arrays or TensorToWrite, by name; None removes one.
    Other keywords, with dots, replace metadata, "llama." standing for any architecture; None removes a key.
    """
    with GGUFFile.open(tiny_gguf) as file:
        tiny = dict(file.metadata)

    def write(kinds: Kinds = "f32", *, architecture: str = "llama", embedding: int = 32, feed_forward: int = 64,
              heads: int = 4, kv_heads: int = 2, head_dim: int = 8, layers: int = 2, context: int = 64,
              vocab: int = 286, biases: bool = False,
              tensors: Mapping[str, np.ndarray | TensorToWrite | None] | None = None, **metadata: object) -> Path:
        changes = {
            "general.architecture": architecture,
            "llama.embedding_length": embedding, "llama.feed_forward_length": feed_forward,
            "llama.attention.head_count": heads, "llama.attention.head_count_kv": kv_heads,
            "llama.attention.key_length": head_dim, "llama.rope.dimension_count": head_dim,
            "llama.block_count": layers, "llama.context_length": context, "llama.vocab_size": vocab, **metadata,
        }
        q_width, kv_width = heads * head_dim, kv_heads * head_dim
        shapes = shapes_of(embedding, feed_forward, q_width, kv_width, layers, vocab,
                           vectors_of(architecture, embedding, feed_forward, q_width, kv_width, head_dim))
        if biases:
            shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items() if "attn_" in name
                       and "norm" not in name}
        random = np.random.default_rng(7)
        written = []
        for name, shape in shapes.items():
            values = random.standard_normal(shape, dtype=np.float32)
            values = values / np.float32(shape[-1] ** 0.5) if len(shape) > 1 else 1 + values / 4
            written.append(tensor_of(name, values, _kind_of(name, kinds) if len(shape) > 1 else "f32"))
        replaced = dict.fromkeys(tensors or ())
        replaced |= {name: value if isinstance(value, TensorToWrite) else tensor_of(name, value, "f32")
                     for name, value in (tensors or {}).items() if value is not None}
        written = [t for t in written if t.name not in replaced] + [t for t in replaced.values() if t is not None]
        path = tmp_path_factory.mktemp("llama") / "llama.gguf"
        write_gguf(path, {re.sub(r"^llama\.", f"{architecture}.", key): value
                          for key, value in (tiny | changes).items() if value is not None}, written)
        return path

    return write


def _kind_of(name: str, kinds: Kinds) -> str:
    if isinstance(kinds, str):
        return kinds
    return next(kind for end, kind in kinds.items() if name.endswith(end))


@pytest.fixture(scope="module")
def tiny_llm(tiny_gguf: Path) -> Iterator[LLM]:
    """The tiny model, loaded on two threads, for tests that leave it as it is."""
    with LLM.load(tiny_gguf, threads=2) as llm:
        yield llm
