"""Models with random weights in the shapes of real models: they measure a machine's speed without a download.

The bytes of a tensor are made from a small pool of random blocks whenever they are requested, and are not kept. So
loading such a model takes little more memory than its packed weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS, Format
from ..kernels.memory import size_text, zeros
from .gguf_file import GGUFFile, TensorInfo
from .gguf_metadata import Value
from .gguf_types import TENSOR_TYPES
from .memory import room

Key: TypeAlias = "str | int | float | tuple[int, ...]"


@dataclass(frozen=True)
class Shape:
    """The hyperparameters of a model, by default a llama."""

    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocab: int
    context: int
    rope_base: float
    tied: bool = False  # the output layer is the embedding table
    architecture: str = "llama"
    head_dim: int = 0  # of each head; 0: the embedding is cut into heads
    experts: int = 0
    experts_used: int = 0  # by a token
    keys: tuple[tuple[str, Key], ...] = ()  # more metadata, without "<architecture>."

    @property
    def head(self) -> int:
        return self.head_dim or self.embedding // self.heads

    @property
    def counts(self) -> dict[str, int]:
        """Of `keys`, those with whole numbers."""
        return {name: value for name, value in self.keys if isinstance(value, int)}


def _delta_nets(key_heads: int, value_heads: int) -> tuple[tuple[str, Key], ...]:
    """The keys of Qwen 3.5."""
    return (("rope.dimension_count", 64), ("rope.dimension_sections", (11, 11, 10, 0)), ("ssm.conv_kernel", 4),
            ("ssm.state_size", 128), ("ssm.group_count", key_heads), ("ssm.time_step_rank", value_heads),
            ("ssm.inner_size", 128 * value_heads), ("full_attention_interval", 4))


SHAPES = {
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 49152, 8192, 1e5, tied=True),
    "tinyllama-1.1b": Shape(22, 2048, 5632, 32, 4, 32000, 2048, 1e4),
    "llama3.2-1b": Shape(16, 2048, 8192, 32, 8, 128256, 131072, 5e5, tied=True),
    "llama3.2-3b": Shape(28, 3072, 8192, 24, 8, 128256, 131072, 5e5, tied=True),
    "llama2-7b": Shape(32, 4096, 11008, 32, 32, 32000, 4096, 1e4),
    "llama3-8b": Shape(32, 4096, 14336, 32, 8, 128256, 8192, 5e5),
    "gemma3-1b": Shape(26, 1152, 6912, 4, 1, 262144, 32768, 1e6, tied=True, architecture="gemma3", head_dim=256,
                       keys=(("attention.sliding_window", 512),)),
    "gemma3-4b": Shape(34, 2560, 10240, 8, 4, 262144, 131072, 1e6, tied=True, architecture="gemma3", head_dim=256,
                       keys=(("attention.sliding_window", 1024), ("rope.scaling.type", "linear"),
                             ("rope.scaling.factor", 8.0))),
    "phi4-mini": Shape(32, 3072, 8192, 24, 8, 200064, 131072, 1e4, tied=True, architecture="phi3",
                       keys=(("rope.dimension_count", 96), ("rope.scaling.original_context_length", 4096))),
    "qwen35-0.8b": Shape(24, 1024, 3584, 8, 2, 248320, 262144, 1e7, tied=True, architecture="qwen35", head_dim=256,
                         keys=_delta_nets(key_heads=16, value_heads=16)),
    "qwen35-4b": Shape(32, 2560, 9216, 16, 4, 248320, 262144, 1e7, tied=True, architecture="qwen35", head_dim=256,
                       keys=_delta_nets(key_heads=16, value_heads=32)),
    "llama3-70b": Shape(80, 8192, 28672, 64, 8, 128256, 8192, 5e5),
    # An eighth of the layers: 6 of 48, and 3 of 24.
    "qwen3-30b-a3b-eighth": Shape(6, 2048, 768, 32, 4, 151936, 40960, 1e6, architecture="qwen3moe", head_dim=128,
                                  experts=128, experts_used=8),
    "gpt-oss-20b-eighth": Shape(3, 2880, 2880, 64, 8, 201088, 131072, 1.5e5, architecture="gpt-oss", head_dim=64,
                                experts=32, experts_used=4, keys=(
                                    ("attention.sliding_window", 128), ("rope.scaling.type", "yarn"),
                                    ("rope.scaling.factor", 32.0), ("rope.scaling.original_context_length", 4096))),
}


def _as_f16(scales: np.ndarray) -> np.ndarray:
    return scales.astype(np.float16).view(np.uint8)


def _as_power(scales: np.ndarray) -> np.ndarray:
    """E8M0 of the halves of powers of two."""
    return np.rint(np.log2(scales) + 128).astype(np.uint8)


def _as_e4m3(scales: np.ndarray) -> np.ndarray:
    """E4M3 of the doubles of numbers below 2 ** -7, for four groups."""
    return np.repeat(np.rint(2 * scales * 2**9).clip(1, 7).astype(np.uint8), 4, axis=1)


def _as_nibbles(scales: np.ndarray) -> np.ndarray:
    """float16 as the top nibbles of four uint16, the low one first; below are the same four 3-bit scales of groups."""
    nibbles = scales.astype(np.float16).view(np.uint16) >> np.array([0, 4, 8, 12], np.uint16)
    return (nibbles << 12 | 0o3526).astype(np.uint16).view(np.uint8)


@dataclass(frozen=True)
class _Scales:
    """Where the blocks of a type have their scales, mostly float16, and how large their random values are."""

    spread: float  # standard deviation of a random block's values when its scale is 1
    scale: int  # byte offset of the scale
    minimum: int | None = None  # byte offset of a second scale, of a minimum to add or subtract
    ratio: float = 0.0  # second scale / first scale that makes the mean of random values zero
    stored: Callable[[np.ndarray], np.ndarray] = _as_f16  # float64 [blocks][1] as bytes [blocks][bytes]


# ggml's blocks (ggml/src/ggml-common.h). Float types need no entry: each value is a block.
SCALES = {
    "q4_0": _Scales(4.6, scale=0),
    "q4_1": _Scales(4.6, scale=0, minimum=2, ratio=-7.5),
    "q5_0": _Scales(9.2, scale=0),
    "q5_1": _Scales(9.2, scale=0, minimum=2, ratio=-15.5),
    "q8_0": _Scales(74, scale=0),
    "q2_k": _Scales(15, scale=80, minimum=82, ratio=1.5),
    "q3_k": _Scales(43, scale=108),
    "q4_k": _Scales(310, scale=0, minimum=2, ratio=7.5),
    "q5_k": _Scales(650, scale=0, minimum=2, ratio=15.5),
    "q6_k": _Scales(1370, scale=208),
    "iq4_nl": _Scales(75, scale=0),
    "iq4_xs": _Scales(1400, scale=0),
    "mxfp4": _Scales(5.9, scale=0, stored=_as_power),
    "nvfp4": _Scales(5.9, scale=0, stored=_as_e4m3),
    "q1_0": _Scales(1.0, scale=0),
    "q2_0": _Scales(1.2, scale=0),
    "iq3_s": _Scales(140, scale=0),
    "iq3_xxs": _Scales(142, scale=0),
    "iq2_s": _Scales(56, scale=0),
    "iq2_xs": _Scales(56, scale=0),
    "iq2_xxs": _Scales(53, scale=0),
    "iq1_m": _Scales(7.4, scale=48, stored=_as_nibbles),
    "iq1_s": _Scales(7.2, scale=0),
    "tq1_0": _Scales(0.8, scale=52),
    "tq2_0": _Scales(1.1, scale=64),
    "i2_s": _Scales(1.1, scale=0),
}
# llama.cpp's type of the output layer, and of an embedding that is also the output layer, where it differs.
_OUTPUT_TYPES = {"q8_0": "q8_0", "i2_s": "f16"}
_OTHER_OUTPUT_TYPE = "q6_k"
_FALLBACK = "q8_0"  # for rows whose length is not a multiple of the type's block
_ROUTER = "ffn_gate_inp"
_FLOAT = ("ssm_conv1d", _ROUTER,
          "ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias")  # float32 in every file
_POOL_BLOCKS = 4093  # a prime: rows do not repeat each other
_FLOATS = {"f32": np.float32, "f16": np.float16}


def type_names() -> list[str]:
    """The types that a random model may have."""
    return [name for name, format in _formats().items() if format.block == 1 or name in SCALES]


def check(shape: str, type_name: str) -> None:
    """Raises LcpuError for an unknown shape or type; the message lists the known ones."""
    for what, name, known in (("shape", shape, SHAPES), ("type", type_name, type_names())):
        if name not in known:
            raise LcpuError(f"no {what} is named {name!r}: choose one of {', '.join(known)}")


class RandomModel(GGUFFile):
    """A model in the form of a GGUF file. Raises LcpuError for an unknown shape or type, or too large a model."""

    def __init__(self, shape: str, type_name: str, *, check_memory: bool = True) -> None:
        check(shape, type_name)
        self.path = Path(f"random-{shape}-{type_name}")  # not a file; for error messages
        self.version = 3
        self.metadata = _metadata(SHAPES[shape])
        self.tensors = _tensors(SHAPES[shape], type_name)
        needed, limit = sum(info.nbytes for info in self.tensors.values()), room() if check_memory else None
        if limit is not None and needed > limit.nbytes:
            raise LcpuError(f"{self.path}: needs {size_text(needed)} of memory for its weights alone, "
                            f"but only {limit}: take a smaller shape or type; --no-memory-check loads it anyway")

    def data(self, name: str) -> np.ndarray:
        """The bytes of a tensor: uint8 [nbytes], a new array in every call, with the same content."""
        info = self._tensor(name)
        random = np.random.default_rng(zlib.crc32(name.encode()))
        pool = _pool(info, random).view(np.uint8).reshape(-1)
        out = zeros((info.nbytes,), np.uint8, huge_pages=True)
        whole = info.nbytes // len(pool) * len(pool)
        out[:whole].reshape(-1, len(pool))[:] = pool
        out[whole:] = pool[: info.nbytes - whole]
        tail = TENSOR_TYPES[info.type_id].tail_bytes
        if tail:  # the scale of the whole tensor
            out[-tail:] = 0
            out[-tail:][:4].view(np.float32)[:] = _scale(info)
        return out

    def release(self, name: str) -> None:
        """Nothing to do: data() keeps nothing."""

    def close(self) -> None:
        """Nothing to do: there is no file."""


def _metadata(shape: Shape) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "context_length": shape.context,
        "embedding_length": shape.embedding,
        "block_count": shape.layers,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "rope.freq_base": shape.rope_base,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": shape.vocab,
    }
    if shape.head_dim:
        keys |= {"attention.key_length": shape.head_dim, "attention.value_length": shape.head_dim}
    if shape.experts:
        keys |= {"expert_count": shape.experts, "expert_used_count": shape.experts_used,
                 "expert_feed_forward_length": shape.feed_forward}
    keys |= {name: np.array(value, np.int32) if isinstance(value, tuple) else value for name, value in shape.keys}
    return {"general.architecture": shape.architecture} | {
        f"{shape.architecture}.{key}": value for key, value in keys.items()}


def _qwen35_layer(shape: Shape, layer: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a delta net, or of attention with a gate."""
    keys, width, norm = shape.counts, shape.embedding, (shape.embedding,)
    heads, size, inner = (keys[f"ssm.{name}"] for name in ("time_step_rank", "state_size", "inner_size"))
    mixed = 2 * keys["ssm.group_count"] * size + inner
    q_width, kv_width = shape.heads * shape.head, shape.kv_heads * shape.head
    made = {"attn_norm": norm, "post_attention_norm": norm, "ffn_gate": (shape.feed_forward, width),
            "ffn_up": (shape.feed_forward, width), "ffn_down": (width, shape.feed_forward)}
    if (layer + 1) % keys["full_attention_interval"]:
        return made | {"attn_qkv": (mixed, width), "attn_gate": (inner, width), "ssm_alpha": (heads, width),
                       "ssm_beta": (heads, width), "ssm_conv1d": (mixed, keys["ssm.conv_kernel"]),
                       "ssm_dt.bias": (heads,), "ssm_a": (heads,), "ssm_norm": (size,), "ssm_out": (width, inner)}
    return made | {"attn_q": (2 * q_width, width), "attn_k": (kv_width, width), "attn_v": (kv_width, width),
                   "attn_output": (width, q_width), "attn_q_norm": (shape.head,), "attn_k_norm": (shape.head,)}


def _layer(shape: Shape, layer: int = 0) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer."""
    if shape.architecture == "qwen35":
        return _qwen35_layer(shape, layer)
    width, q_width, kv_width = shape.embedding, shape.heads * shape.head, shape.kv_heads * shape.head
    norm, hidden, down = (width,), (shape.feed_forward, width), (width, shape.feed_forward)
    if shape.architecture == "phi3":
        return {"attn_norm": norm, "attn_qkv": (q_width + 2 * kv_width, width), "attn_output": (width, q_width),
                "ffn_norm": norm, "ffn_up": (2 * shape.feed_forward, width), "ffn_down": down}
    made = {"attn_norm": norm, "attn_q": (q_width, width), "attn_k": (kv_width, width), "attn_v": (kv_width, width),
            "attn_output": (width, q_width), "ffn_norm": norm}
    if shape.architecture == "gemma3":
        made |= {"post_attention_norm": norm, "post_ffw_norm": norm}
    if shape.architecture in ("qwen3moe", "gemma3"):
        made |= {"attn_q_norm": (shape.head,), "attn_k_norm": (shape.head,)}
    if not shape.experts:
        return made | {"ffn_gate": hidden, "ffn_up": hidden, "ffn_down": down}
    each = (shape.experts,)
    made |= {_ROUTER: (shape.experts, width), "ffn_gate_exps": each + hidden, "ffn_up_exps": each + hidden,
             "ffn_down_exps": each + down}
    if shape.architecture == "gpt-oss":
        made["post_attention_norm"] = made.pop("ffn_norm")
        made |= {f"{name}.bias": matrix[:-1] for name, matrix in made.items() if len(matrix) > 1}
        made["attn_sinks"] = (shape.heads,)
    return made


def _tensors(shape: Shape, weights: str) -> dict[str, TensorInfo]:
    width = shape.embedding
    quantized = _formats()[weights].block > 1
    experts = weights
    if weights == "mxfp4" and shape.experts:  # as gpt-oss is distributed
        weights = "q8_0"
    output = _OUTPUT_TYPES.get(weights, _OTHER_OUTPUT_TYPE) if quantized else weights
    plain = weights == "i2_s"  # ternary numbers are for the layers alone
    infos = [_info("token_embd", (shape.vocab, width), output if shape.tied or plain else weights)]
    if shape.architecture == "phi3":
        pairs = shape.counts.get("rope.dimension_count", shape.head) // 2
        infos += [_info(f"rope_factors_{name}", (pairs,), "f32") for name in ("long", "short")]
    for layer in range(shape.layers):
        for name, each in _layer(shape, layer).items():
            kind = experts if len(each) > 2 else weights
            infos.append(_info(f"blk.{layer}.{name}", each, "f32" if len(each) == 1 or name in _FLOAT else kind))
    infos.append(_info("output_norm", (width,), "f32"))
    if not shape.tied:
        infos.append(_info("output", (shape.vocab, width), output))
    return {info.name: info for info in infos}


def _info(name: str, shape: tuple[int, ...], wanted: str) -> TensorInfo:
    formats = _formats()
    format = formats[wanted if shape[-1] % formats[wanted].block == 0 else _FALLBACK]
    name = name if name.endswith((".bias", "ssm_a")) else f"{name}.weight"
    return TensorInfo(name, shape, format.type_id, TENSOR_TYPES[format.type_id].nbytes(shape), 0, 0)


def _formats() -> dict[str, Format]:
    return {format.name: format for format in FORMATS.values()}


def _pool(info: TensorInfo, random: np.random.Generator) -> np.ndarray:
    """Some blocks of a tensor. Values are about as large as those of a trained model; those of norms are 1."""
    if info.name.endswith((".bias", "sinks.weight")):
        return random.standard_normal(info.shape, np.float32) / 10
    if info.name.endswith("ssm_a"):
        return -np.ones(info.shape, np.float32)
    if len(info.shape) == 1:
        return np.ones(info.shape, np.float32)
    name = info.type_name.lower()
    if name not in SCALES:
        values = random.standard_normal(_POOL_BLOCKS, np.float32) / np.float32(math.sqrt(info.shape[-1]))
        return values.astype(_FLOATS[name]) if name in _FLOATS else (values.view(np.uint32) >> 16).astype(np.uint16)
    return random_blocks(name, _POOL_BLOCKS, _scale(info), random)


def _scale(info: TensorInfo) -> float:
    """The scale of blocks with which a product is about as large as the vector that is multiplied."""
    return 1 / (SCALES[info.type_name.lower()].spread * math.sqrt(info.shape[-1]))


def random_blocks(name: str, count: int, scale: float, random: np.random.Generator) -> np.ndarray:
    """Blocks of a type: uint8 [count][block bytes], with scales from 0.5 to 1.5 times `scale`."""
    tensor_type = next(known for known in TENSOR_TYPES.values() if known.name.lower() == name)
    blocks = random.integers(0, 256, (count, tensor_type.block_bytes), np.uint8)
    if tensor_type.tail_bytes:  # one scale for the tensor, and none in its blocks
        return blocks
    at = SCALES[name]
    scales = scale * random.uniform(0.5, 1.5, (count, 1))
    stored = at.stored(scales)
    blocks[:, at.scale : at.scale + stored.shape[1]] = stored
    if at.minimum is not None:
        blocks[:, at.minimum : at.minimum + 2] = _as_f16(at.ratio * scales)
    return blocks
