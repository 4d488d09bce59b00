"""Qwen 3.5 and 3.6, and the language model of those that see: of four layers, three are gated delta nets."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config
from . import vision
from .architecture import DECODER_BLOCK, Architecture, Shape, plus_one
from .delta_net import DELTA_NET, column_order, delta_net_metadata, row_order
from .rope import rope_scaling

_ROPES = ("partial", "sections")
_KINDS = {"linear_attention": True, "full_attention": False}
_INTERVAL, _SECTIONS = 4, [11, 11, 10]  # where a file does not say
_ATTENTION: dict[str, Shape] = {
    "attn_q.weight": ("q and gate", "embed"),
    "attn_k.weight": ("kv", "embed"),
    "attn_v.weight": ("kv", "embed"),
    "attn_output.weight": ("embed", "q"),
    "attn_q_norm.weight": ("head",),
    "attn_k_norm.weight": ("head",),
}
_DRAFTS = "the model has layers that draft tokens (MTP): they are left out"


def _recurrent(config: Config) -> list[bool]:
    """Which layers are delta nets."""
    layers, interval = config.count("num_hidden_layers"), config.count("full_attention_interval", _INTERVAL)
    kinds = config.layer_kinds(_KINDS)
    return [(layer + 1) % interval > 0 for layer in range(layers)] if kinds is None else kinds


def metadata(config: Config) -> dict[str, Value]:
    if not config.flag("attn_output_gate", True):
        raise config.error("attn_output_gate", "is false: engines compute attention with gates; take another model")
    _, scaling = rope_scaling(config, _ROPES)
    sections = scaling.get("mrope_section") or _SECTIONS
    if not (isinstance(sections, list) and len(sections) <= 4 and all(type(each) is int for each in sections)):
        raise config.error("mrope_section", f"is {str(sections)[:80]}, not up to four numbers")
    keys: dict[str, Value] = {"rope.dimension_sections": np.array([*sections, 0, 0, 0][:4], np.int32),
                              "full_attention_interval": config.count("full_attention_interval", _INTERVAL)}
    if config.get("layer_types") is not None:
        keys["attention.recurrent_layers"] = np.array(_recurrent(config))
    return keys | delta_net_metadata(config)


def complete(values: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """With what transformers takes where a file says nothing."""
    return {"head_dim": 256, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
            "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, **defaults} | {
                key: value for key, value in values.items() if value is not None}


QWEN35 = Architecture(
    name="qwen35",
    gguf=gguf.MODEL_ARCH.QWEN35,
    block={name: shape for name, shape in DECODER_BLOCK.items() if name.startswith("ffn_") and "norm" not in name}
    | {"attn_norm.weight": ("embed",), "post_attention_norm.weight": ("embed",)},
    kinds=lambda config: [DELTA_NET if recurrent else _ATTENTION for recurrent in _recurrent(config)],
    other_names={"linear_attn.dt_bias": "ssm_dt.bias"},
    ropes=_ROPES,
    row_order=row_order,
    column_order=column_order,
    changes={"ssm_a": lambda logarithm: -np.exp(logarithm)}
    | dict.fromkeys(("attn_norm.weight", "post_attention_norm.weight", "attn_q_norm.weight", "attn_k_norm.weight",
                     "output_norm.weight"), plus_one),
    prefixes=vision.PREFIXES,
    parts={**vision.PARTS, "mtp.": _DRAFTS},
    context_length=32768,
    metadata=metadata,
    complete=complete,
)
