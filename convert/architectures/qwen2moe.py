"""Qwen 1.5 and 2 MoE: the attention of Qwen 2, experts, and one more that every token has."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .experts import SHARED_EXPERT, check_renormalized, expert_metadata, with_experts
from .qwen2 import QWEN2


def _metadata(config: Config) -> dict[str, Value]:
    check_renormalized(config, False)
    return expert_metadata(config)


QWEN2MOE = replace(QWEN2, name="qwen2moe", gguf=gguf.MODEL_ARCH.QWEN2MOE,
                   block=with_experts(QWEN2.block) | SHARED_EXPERT, metadata=_metadata)
