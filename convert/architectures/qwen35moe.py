"""Qwen 3.5 and 3.6 MoE: the layers of Qwen 3.5, with experts, which may have gate and up in one tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .experts import SHARED_EXPERT, check_renormalized, expert_metadata, with_experts
from .qwen35 import QWEN35, complete


def _metadata(config: Config) -> dict[str, Value]:
    check_renormalized(config, True)
    return QWEN35.metadata(config) | expert_metadata(config)


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    width = values.get("moe_intermediate_size") or 512
    return complete(values, num_experts=256, num_experts_per_tok=8, moe_intermediate_size=width,
                    shared_expert_intermediate_size=512, intermediate_size=width, norm_topk_prob=True)


QWEN35MOE = replace(
    QWEN35,
    name="qwen35moe",
    gguf=gguf.MODEL_ARCH.QWEN35MOE,
    block=with_experts(QWEN35.block) | SHARED_EXPERT,
    other_names={**QWEN35.other_names, "mlp.experts.down_proj": "ffn_down_exps.weight"},
    fused={"mlp.experts.gate_up_proj": ("ffn_gate_exps.weight", "ffn_up_exps.weight")},
    metadata=_metadata,
    complete=_complete,
)
