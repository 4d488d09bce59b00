"""Gemma 3, and the language model of those that see: as Gemma 2, with norms of heads, and two kinds of rotations."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from . import vision
from .gemma2 import GEMMA2, scale_metadata
from .windows import LOCAL_BASE, check_reads_back, window_metadata, with_base_of_windows

# What the first files left out.
_DEFAULTS = {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
             "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096,
             "rope_theta": 1e6, LOCAL_BASE: 1e4, "tie_word_embeddings": True}


def _metadata(config: Config) -> dict[str, Value]:
    check_reads_back(config)
    if config.get("attn_logit_softcapping") is not None:
        raise config.error("attn_logit_softcapping", "is given: Gemma 3 models have no such cap, and engines none")
    keys = window_metadata(config, period=6) | scale_metadata(config, layers_27b=62)
    keys["rope.freq_base_swa"] = config.real(LOCAL_BASE)
    if config.get("final_logit_softcapping") is not None:
        keys["final_logit_softcapping"] = config.real("final_logit_softcapping")
    return keys


GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    gguf=gguf.MODEL_ARCH.GEMMA3,
    block={**GEMMA2.block, "attn_q_norm.weight": ("head",), "attn_k_norm.weight": ("head",)},
    activation_aliases=(),
    prefixes=vision.PREFIXES,
    parts=vision.PARTS,
    context_length=131072,
    metadata=_metadata,
    complete=lambda values: with_base_of_windows(_DEFAULTS | values),
)
