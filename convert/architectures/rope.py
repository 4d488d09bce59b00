"""Rotary embeddings in config.json: the base of frequencies, and how they are stretched for long contexts."""

from __future__ import annotations

import math

import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config

# What a scaling may say besides. Any other key would change angles in a way that GGUF cannot tell.
_KEYS = {
    "default": set(),
    "linear": set(),
    "dynamic": set(),
    "yarn": {"attention_factor", "beta_fast", "beta_slow", "truncate"},
    "llama3": {"low_freq_factor", "high_freq_factor"},
}
_COMMON = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "partial_rotary_factor"}


def rope_base(config: Config) -> float:
    """rope_theta, which newer files keep among rope_parameters."""
    return config.section("rope_parameters").real("rope_theta", config.real("rope_theta", 10000.0))


def rope_scaling(config: Config) -> tuple[str, Config]:
    """The kind of scaling, a key of _KEYS, and its numbers. Raises LcpuError for another kind."""
    name = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    scaling = config.section(name)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if not isinstance(kind, str) or kind not in _KEYS:
        raise config.error(name, f"is of the type {kind!r}; lcpu converts {', '.join(_KEYS)}")
    unknown = {key for key, value in scaling.values.items() if value is not None} - _KEYS[kind] - _COMMON
    if unknown:
        raise config.error(name, f"of the type {kind!r} has {sorted(unknown)[0]!r}, which lcpu cannot convert")
    if scaling.real("partial_rotary_factor", config.real("partial_rotary_factor", 1.0)) != 1.0:
        raise config.error("partial_rotary_factor", "is not 1: heads that rotate in part are not supported")
    return kind, scaling


def rope_metadata(config: Config) -> dict[str, Value]:
    """Keys of metadata. llama3 scaling is a tensor instead, and dynamic scaling begins after the context length."""
    keys: dict[str, Value] = {"rope.freq_base": rope_base(config)}
    kind, scaling = rope_scaling(config)
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": scaling.real("factor")}
    if kind == "yarn":
        length = scaling.count("original_max_position_embeddings", config.count("max_position_embeddings"))
        keys["rope.scaling.original_context_length"] = length
        if scaling.get("attention_factor") is not None:  # GGUF's comes on top of YaRN's own
            own = 1 + 0.1 * math.log(scaling.real("factor"))
            keys["rope.scaling.attn_factor"] = scaling.real("attention_factor") / own
        if scaling.get("truncate") is not None:
            keys["rope.scaling.yarn_truncate"] = scaling.flag("truncate")
        for key in ("beta_fast", "beta_slow"):
            if scaling.get(key) is not None:
                keys[f"rope.scaling.yarn_{key}"] = scaling.real(key)
    return keys


def rope_factors(config: Config, head_dim: int) -> np.ndarray | None:
    """What divides the frequency of each pair: float32 [head_dim / 2], the tensor `rope_freqs` of Llama 3.1.

    Waves much shorter than the original context stay, those much longer are stretched by `factor`, and in between the
    two are blended.
    """
    kind, scaling = rope_scaling(config)
    if kind != "llama3":
        return None
    factor, low, high = (scaling.real(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise config.error("rope_scaling", f"has low_freq_factor {low:g}, which is not below high_freq_factor {high:g}")
    wavelengths = 2 * math.pi * rope_base(config) ** (np.arange(0, head_dim, 2) / head_dim)
    turns = scaling.count("original_max_position_embeddings", 8192) / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors = 1 / ((1 - smooth) / factor + smooth)
    if not np.all((factors >= 1e-6) & (factors <= 1e6)):  # which the engine would refuse
        raise config.error("rope_scaling", f"has the factor {factor:g}, which is not 1e-06 to 1e+06")
    return factors.astype(np.float32)
