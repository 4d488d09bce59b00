"""Models for tests of mixtures: the names, shapes and metadata of their tensors, which is all that the rules look at.

Their matrices have two rows. llama.cpp quantizes such files without a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lcpu.convert.type_rules import TYPE_IDS
from lcpu.engine.gguf_file import TensorInfo
from lcpu.engine.gguf_types import TENSOR_TYPES

_HEADS = 32


@dataclass(frozen=True)
class Shape:
    """What mixtures depend on."""

    arch: str = "llama"
    layers: int = 8
    kv_heads: int = 8  # of 32 heads
    tied: bool = False
    experts: int = 0
    embedding: int = 256  # values of a row
    feed_forward: int = 512
    per_layer: int = 0  # values of an embedding of each layer

    @property
    def metadata(self) -> dict[str, object]:
        keys = {"block_count": self.layers, "context_length": 512, "embedding_length": self.embedding,
                "feed_forward_length": self.feed_forward, "attention.head_count": _HEADS,
                "attention.head_count_kv": self.kv_heads, "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": 300,
                "attention.layer_norm_epsilon": 1e-5, "logit_scale": 8.0}
        if self.arch in ("qwen35", "qwen35moe"):
            keys |= {"ssm.conv_kernel": 4, "ssm.inner_size": 2, "ssm.state_size": 1, "ssm.time_step_rank": 2,
                     "ssm.group_count": 2, "full_attention_interval": 4,
                     "rope.dimension_sections": np.ones(4, np.int32)}
        if self.arch == "gemma4":
            keys |= _gemma4_keys(self)
        if self.arch.startswith("lfm2"):
            keys |= {"shortconv.l_cache": 3, "expert_gating_func": 2, "leading_dense_block_count": 2,
                     "attention.head_count_kv": np.array([self.kv_heads * _attends(i) for i in range(self.layers)],
                                                             np.int32)}
        if self.experts:
            keys |= {"expert_count": self.experts, "expert_used_count": 2,
                     "expert_feed_forward_length": self.feed_forward, "attention.sliding_window": 128}
        return {"general.architecture": self.arch, "tokenizer.ggml.model": "no_vocab"} | {
            f"{self.arch}.{key}": value for key, value in keys.items()}

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """float32"""
        shapes: dict[str, tuple[int, ...]] = {"token_embd": (2, self.embedding), "output_norm": (self.embedding,)}
        if self.per_layer:
            shapes |= {"per_layer_token_embd": (2, self.embedding), "per_layer_model_proj": (2, self.embedding),
                       "per_layer_proj_norm": (self.per_layer,)}
        if self.arch.startswith("lfm2"):
            shapes["token_embd_norm"] = shapes.pop("output_norm")
        if not self.tied:
            shapes["output"] = (2, self.embedding)
        for layer in range(self.layers):
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in self._layer(layer).items()}
        named = {name if name.endswith((".bias", "_a")) else f"{name}.weight": shape for name, shape in shapes.items()}
        return {name: TensorInfo(name, shape, TYPE_IDS["F32"], TENSOR_TYPES[TYPE_IDS["F32"]].nbytes(shape), 0, 0)
                for name, shape in named.items()}

    def _layer(self, layer: int) -> dict[str, tuple[int, ...]]:
        width, inner = self.embedding, self.feed_forward
        shapes: dict[str, tuple[int, ...]] = {"attn_norm": (width,), "ffn_norm": (width,)}
        shapes |= {f"attn_{name}": (2, width) for name in ("q", "k", "v", "output")}
        if self.arch in ("qwen35", "qwen35moe"):
            shapes = _hybrid(shapes, width, recurrent=(layer + 1) % 4 > 0)
        if self.arch == "gemma4":
            return _gemma4(self, layer, shapes)
        if self.arch.startswith("lfm2"):
            return _lfm2(self, layer, shapes)
        if self.arch in ("phi3", "falcon"):
            shapes = {name: shape for name, shape in shapes.items() if name not in ("attn_q", "attn_k", "attn_v")}
            shapes["attn_qkv"] = (2, width)
        if self.arch in ("phi3", "falcon", "starcoder2"):
            return shapes | {"ffn_up": (2, width), "ffn_down": (2, inner)}
        if self.arch in ("gemma2", "gemma3"):
            shapes |= {"post_attention_norm": (width,), "post_ffw_norm": (width,)}
        if self.arch in ("qwen3", "qwen3moe", "olmoe", "gemma3"):
            shapes |= {"attn_q_norm": (8,), "attn_k_norm": (8,)}
        if self.arch == "bitnet":
            shapes |= {"attn_sub_norm": (width,), "ffn_sub_norm": (inner,)}
        if self.experts:
            stacks = {"gate": width, "up": width, "down": inner}
            shapes |= {f"ffn_{name}_exps": (self.experts, 2, k) for name, k in stacks.items()}
            if self.arch == "gpt-oss":
                shapes |= {f"ffn_{name}_exps.bias": (self.experts, 2) for name in stacks} | {"attn_sinks": (_HEADS,)}
            if self.arch in ("qwen2moe", "qwen35moe"):
                shapes |= {f"ffn_{name}_shexp": (2, k) for name, k in stacks.items()} | {"ffn_gate_inp_shexp": (width,)}
            return shapes | {"ffn_gate_inp": (self.experts, width)}
        return shapes | {"ffn_gate": (2, width), "ffn_up": (2, width), "ffn_down": (2, inner)}


def _is_local(layer: int) -> bool:
    return (layer + 1) % 6 > 0


def _gemma4_keys(shape: Shape) -> dict[str, object]:
    """Half as many KV heads in layers without a window, and a wider feed-forward in the last ones of small models."""
    local = [_is_local(layer) for layer in range(shape.layers)]
    heads = [shape.kv_heads // (1 if each else 2) for each in local]
    widths = [shape.feed_forward * (2 if shape.per_layer and layer > 5 else 1) for layer in range(shape.layers)]
    return {"attention.sliding_window": 128, "attention.sliding_window_pattern": np.array(local),
            "attention.head_count_kv": np.array(heads, np.int32), "feed_forward_length": np.array(widths, np.int32),
            "embedding_length_per_layer_input": shape.per_layer, "attention.key_length": 16,
            "attention.value_length": 16, "attention.key_length_swa": 8, "attention.value_length_swa": 8,
            "attention.shared_kv_layers": shape.layers - 6 if shape.per_layer else 0}


def _gemma4(shape: Shape, layer: int, attention: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of large models, keys of layers without a window are values, too; of small ones, few layers have keys at all."""
    width, inner = shape.embedding, shape.feed_forward
    absent = ("attn_k", "attn_v") if shape.per_layer and layer > 5 else () if _is_local(layer) or shape.per_layer else (
        "attn_v",)
    made = {name: each for name, each in attention.items() if name not in absent} | {
        "post_attention_norm": (width,), "post_ffw_norm": (width,), "layer_output_scale": (1,), "ffn_gate": (2, width),
        "ffn_up": (2, width), "ffn_down": (2, inner)}
    if shape.per_layer:
        made |= {"inp_gate": (2, width), "proj": (2, width), "post_norm": (width,)}
    if shape.experts:
        made |= {"ffn_gate_inp": (shape.experts, width), "ffn_gate_up_exps": (shape.experts, 2, width),
                 "ffn_down_exps": (shape.experts, 2, inner), "pre_ffw_norm_2": (width,)}
    return made


def _attends(layer: int) -> bool:
    return layer % 3 == 2


def _lfm2(shape: Shape, layer: int, attention: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Layers with attention among such with convolutions; the first two have no experts."""
    width, inner = shape.embedding, shape.feed_forward
    made = attention if _attends(layer) else {
        "attn_norm": (width,), "ffn_norm": (width,), "shortconv.conv": (2, 3), "shortconv.in_proj": (2, width),
        "shortconv.out_proj": (2, width)}
    if not shape.experts or layer < 2:
        return made | {"ffn_gate": (2, width), "ffn_up": (2, width), "ffn_down": (2, inner)}
    return made | {"ffn_gate_inp": (shape.experts, width), "exp_probs_b.bias": (shape.experts,)} | {
        f"ffn_{name}_exps": (shape.experts, 2, k) for name, k in (("gate", width), ("up", width), ("down", inner))}


def _hybrid(attention: dict[str, tuple[int, ...]], width: int, recurrent: bool) -> dict[str, tuple[int, ...]]:
    """A layer that is a gated delta net, or one of such a model with attention."""
    norms = {"attn_norm": (width,), "post_attention_norm": (width,)}
    if not recurrent:
        return {name: shape for name, shape in attention.items() if "norm" not in name} | norms | {
            "attn_q_norm": (8,), "attn_k_norm": (8,)}
    matrices = dict.fromkeys(("attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_out"), (2, width))
    return norms | matrices | {
        "ssm_conv1d": (2, 4), "ssm_a": (2,), "ssm_dt.bias": (2,), "ssm_norm": (8,)}


MODELS = {
    "llama": Shape(),
    "llama, 22 layers, 32 / 4": Shape(layers=22, kv_heads=4),
    "llama, 32 layers, 32 / 32": Shape(layers=32, kv_heads=32),
    "llama, 80 layers": Shape(layers=80),
    "llama, tied, 16 / 32": Shape(layers=16, tied=True, kv_heads=16),
    "llama, rows of 288": Shape(layers=9, embedding=288),
    "Mixtral": Shape(layers=32, experts=8),
    "Mixtral, 56 layers, 32 / 32": Shape(layers=56, experts=8, kv_heads=32),
    "llama, 4 experts": Shape(layers=11, experts=4),
    "llama, 16 experts, 32 / 32": Shape(layers=9, experts=16, kv_heads=32),
    "qwen2": Shape("qwen2", layers=24, kv_heads=4, tied=True),
    "qwen2, 80 layers, 32 / 32": Shape("qwen2", layers=80, kv_heads=32),
    "qwen3": Shape("qwen3", layers=36),
    "qwen35": Shape("qwen35", layers=24, kv_heads=8, tied=True),
    "qwen35, 64 layers, 32 / 4": Shape("qwen35", layers=64, kv_heads=4),
    "qwen35moe": Shape("qwen35moe", layers=40, kv_heads=4, experts=256),
    "gemma": Shape("gemma", layers=18, kv_heads=1, tied=True),
    "gemma2": Shape("gemma2", layers=42, kv_heads=16, tied=True),
    "gemma3, rows of 288": Shape("gemma3", layers=26, tied=True, embedding=288),
    "gemma3, 62 layers, 32 / 16": Shape("gemma3", layers=62, kv_heads=16, tied=True),
    "gemma4, small": Shape("gemma4", layers=30, kv_heads=8, tied=True, per_layer=16),
    "gemma4, 60 layers": Shape("gemma4", layers=60, kv_heads=16, tied=True),
    "gemma4, 128 experts": Shape("gemma4", layers=30, kv_heads=8, tied=True, experts=128, embedding=288),
    "lfm2": Shape("lfm2", layers=16, tied=True),
    "lfm2moe": Shape("lfm2moe", layers=24, tied=True, experts=32),
    "phi3": Shape("phi3", layers=32, tied=True),
    "granite": Shape("granite", layers=40),
    "smollm3": Shape("smollm3", layers=36, kv_heads=4, tied=True),
    "olmo2": Shape("olmo2", layers=16, kv_heads=32),
    "mistral3": Shape("mistral3", layers=26, tied=True),
    "starcoder2": Shape("starcoder2", layers=30, kv_heads=2, tied=True),
    "stablelm": Shape("stablelm", layers=24, kv_heads=32),
    "falcon": Shape("falcon", layers=32, kv_heads=1),
    "falcon, 60 layers, tied": Shape("falcon", layers=60, kv_heads=8, tied=True),
    "qwen2moe": Shape("qwen2moe", layers=24, kv_heads=32, experts=60),
    "qwen3moe": Shape("qwen3moe", layers=48, kv_heads=4, experts=128),
    "olmoe": Shape("olmoe", layers=16, kv_heads=32, experts=64),
    "gpt-oss": Shape("gpt-oss", layers=24, experts=32, embedding=288, feed_forward=288),
    "bitnet": Shape("bitnet", layers=24, kv_heads=32, tied=True),
}
