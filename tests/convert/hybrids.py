"""Checkpoints of hybrids: three of four layers are gated delta nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .checkpoints import EMBED, HEAD, HEADS, KV_HEADS

KEY_HEADS, VALUE_HEADS, SIZE, TAPS, INTERVAL = 2, 4, 16, 4, 4
STATES: dict[str, Any] = {
    "num_hidden_layers": INTERVAL, "linear_num_key_heads": KEY_HEADS, "linear_num_value_heads": VALUE_HEADS,
    "linear_key_head_dim": SIZE, "linear_value_head_dim": SIZE, "linear_conv_kernel_dim": TAPS, "head_dim": HEAD,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
                        "mrope_interleaved": True, "mrope_section": [2, 1, 1]}}

_MIXED = (2 * KEY_HEADS + VALUE_HEADS) * SIZE
_DELTA_NET = {"in_proj_qkv.weight": (_MIXED, EMBED), "in_proj_z.weight": (VALUE_HEADS * SIZE, EMBED),
              "in_proj_b.weight": (VALUE_HEADS, EMBED), "in_proj_a.weight": (VALUE_HEADS, EMBED),
              "conv1d.weight": (_MIXED, 1, TAPS), "dt_bias": (VALUE_HEADS,), "A_log": (VALUE_HEADS,),
              "norm.weight": (SIZE,), "out_proj.weight": (EMBED, VALUE_HEADS * SIZE)}
_ATTENTION = {"q_proj.weight": (2 * HEADS * HEAD, EMBED), "k_proj.weight": (KV_HEADS * HEAD, EMBED),
              "v_proj.weight": (KV_HEADS * HEAD, EMBED), "o_proj.weight": (EMBED, HEADS * HEAD),
              "q_norm.weight": (HEAD,), "k_norm.weight": (HEAD,)}


_EXPERTS = {"gate.weight": (6, EMBED), "experts.gate_up_proj": (6, 64, EMBED), "experts.down_proj": (6, EMBED, 32),
            "shared_expert.gate_proj.weight": (48, EMBED), "shared_expert.up_proj.weight": (48, EMBED),
            "shared_expert.down_proj.weight": (EMBED, 48), "shared_expert_gate.weight": (1, EMBED)}
EXPERTS = {"intermediate_size": None, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
           "shared_expert_intermediate_size": 48}


def hybrid(tensors: Mapping[str, np.ndarray], attention: Sequence[int] = (3,), *,
           experts: bool = False) -> dict[str, np.ndarray]:
    """A Llama's tensors with other random weights instead of its attention, which only some layers have; and instead
    of its feed-forward, if there are to be experts."""
    made = {name: each for name, each in tensors.items() if "_attn" not in name and not (experts and "mlp" in name)}
    random = np.random.default_rng(5)
    for layer in range(INTERVAL):
        kind, shapes = ("self_attn", _ATTENTION) if layer in attention else ("linear_attn", _DELTA_NET)
        named = {f"{kind}.{name}": shape for name, shape in shapes.items()}
        named |= {f"mlp.{name}": shape for name, shape in _EXPERTS.items() if experts}
        for name, shape in named.items():
            scale = 0.25 if len(shape) == 1 else shape[-1] ** -0.5
            values = random.standard_normal(shape) * scale + ("norm" in name)
            made[f"model.layers.{layer}.{name}"] = values.astype(np.float32)
    return made
