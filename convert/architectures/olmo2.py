"""OLMo 2 and 3: norms come after the halves of a layer, and of queries and keys as a whole."""

from typing import Any

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK, Architecture
from .windows import window_metadata

_LOCAL = "rope_local_base_freq"


def _metadata(config: Config) -> dict[str, Value]:
    keys = window_metadata(config, period=4) if config.get("sliding_window") is not None else {}
    return keys if config.get(_LOCAL) is None else keys | {"rope.freq_base_swa": config.real(_LOCAL)}


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """With the rotations of layers without a window as those of the model, and the base of the others."""
    kinds = values.get("rope_parameters")
    if not isinstance(kinds, dict) or not isinstance(kinds.get("full_attention"), dict):
        return values
    local = kinds.get("sliding_attention")
    return values | {"rope_parameters": kinds["full_attention"],
                     _LOCAL: local.get("rope_theta") if isinstance(local, dict) else None}


OLMO2 = Architecture(
    name="olmo2",
    gguf=gguf.MODEL_ARCH.OLMO2,
    block={name: shape for name, shape in DECODER_BLOCK.items() if name not in ("attn_norm.weight", "ffn_norm.weight")}
    | {
        "attn_q_norm.weight": ("q",),
        "attn_k_norm.weight": ("kv",),
        "post_attention_norm.weight": ("embed",),
        "post_ffw_norm.weight": ("embed",),
    },
    metadata=_metadata,
    complete=_complete,
)
