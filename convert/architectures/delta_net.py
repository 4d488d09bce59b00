"""Gated delta nets in config.json: their sizes, and where the rows and columns of their tensors go.

A checkpoint has the value heads of one key head side by side, and GGUF those with the same place: the key head of value
head h is h % key heads. Source: llama.cpp's converter (conversion/qwen.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config

_VALUE_ROWS = ("attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias")
_ALL_ROWS = ("attn_qkv.weight", "ssm_conv1d.weight")  # queries, keys and values

# What a block has.
DELTA_NET: dict[str, tuple[str, ...]] = {
    "attn_qkv.weight": ("mixed", "embed"),
    "attn_gate.weight": ("inner", "embed"),
    "ssm_conv1d.weight": ("mixed", "taps"),
    "ssm_dt.bias": ("value heads",),
    "ssm_a": ("value heads",),
    "ssm_alpha.weight": ("value heads", "embed"),
    "ssm_beta.weight": ("value heads", "embed"),
    "ssm_norm.weight": ("state",),
    "ssm_out.weight": ("embed", "inner"),
}


def delta_net_sizes(config: Config) -> dict[str, int]:
    """What names in shapes stand for; nothing for models without delta nets."""
    if config.get("linear_num_key_heads") is None:
        return {}
    heads, key_heads = (config.count(f"linear_num_{kind}_heads", most=2**12) for kind in ("value", "key"))
    size = config.count("linear_key_head_dim", most=2**12)
    value_size = config.get("linear_value_head_dim")
    if value_size != size or heads % key_heads:
        raise config.error("linear_value_head_dim", f"is {value_size!r:.80}; lcpu converts delta nets whose keys and "
                           "values have one size, and whose value heads share key heads evenly")
    return {"key heads": key_heads, "value heads": heads, "state": size, "inner": heads * size,
            "mixed": (2 * key_heads + heads) * size, "taps": config.count("linear_conv_kernel_dim", most=2**8)}


def delta_net_metadata(config: Config) -> dict[str, Value]:
    size = delta_net_sizes(config)
    names = {"conv_kernel": "taps", "state_size": "state", "group_count": "key heads",
             "time_step_rank": "value heads", "inner_size": "inner"}
    return {f"ssm.{key}": size[name] for key, name in names.items()}


def row_order(name: str, size: Mapping[str, int]) -> np.ndarray | None:
    """Where the rows of a tensor come from; None if they stay."""
    if name not in _VALUE_ROWS + _ALL_ROWS or size["value heads"] == size["key heads"]:
        return None
    if name in _VALUE_ROWS:
        return _tiled(size, size["state"] if name == "attn_gate.weight" else 1)
    before = 2 * size["key heads"] * size["state"]
    return np.concatenate([np.arange(before), before + _tiled(size, size["state"])])


def column_order(name: str, size: Mapping[str, int]) -> np.ndarray | None:
    """Where the columns of a tensor come from; None if they stay."""
    return _tiled(size, size["state"]) if name == "ssm_out.weight" and size["value heads"] > size["key heads"] else None


def _tiled(size: Mapping[str, int], width: int) -> np.ndarray:
    """Where value heads of so many numbers come from."""
    return np.arange(size["value heads"] * width).reshape(size["key heads"], -1, width).swapaxes(0, 1).ravel()
