"""LFM 2, dense or with experts, and the language model of those that see: short convolutions, and attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gguf
import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config
from . import vision
from .architecture import DECODER_BLOCK, Architecture, Shape, sizes
from .experts import EXPERTS, check_renormalized, expert_metadata

_SIGMOID = 2  # GGUF's expert_gating_func
_KINDS = {"full_attention": True, "conv": False}
_DENSE: dict[str, Shape] = {name: shape for name, shape in DECODER_BLOCK.items()
                            if name.startswith("ffn_") and "norm" not in name}
_ATTENTION: dict[str, Shape] = {name: shape for name, shape in DECODER_BLOCK.items() if name.startswith("attn_")} | {
    "attn_q_norm.weight": ("head",), "attn_k_norm.weight": ("head",)}
_DEFAULTS = {"num_attention_heads": 32, "num_key_value_heads": 8, "conv_L_cache": 3, "rope_theta": 1e6,
             "tie_word_embeddings": True}
_DEFAULTS_OF_DENSE = {"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256}
_DEFAULTS_OF_EXPERTS = {"num_dense_layers": 2, "num_experts": 32, "num_experts_per_tok": 4, "use_expert_bias": True,
                        "norm_topk_prob": True, "routed_scaling_factor": 1.0, "moe_intermediate_size": 1792}


def _attends(config: Config) -> list[bool]:
    """Which layers have attention."""
    kinds, indices = config.layer_kinds(_KINDS), config.get("full_attn_idxs")
    if kinds is None:  # all of them, where nothing is said
        return [indices is None or layer in indices for layer in range(config.count("num_hidden_layers"))]
    return kinds


def _metadata(config: Config) -> dict[str, Value]:
    if config.flag("conv_bias"):
        raise config.error("conv_bias", "is true: engines compute no biases with LFM 2; take another model")
    heads = sizes(config)["kv heads"]
    return {"attention.head_count_kv": np.array([heads if attends else 0 for attends in _attends(config)], np.int32),
            "shortconv.l_cache": config.count("conv_L_cache")}


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """With the width that a feed-forward has after it is adjusted."""
    values = _DEFAULTS | _DEFAULTS_OF_DENSE | values
    width = values.get("block_ff_dim", values.get("intermediate_size"))
    multiple, factor = values["block_multiple_of"], values["block_ffn_dim_multiplier"]
    if values["block_auto_adjust_ff_dim"] and isinstance(width, int) and isinstance(multiple, int) and multiple > 0:
        width = int(2 * width / 3)
        width = int(factor * width) if isinstance(factor, (int, float)) else width
        width = -(-width // multiple) * multiple
    return values | {"intermediate_size": width, "tie_word_embeddings": values.get(
        "tie_embedding", values["tie_word_embeddings"])}


def _kind(config: Config, attends: bool) -> dict[str, Shape]:
    if attends:
        return _ATTENTION
    return {"attn_norm.weight": ("embed",), "shortconv.conv.weight": ("embed", config.count("conv_L_cache")),
            "shortconv.in_proj.weight": (3 * config.count("hidden_size"), "embed"),
            "shortconv.out_proj.weight": ("embed", "embed")}


def _kinds(config: Config) -> list[Mapping[str, Shape]]:
    return [_kind(config, attends) | _DENSE for attends in _attends(config)]


LFM2 = Architecture(
    name="lfm2",
    gguf=gguf.MODEL_ARCH.LFM2,
    block={"ffn_norm.weight": ("embed",)},
    kinds=_kinds,
    epsilon=("norm_eps", "layer_norm_rms_epsilon"),
    output_norm="token_embd_norm",
    prefixes=vision.PREFIXES,
    parts=vision.PARTS,
    context_length=128000,
    metadata=_metadata,
    complete=_complete,
)


def _experts_metadata(config: Config) -> dict[str, Value]:
    check_renormalized(config, True)
    if config.get("routed_scaling_factor") not in (1, 1.0):
        raise config.error("routed_scaling_factor", "is not 1, which engines take it to be; take another model")
    return _metadata(config) | expert_metadata(config) | {
        "leading_dense_block_count": config.get("num_dense_layers") or 0, "expert_gating_func": _SIGMOID}


def _kinds_with_experts(config: Config) -> list[Mapping[str, Shape]]:
    if not config.flag("use_expert_bias", True):
        raise config.error("use_expert_bias", "is false: engines take a bias for choosing experts to be there")
    experts: dict[str, Shape] = EXPERTS | {"exp_probs_b.bias": ("experts",)}
    first = config.get("num_dense_layers") or 0
    return [_kind(config, attends) | (_DENSE if layer < first else experts)
            for layer, attends in enumerate(_attends(config))]


LFM2MOE = replace(
    LFM2,
    name="lfm2moe",
    gguf=gguf.MODEL_ARCH.LFM2MOE,
    kinds=_kinds_with_experts,
    other_names={"feed_forward.expert_bias": "exp_probs_b.bias", "feed_forward.experts.w1": "ffn_gate_exps.weight",
                 "feed_forward.experts.w2": "ffn_down_exps.weight", "feed_forward.experts.w3": "ffn_up_exps.weight"},
    metadata=_experts_metadata,
    complete=lambda values: _DEFAULTS | _DEFAULTS_OF_EXPERTS | values | {
        "tie_word_embeddings": values.get("tie_embedding", values.get("tie_word_embeddings", True))},
)
