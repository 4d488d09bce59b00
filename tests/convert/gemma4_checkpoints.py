"""Tiny checkpoints of Gemma 4, of its three kinds: configurations for golden_cases.py, and random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from .checkpoints import EMBED, FFN, HEADS, VOCAB

HEAD, GLOBAL_HEAD, KV_HEADS, PER_LAYER, EXPERTS, EXPERT_FFN = 16, 32, 2, 16, 6, 32
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_COMMON: dict[str, Any] = {
    "model_type": "gemma4_text", "hidden_activation": "gelu_pytorch_tanh", "hidden_act": None, "head_dim": HEAD,
    "global_head_dim": GLOBAL_HEAD, "num_global_key_value_heads": None, "num_key_value_heads": KV_HEADS,
    "sliding_window": 20, "tie_word_embeddings": True, "rope_theta": None, "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "final_logit_softcapping": 4.0, "pad_token_id": 0,
    "rope_parameters": {_LOCAL: {"rope_type": "default", "rope_theta": 500.0}, _GLOBAL: {
        "rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 30000.0}},
}
_ONE_PROJECTION = {"attention_k_eq_v": True, "num_global_key_value_heads": 1}

# E2B: embeddings for each layer, and layers that see keys and values of others, with a wider feed-forward. 31B: keys
# are values, too. 26B-A4B: and experts.
SMALL = _COMMON | {"num_hidden_layers": 5, "layer_types": [_LOCAL, _LOCAL, _GLOBAL, _LOCAL, _GLOBAL],
                   "hidden_size_per_layer_input": PER_LAYER, "num_kv_shared_layers": 2, "use_double_wide_mlp": True}
DENSE = _COMMON | _ONE_PROJECTION | {"num_hidden_layers": 3, "layer_types": [_LOCAL, _LOCAL, _GLOBAL]}
MIXTURE = _COMMON | _ONE_PROJECTION | {
    "num_hidden_layers": 2, "layer_types": [_LOCAL, _GLOBAL], "enable_moe_block": True, "num_experts": EXPERTS,
    "top_k_experts": 2, "moe_intermediate_size": EXPERT_FFN}


def gemma4_tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random float32 weights of a model with such a configuration."""
    layers = config["num_hidden_layers"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, EMBED), "model.norm.weight": (EMBED,)}
    if config["hidden_size_per_layer_input"]:
        shapes |= {"model.embed_tokens_per_layer.weight": (VOCAB, layers * PER_LAYER),
                   "model.per_layer_model_projection.weight": (layers * PER_LAYER, EMBED),
                   "model.per_layer_projection_norm.weight": (PER_LAYER,)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer(config, layer).items()}
    random = np.random.default_rng(4)
    made = {name: random.standard_normal(shape) / 8 + 1 if len(shape) == 1 else
            random.standard_normal(shape) / shape[-1] ** 0.5 for name, shape in shapes.items()}
    for name in made:  # attention has no other scale than that of its norms; routers tell experts apart
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            made[name] = made[name] / made[name].size ** 0.25
        elif name.endswith("router.scale"):
            made[name] = made[name] * EMBED**0.5
    return {name: values.astype(np.float32) for name, values in made.items()}


def _layer(config: dict[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    is_global = config["layer_types"][layer] == _GLOBAL
    shares = layer >= config["num_hidden_layers"] - config["num_kv_shared_layers"]
    head = GLOBAL_HEAD if is_global else HEAD
    kv = (config["num_global_key_value_heads"] if is_global else None) or KV_HEADS
    ffn = FFN * (2 if shares and config.get("use_double_wide_mlp") else 1)
    shapes: dict[str, tuple[int, ...]] = {f"{norm}_layernorm.weight": (EMBED,) for norm in (
        "input", "post_attention", "pre_feedforward", "post_feedforward")}
    shapes |= {"self_attn.q_proj.weight": (HEADS * head, EMBED), "self_attn.o_proj.weight": (EMBED, HEADS * head),
               "self_attn.q_norm.weight": (head,), "layer_scalar": (1,), "mlp.gate_proj.weight": (ffn, EMBED),
               "mlp.up_proj.weight": (ffn, EMBED), "mlp.down_proj.weight": (EMBED, ffn)}
    if not shares:
        shapes |= {"self_attn.k_proj.weight": (kv * head, EMBED), "self_attn.k_norm.weight": (head,)}
        if not (is_global and config.get("attention_k_eq_v")):
            shapes["self_attn.v_proj.weight"] = (kv * head, EMBED)
    if config["hidden_size_per_layer_input"]:
        shapes |= {"per_layer_input_gate.weight": (PER_LAYER, EMBED),
                   "per_layer_projection.weight": (EMBED, PER_LAYER), "post_per_layer_input_norm.weight": (EMBED,)}
    if config.get("enable_moe_block"):
        shapes |= {f"{norm}_layernorm_{number}.weight": (EMBED,) for norm, number in (
            ("post_feedforward", 1), ("post_feedforward", 2), ("pre_feedforward", 2))}
        shapes |= {"router.proj.weight": (EXPERTS, EMBED), "router.scale": (EMBED,),
                   "router.per_expert_scale": (EXPERTS,), "experts.gate_up_proj": (EXPERTS, 2 * EXPERT_FFN, EMBED),
                   "experts.down_proj": (EXPERTS, EMBED, EXPERT_FFN)}
    return shapes
