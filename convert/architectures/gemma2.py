"""Gemma 2: norms before and after both halves of a layer, soft caps, and windows on every other layer."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import Shape
from .gemma import GEMMA
from .windows import check_reads_back, window_metadata

_POST_NORMS: dict[str, Shape] = {"post_attention_norm.weight": ("embed",), "post_ffw_norm.weight": ("embed",)}


def _metadata(config: Config) -> dict[str, Value]:
    check_reads_back(config)
    caps = {key: config.real(key) if config.get(key) is not None else 0.0
            for key in ("attn_logit_softcapping", "final_logit_softcapping")}
    return caps | window_metadata(config, period=2) | scale_metadata(config, layers_27b=46)


def scale_metadata(config: Config, layers_27b: int) -> dict[str, Value]:
    """The scale of attention's scores, if it is not that which engines take.

    That is 1 / sqrt(head size), and for the 27B models, which they know by their layers, 1 / sqrt(embedding / heads).
    """
    head, heads = config.count("head_dim"), config.count("num_attention_heads")
    is_27b = config.count("num_hidden_layers") == layers_27b
    taken = config.count("hidden_size") // heads if is_27b else head
    size = config.real("query_pre_attn_scalar", 256)
    return {} if size == taken else {"attention.scale": size**-0.5}


GEMMA2 = replace(
    GEMMA,
    name="gemma2",
    gguf=gguf.MODEL_ARCH.GEMMA2,
    block={**GEMMA.block, **_POST_NORMS},
    metadata=_metadata,
    complete=lambda values: GEMMA.complete({"sliding_window": 4096, "attn_logit_softcapping": 50.0,
                                            "final_logit_softcapping": 30.0} | values),
)
