"""Falcon: q, k and v are one matrix, whose rows come by KV head; layer norms, and a feed-forward without a gate."""

from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import Architecture


def _metadata(config: Config) -> dict[str, Value]:
    """No keys. Raises LcpuError for a model of another form."""
    for name, wanted in (("alibi", False), ("bias", False), ("parallel_attn", True)):
        if config.flag(name, wanted) != wanted:
            raise config.error(name, f"is {str(not wanted).lower()}: engines do not compute such Falcon models; take "
                                     "another one")
    return {}


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """With the names that other models have."""
    heads = values.get("num_attention_heads", values.get("n_head"))
    new = values.get("new_decoder_architecture")
    kv_heads = values.get("num_kv_heads", values.get("n_head_kv")) if new else 1 if values.get("multi_query", True) \
        else heads
    width = values.get("hidden_size")
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": heads if kv_heads is None else kv_heads,
        "num_hidden_layers": values.get("n_layer"),
        "intermediate_size": values.get("ffn_hidden_size") or (4 * width if isinstance(width, int) else None),
        "hidden_act": values.get("activation"),
        "max_position_embeddings": 2048,
    } | {name: value for name, value in values.items() if value is not None}


def _row_order(name: str, size: Mapping[str, int]) -> np.ndarray | None:
    """Rows of all queries, then those of all keys, then those of all values."""
    if name != "attn_qkv.weight":
        return None
    kv_heads, head = size["kv heads"], size["head"]
    rows = np.arange(size["qkv"]).reshape(kv_heads, -1, head)
    return np.concatenate([rows[:, :-2].ravel(), rows[:, -2].ravel(), rows[:, -1].ravel()])


FALCON = Architecture(
    name="falcon",
    gguf=gguf.MODEL_ARCH.FALCON,
    block={
        "attn_norm.weight": ("embed",),
        "attn_norm.bias": ("embed",),
        "attn_qkv.weight": ("qkv", "embed"),
        "attn_output.weight": ("embed", "q"),
        "ffn_up.weight": ("ffn", "embed"),
        "ffn_down.weight": ("embed", "ffn"),
    },
    optional={"attn_norm_2.weight": ("embed",), "attn_norm_2.bias": ("embed",)},
    activation="gelu",
    row_order=_row_order,
    epsilon=("layer_norm_epsilon", "layer_norm_epsilon"),
    norm_bias=True,
    metadata=_metadata,
    complete=_complete,
)
