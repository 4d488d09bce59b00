"""Tiny checkpoints of LFM 2: configurations for golden_cases.py, and random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .checkpoints import EMBED, FFN, HEAD, HEADS, KV_HEADS, VOCAB

TAPS, EXPERTS, EXPERT_FFN, DENSE_LAYERS = 3, 6, 32, 1
_COMMON: dict[str, Any] = {
    "layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4, "conv_L_cache": TAPS,
    "norm_eps": 1e-5, "rms_norm_eps": None, "hidden_act": None, "tie_word_embeddings": True, "pad_token_id": 0}
DENSE = _COMMON | {"intermediate_size": FFN * 3 // 2 - 9, "block_multiple_of": 32}  # which is adjusted to FFN
MIXTURE = _COMMON | {"num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": EXPERT_FFN,
                     "num_dense_layers": DENSE_LAYERS, "norm_topk_prob": True, "use_expert_bias": True,
                     "routed_scaling_factor": 1.0, "model_type": "lfm2_moe"}

_CONVOLUTION = {"conv.conv.weight": (EMBED, 1, TAPS), "conv.in_proj.weight": (3 * EMBED, EMBED),
                "conv.out_proj.weight": (EMBED, EMBED)}
_ATTENTION = {f"self_attn.{name}.weight": shape for name, shape in (
    ("q_proj", (HEADS * HEAD, EMBED)), ("k_proj", (KV_HEADS * HEAD, EMBED)), ("v_proj", (KV_HEADS * HEAD, EMBED)),
    ("out_proj", (EMBED, HEADS * HEAD)), ("q_layernorm", (HEAD,)), ("k_layernorm", (HEAD,)))}


def lfm2_tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random float32 weights of a model with such a configuration."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, EMBED),
                                          "model.embedding_norm.weight": (EMBED,)}
    for layer, kind in enumerate(config["layer_types"]):
        own = _CONVOLUTION if kind == "conv" else _ATTENTION
        has_experts = "num_experts" in config and layer >= DENSE_LAYERS
        own = own | {"operator_norm.weight": (EMBED,), "ffn_norm.weight": (EMBED,)} | (
            _experts() if has_experts else _feed_forward("feed_forward", FFN))
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    random = np.random.default_rng(6)
    return {name: (random.standard_normal(shape) / 8 + ("norm" in name) if len(shape) == 1 else
                   random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
            for name, shape in shapes.items()}


def _feed_forward(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.w1.weight": (width, EMBED), f"{name}.w2.weight": (EMBED, width),
            f"{name}.w3.weight": (width, EMBED)}


def _experts() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"feed_forward.gate.weight": (EXPERTS, EMBED),
                                          "feed_forward.expert_bias": (EXPERTS,)}
    for expert in range(EXPERTS):
        shapes |= _feed_forward(f"feed_forward.experts.{expert}", EXPERT_FFN)
    return shapes
