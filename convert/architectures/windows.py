"""Layers whose attention reaches back a few tokens only, in config.json and in metadata."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config

LOCAL_BASE = "rope_local_base_freq"  # of the rotations of layers with a window, in older files
_KINDS = {"sliding_attention": True, "full_attention": False}


def window_metadata(config: Config, period: int) -> dict[str, Value]:
    """The window, and which layers have it, if it is not all but the last of every `period`, which engines take."""
    if config.get("sliding_window") is None:
        return {"attention.sliding_window": 0}
    layers, flags = config.count("num_hidden_layers"), layer_kinds(config, period)
    keys: dict[str, Value] = {"attention.sliding_window": config.count("sliding_window")}
    if flags == _pattern(layers, period):
        return keys
    periods = (other for other in range(1, layers + 2) if flags == _pattern(layers, other))
    found = next(periods, None)
    return keys | {"attention.sliding_window_pattern": np.array(flags) if found is None else found}


def check_reads_back(config: Config) -> None:
    """Raises LcpuError for a model that reads ahead."""
    ahead = config.get("use_bidirectional_attention")
    if ahead in (True, "all"):
        raise config.error("use_bidirectional_attention", f"is {str(ahead).lower()}: lcpu does not run models that "
                                                          "read ahead")


def layer_kinds(config: Config, period: int) -> list[bool]:
    """Whether each layer has a window."""
    kinds = config.layer_kinds(_KINDS)
    if kinds is not None:
        return kinds
    return _pattern(config.count("num_hidden_layers"), config.count("sliding_window_pattern", period))


def _pattern(layers: int, period: int) -> list[bool]:
    return [(layer + 1) % period > 0 for layer in range(layers)]


def with_base_of_windows(values: dict[str, Any]) -> dict[str, Any]:
    """A config.json with the rotations of both kinds of layers as older files have them."""
    kinds = values.get("rope_parameters")
    if not isinstance(kinds, dict) or not isinstance(kinds.get("full_attention"), dict):
        return values
    local = kinds.get("sliding_attention")
    theta = local.get("rope_theta") if isinstance(local, dict) else None
    return values | {"rope_parameters": kinds["full_attention"], LOCAL_BASE: theta or values.get(LOCAL_BASE)}
