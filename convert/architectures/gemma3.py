"""Gemma 3, and the language model of those that see: as Gemma 2, with norms of heads, and two kinds of rotations."""

from dataclasses import replace
from typing import Any

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .gemma2 import GEMMA2, scale_metadata
from .windows import window_metadata

_LOCAL = "rope_local_base_freq"
# What the first files left out.
_DEFAULTS = {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
             "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096,
             "rope_theta": 1e6, _LOCAL: 1e4, "tie_word_embeddings": True}


def _metadata(config: Config) -> dict[str, Value]:
    if config.get("attn_logit_softcapping") is not None:
        raise config.error("attn_logit_softcapping", "is given: Gemma 3 models have no such cap, and engines none")
    keys = window_metadata(config, period=6) | scale_metadata(config, layers_27b=62)
    keys["rope.freq_base_swa"] = config.real(_LOCAL)
    if config.get("final_logit_softcapping") is not None:
        keys["final_logit_softcapping"] = config.real("final_logit_softcapping")
    return keys


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """With the rotations of both kinds of layers as older files have them."""
    values = _DEFAULTS | values
    kinds = values.get("rope_parameters")
    if isinstance(kinds, dict) and isinstance(kinds.get("full_attention"), dict):
        local = kinds.get("sliding_attention")
        theta = local.get("rope_theta") if isinstance(local, dict) else None
        values |= {"rope_parameters": kinds["full_attention"], _LOCAL: theta or values[_LOCAL]}
    return values


GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    gguf=gguf.MODEL_ARCH.GEMMA3,
    block={**GEMMA2.block, "attn_q_norm.weight": ("head",), "attn_k_norm.weight": ("head",)},
    activation_aliases=(),
    prefixes=(("language_model.model.", "model."), ("model.language_model.", "model."), ("language_model.", "")),
    parts=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
    context_length=131072,
    metadata=_metadata,
    complete=_complete,
)
