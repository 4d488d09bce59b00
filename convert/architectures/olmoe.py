"""OLMoE: queries and keys are normalised as a whole, and every layer has experts."""

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK, Architecture
from .experts import check_renormalized, expert_metadata, with_experts


def _metadata(config: Config) -> dict[str, Value]:
    check_renormalized(config, False)
    if config.get("clip_qkv") is not None:
        raise config.error("clip_qkv", "limits queries, keys and values, which engines do not; take another model")
    return expert_metadata(config)


OLMOE = Architecture(
    name="olmoe",
    gguf=gguf.MODEL_ARCH.OLMOE,
    block=with_experts(DECODER_BLOCK) | {"attn_q_norm.weight": ("q",), "attn_k_norm.weight": ("kv",)},
    context_length=4096,
    metadata=_metadata,
)
