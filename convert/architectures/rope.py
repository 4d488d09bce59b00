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
    "yarn": {"attention_factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"},
    "llama3": {"low_freq_factor", "high_freq_factor"},
    "longrope": {"short_factor", "long_factor", "attention_factor"},
    "proportional": set(),
}
_LEAST, _MOST = 1e-6, 1e6  # of factors: the engine refuses others
_UNROTATED = 1e30  # but for this one, of pairs that stay as they are: llama.cpp's number
_GROWING = {"llama_4_scaling_beta", "max_position_embeddings"}  # what queries that grow with their position have
_SECTIONS = {"mrope_section", "mrope_interleaved"}  # what positions in pictures have; those of texts need none
_COMMON = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "partial_rotary_factor"}


def rope_base(config: Config) -> float:
    """rope_theta, which newer files keep among rope_parameters."""
    return config.section("rope_parameters").real("rope_theta", config.real("rope_theta", 10000.0))


def rope_scaling(config: Config, ropes: tuple[str, ...]) -> tuple[str, Config]:
    """The kind of scaling, a key of _KEYS, and its numbers. Raises LcpuError for another kind.

    ropes: those of "partial", "longrope", "growing" and "sections" that the architecture has.
    """
    name = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    scaling = config.section(name)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    kind = "longrope" if kind == "su" else kind  # the old name
    known = [key for key in _KEYS if key not in ("longrope", "proportional") or key in ropes]
    if kind not in known:
        raise config.error(name, f"is of the type {kind!r}; lcpu converts {', '.join(known)}")
    unknown = {key for key, value in scaling.values.items() if value is not None} - _KEYS[kind] - _COMMON
    unknown -= (_GROWING if "growing" in ropes else set()) | (_SECTIONS if "sections" in ropes else set())
    if unknown:
        raise config.error(name, f"of the type {kind!r} has {sorted(unknown)[0]!r}, which lcpu cannot convert")
    if _rotated_part(config, scaling) != 1.0 and kind != "proportional" and "partial" not in ropes:
        raise config.error("partial_rotary_factor", "is not 1: heads that rotate in part are not supported")
    return kind, scaling


def _rotated_part(config: Config, scaling: Config) -> float:
    return scaling.real("partial_rotary_factor", config.real("partial_rotary_factor", 1.0))


def rope_metadata(config: Config, head_dim: int, ropes: tuple[str, ...]) -> dict[str, Value]:
    """Keys of metadata. llama3 scaling is a tensor instead, and dynamic scaling begins after the context length."""
    kind, scaling = rope_scaling(config, ropes)
    keys: dict[str, Value] = {"rope.freq_base": rope_base(config),
                              "rope.dimension_count": head_dim if kind == "proportional" else
                              int(head_dim * _rotated_part(config, scaling))}
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": scaling.real("factor")}
    if kind == "yarn":
        length = scaling.count("original_max_position_embeddings", config.count("max_position_embeddings"))
        keys["rope.scaling.original_context_length"] = length
        if (wanted := _yarn_attention(scaling)) is not None:  # GGUF's comes on top of YaRN's own
            keys["rope.scaling.attn_factor"] = wanted / _yarn_magnitude(scaling.real("factor"), 1.0)
        if scaling.get("truncate") is not None:
            keys["rope.scaling.yarn_truncate"] = scaling.flag("truncate")
        for key in ("beta_fast", "beta_slow"):
            if scaling.get(key) is not None:
                keys[f"rope.scaling.yarn_{key}"] = scaling.real(key)
    if kind == "longrope":
        keys |= _longrope_metadata(config, scaling)
    return keys


def _yarn_attention(scaling: Config) -> float | None:
    """The factor of cos and sin where it is not YaRN's own."""
    if scaling.get("attention_factor") is not None:
        return scaling.real("attention_factor")
    if scaling.get("mscale") is None or scaling.get("mscale_all_dim") is None:
        return None
    above, below = (_yarn_magnitude(scaling.real("factor"), scaling.real(key)) for key in ("mscale", "mscale_all_dim"))
    return above / below


def _yarn_magnitude(factor: float, share: float) -> float:
    return 1 + 0.1 * share * math.log(factor) if factor > 1 else 1.0


def _longrope_metadata(config: Config, scaling: Config) -> dict[str, Value]:
    length = config.count("max_position_embeddings")
    original = scaling.count("original_max_position_embeddings",
                             config.count("original_max_position_embeddings", length))
    ratio = scaling.real("factor", length / original)
    own = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    return {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": original,
            "rope.scaling.attn_factor": scaling.real("attention_factor", own)}


def rope_factors(config: Config, head_dim: int, ropes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What divides the frequency of each pair: float32 [pairs], by the names of tensors.

    LongRoPE has two lists of them. Of Llama 3.1, waves much shorter than the original context stay, those much longer
    are stretched by `factor`, and in between the two are blended.
    """
    kind, scaling = rope_scaling(config, ropes)
    if kind == "longrope":
        pairs = int(head_dim * _rotated_part(config, scaling)) // 2
        return {f"rope_factors_{name}.weight": _list(config, scaling, f"{name}_factor", pairs)
                for name in ("long", "short")}
    if kind == "proportional":
        factors = np.full(head_dim // 2, _UNROTATED, np.float32)
        factors[: int(head_dim * _rotated_part(config, scaling) / 2)] = scaling.real("factor", 1.0)
        return {"rope_freqs.weight": factors}
    return {"rope_freqs.weight": _llama3_factors(config, scaling, head_dim)} if kind == "llama3" else {}


def _list(config: Config, scaling: Config, name: str, count: int) -> np.ndarray:
    values = scaling.get(name)
    if not (isinstance(values, list) and len(values) == count
            and all(type(value) in (int, float) and _LEAST <= value <= _MOST for value in values)):
        raise config.error(name, f"is not a list of {count} numbers from {_LEAST:g} to {_MOST:g}")
    return np.array(values, np.float32)


def _llama3_factors(config: Config, scaling: Config, head_dim: int) -> np.ndarray:
    factor, low, high = (scaling.real(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise config.error("rope_scaling", f"has low_freq_factor {low:g}, which is not below high_freq_factor {high:g}")
    wavelengths = 2 * math.pi * rope_base(config) ** (np.arange(0, head_dim, 2) / head_dim)
    turns = scaling.count("original_max_position_embeddings", 8192) / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors = 1 / ((1 - smooth) / factor + smooth)
    if not np.all((factors >= _LEAST) & (factors <= _MOST)):
        raise config.error("rope_scaling", f"has the factor {factor:g}, which is not 1e-06 to 1e+06")
    return factors.astype(np.float32)
