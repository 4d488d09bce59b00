"""Qwen 3 MoE: the attention of Qwen 3, and experts whose weights are renormalized."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .experts import check_renormalized, expert_metadata, with_experts
from .qwen3 import QWEN3


def _metadata(config: Config) -> dict[str, Value]:
    check_renormalized(config, True)
    return expert_metadata(config)


QWEN3MOE = replace(QWEN3, name="qwen3moe", gguf=gguf.MODEL_ARCH.QWEN3MOE, block=with_experts(QWEN3.block),
                   metadata=_metadata)
