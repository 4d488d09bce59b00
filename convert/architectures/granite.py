"""Granite 3 and 4: as Llama, with factors for embeddings, halves of layers, scores and logits.

Experts have gate and up in one tensor; every token may have one more expert, likewise.
"""

from dataclasses import replace
from typing import Any

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK
from .experts import SHARED_EXPERT, expert_metadata, with_experts
from .llama import LLAMA

_FACTORS = {"embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale",
            "attention_multiplier": "attention.scale"}


def _metadata(config: Config) -> dict[str, Value]:
    keys: dict[str, Value] = {key: config.real(name) for name, key in _FACTORS.items() if config.get(name) is not None}
    return keys | {"logit_scale": config.real("logits_scaling", 1.0)}


GRANITE = replace(LLAMA, name="granite", gguf=gguf.MODEL_ARCH.GRANITE, metadata=_metadata)


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """With the name that other models have."""
    return values | {"shared_expert_intermediate_size": values.get("shared_intermediate_size") or None}


GRANITEMOE = replace(
    GRANITE,
    name="granitemoe",
    gguf=gguf.MODEL_ARCH.GRANITE_MOE,
    block=with_experts(DECODER_BLOCK),
    optional={name: shape for name, shape in SHARED_EXPERT.items() if "_inp_" not in name},
    fused={
        "block_sparse_moe.input_linear.weight": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
        "shared_mlp.input_linear.weight": ("ffn_gate_shexp.weight", "ffn_up_shexp.weight"),
    },
    metadata=lambda config: _metadata(config) | expert_metadata(config),
    complete=_complete,
)
