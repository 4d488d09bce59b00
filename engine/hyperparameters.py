"""The numbers that shape a transformer, read from GGUF metadata and checked.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; defaults: llama.cpp's (src/llama-model.cpp).
"""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..kernels.errors import LcpuError
from .gguf_file import GGUFFile
from .gguf_metadata import Value, array_length, with_way_out

_LOG = logging.getLogger("lcpu")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary angles are stretched for contexts longer than those of training.

    "linear" divides every angle by `factor`; "yarn" (arXiv:2309.00071) blends divided and plain angles by frequency.
    "longrope" (arXiv:2402.13753) divides each by a factor of its own, from tensors.
    """

    type: str  # "none", "linear", "yarn" or "longrope"
    factor: float  # 1 without scaling
    original_context_length: int  # of training, before scaling
    attention_factor: float  # multiplies cos and sin, whatever the type
    yarn_extrapolation_factor: float  # how much of the blend to use: 0 = all angles divided, 1 = YaRN
    yarn_beta_fast: float  # turns within the original context from which an angle stays plain
    yarn_beta_slow: float  # turns within the original context up to which an angle is divided whole
    yarn_truncate: bool = True  # whether the blend begins and ends at whole pairs


@dataclass(frozen=True)
class Hyperparameters:
    """The shape of a model: all counts are at least 1 and small enough that their products fit in 63 bits."""

    architecture: str
    context_length: int  # tokens the model was trained for
    embedding_length: int
    block_count: int  # layers
    feed_forward_length: int
    head_count: int  # query heads
    head_count_kv: int  # key and value heads; divides head_count
    head_dim: int  # of a query, key or value head; even
    rope_dimension_count: int  # of a head's values, how many rotate; even
    rope_freq_base: float
    rope_scaling: RopeScaling
    norm_epsilon: float  # of the RMS or layer norms
    vocab_size: int
    expert_count: int = 0  # 0: feed-forwards are dense
    expert_used_count: int = 0  # of the experts, how many a token has
    expert_feed_forward_length: int = 0  # of each expert
    expert_shared_feed_forward_length: int = 0  # of the expert that every token has


# The most that a count may be: generous for any model, and safe to multiply.
_LIMITS = {
    "context_length": 2**27,
    "embedding_length": 2**18,
    "block_count": 2**12,
    "feed_forward_length": 2**22,
    "attention.head_count": 2**12,
    "attention.head_count_kv": 2**12,
    "attention.key_length": 2**12,
    "attention.value_length": 2**12,
    "attention.key_length_swa": 2**12,
    "attention.sliding_window_pattern": 2**12,
    "rope.dimension_count": 2**12,
    "rope.dimension_count_swa": 2**12,
    "rope.scaling.original_context_length": 2**27,
    "vocab_size": 2**24,
    "expert_count": 2**12,
    "expert_used_count": 2**12,
    "expert_feed_forward_length": 2**22,
    "expert_shared_feed_forward_length": 2**22,
}
# Architectures that always have experts, those that may have them, and those of which llama.cpp takes a dense width to
# be that of all experts of a token, where the file does not say how wide one is.
_ALWAYS_EXPERTS = ("gpt-oss", "olmoe", "qwen2moe", "qwen3moe", "qwen35moe", "granitemoe", "lfm2moe")
_WITH_EXPERTS = ("llama", "gemma4", *_ALWAYS_EXPERTS)
_WIDTH_OF_ALL = ("qwen2moe", "qwen3moe", "qwen35moe")
_LARGEST = 2**27  # of counts that few architectures have
# Architectures whose layers may differ in counts, of which the largest is the model's.
_UNLIKE_LAYERS = ("gemma4", "lfm2", "lfm2moe")

_MISSING = "is missing: the file is not a model that lcpu can run, or damaged"


class Keys:
    """The keys of one architecture, by their names without the `<architecture>.` prefix. Methods raise LcpuError.

    `read` reads those that all architectures have, and the files in architectures/ what theirs have besides.
    """

    def __init__(self, metadata: Mapping[str, Value], source: str | Path, told: Mapping[str, int] | None = None):
        self.metadata = metadata
        self.told = told or {}  # what counts instead
        self.source = source
        architecture = metadata.get("general.architecture")
        if not (isinstance(architecture, str) and architecture.isprintable() and 0 < len(architecture) <= 64):
            raise LcpuError(f"{source}: key 'general.architecture' is missing or not a name: not a language model; "
                            "take another file")
        self.architecture = architecture

    def error(self, name: str, cause: str) -> LcpuError:
        return LcpuError(f"{self.source}: key '{self.architecture}.{name}' {with_way_out(cause)}")

    def get(self, name: str) -> Value | None:
        return self.told.get(name) or self.metadata.get(f"{self.architecture}.{name}")

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number up to its limit, or equal ones for all layers. Without a default it must be there."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.error(name, _MISSING)
            return default
        if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "iu":
            if np.any(value != value[0]):
                if self.architecture in _UNLIKE_LAYERS:
                    return self._checked(name, max(self.counts(name, len(value), least=0)), least)
                raise self.error(name, "differs between layers, which lcpu does not support; take another model")
            value = int(value[0])
        return self._checked(name, value, least)

    def counts(self, name: str, size: int, default: int | None = None, *, least: int = 1) -> list[int]:
        """A whole number for each of `size` layers, or the same for all. Longer arrays are cut."""
        value = self.get(name)
        if not isinstance(value, np.ndarray):
            return [self.count(name, default, least=least)] * size
        if value.ndim != 1 or value.dtype.kind not in "iu" or len(value) < size:
            raise self.error(name, f"has {len(value)} values that are not whole numbers for {size} layers: damaged")
        return [self._checked(name, int(each), least) for each in value[:size]]

    def _checked(self, name: str, value: Value, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"is {_shown(value)}, not a whole number: damaged")
        most = _LIMITS.get(name, _LARGEST)
        if not least <= value <= most:
            raise self.error(name, f"is {value}, not {least} to {most}: damaged")
        return value

    def real(self, name: str, default: float | None = None, low: float = 0.0, high: float = 1e12) -> float:
        """A number from `low` to `high`. Without a default it must be there."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.error(name, _MISSING)
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(name, f"is {_shown(value)}, not a number: damaged")
        if not (math.isfinite(value) and low <= value <= high):
            raise self.error(name, f"is {value}, not {low:g} to {high:g}: damaged")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, (bool, np.bool_)):
            raise self.error(name, f"is {_shown(value)}, not true or false: damaged")
        return bool(value)

    def flags(self, name: str, size: int) -> list[bool] | None:
        """True or false for each of `size` layers; None where the key is no array. Longer arrays are cut."""
        value = self.get(name)
        if not isinstance(value, (list, np.ndarray)):
            return None
        flags = np.asarray(value)
        if flags.ndim != 1 or flags.dtype.kind not in "biu" or len(flags) < size:
            raise self.error(name, f"has {len(flags)} values that are not true or false for {size} layers: damaged")
        return [bool(flag) for flag in flags[:size]]


def _shown(value: Value) -> str:
    """A value as it is shown in an error, on one line."""
    return str(value) if isinstance(value, (int, float)) else f"{type(value).__name__} {str(value)[:40]!r}"


# Counts that the tensors of a model tell: patterns of their names, and which dimension it is.
_TOLD_BY_TENSORS = {
    "vocab_size": ((r"(token_embd|output)\.weight", -2),),
    "embedding_length": ((r"token_embd\.weight", -1), (r"(blk\.\d+\.(attn|ffn)|output)_norm\.weight", -1)),
    "feed_forward_length": ((r"blk\.\d+\.ffn_(gate|up)\.weight", -2), (r"blk\.\d+\.ffn_down\.weight", -1)),
}


def of_file(file: GGUFFile) -> Hyperparameters:
    """The hyperparameters of a model. Where its tensors agree on a count and the metadata have another, tensors count.

    Raises LcpuError for a missing, wrong or unsupported value.
    """
    architecture = file.metadata.get("general.architecture")
    told = {}
    for name, places in _TOLD_BY_TENSORS.items():
        counts = {info.shape[dimension] for pattern, dimension in places for info in file.tensors.values()
                  if len(info.shape) >= -dimension and re.fullmatch(pattern, info.name)}
        key = f"{architecture}.{name}"
        stated = file.metadata.get(key)
        if name == "vocab_size" and stated is None:
            key, stated = "tokenizer.ggml.tokens", array_length(file.metadata, "tokenizer.ggml.tokens")
        if len(counts) == 1 and type(stated) is int and stated > 0 and stated not in counts:
            told[name], = counts
            _LOG.info("%s: key '%s' says %d, but the tensors say %d: %d is used", file.path, key, stated, told[name],
                      told[name])
    _check_blocks(file, architecture)
    return read(file.metadata, file.path, told)


def _check_blocks(file: GGUFFile, architecture: Value | None) -> None:
    """A key that leaves out layers that are there would compute nonsense."""
    key = f"{architecture}.block_count"
    blocks = [int(match[1]) + 1 for name in file.tensors if (match := re.match(r"blk\.(\d{1,6})\.", name))]
    stated = file.metadata.get(key)
    if blocks and type(stated) is int and 0 < stated < max(blocks):
        raise LcpuError(f"{file.path}: key '{key}' is {stated}, but there are tensors of {max(blocks)} blocks: "
                        "badly converted, get another file of the model")


def read(metadata: Mapping[str, Value], source: str | Path = "model",
         told: Mapping[str, int] | None = None) -> Hyperparameters:
    """The hyperparameters of a model, from the metadata of its GGUF file.

    `source` names the file in errors; what is `told`, by name without the architecture, counts instead of a key. Raises
    LcpuError for a missing, wrong or unsupported value.
    """
    keys = Keys(metadata, source, told)
    experts = _experts(keys)
    context_length = keys.count("context_length")
    embedding_length = keys.count("embedding_length")
    head_count = keys.count("attention.head_count")
    head_count_kv = keys.count("attention.head_count_kv", default=head_count)
    if head_count % head_count_kv:
        raise keys.error("attention.head_count_kv", f"is {head_count_kv}, which does not divide the {head_count} "
                         "heads: damaged")
    head_dim = _head_dim(keys, embedding_length, head_count)
    rope_dimension_count = keys.count("rope.dimension_count", default=head_dim)
    if rope_dimension_count > head_dim or rope_dimension_count % 2:
        cause = f"is {rope_dimension_count}, not an even number of at most the head size {head_dim}: damaged"
        raise keys.error("rope.dimension_count", cause)
    vocab_size = keys.count("vocab_size", default=array_length(metadata, "tokenizer.ggml.tokens"))
    if vocab_size == 0:
        raise keys.error("vocab_size", "is missing and so are the tokens: the file has no vocabulary; take another one")
    return Hyperparameters(
        architecture=keys.architecture,
        context_length=context_length,
        embedding_length=embedding_length,
        block_count=keys.count("block_count"),
        feed_forward_length=_feed_forward(keys),
        head_count=head_count,
        head_count_kv=head_count_kv,
        head_dim=head_dim,
        rope_dimension_count=rope_dimension_count,
        rope_freq_base=keys.real("rope.freq_base", default=10000.0, low=2.0),
        rope_scaling=_rope_scaling(keys, context_length),
        norm_epsilon=_norm_epsilon(keys),
        vocab_size=vocab_size,
        **experts,
    )


def _norm_epsilon(keys: Keys) -> float:
    """Of RMS norms, or of layer norms where the file has no other."""
    rms, layer = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
    return keys.real(layer if keys.get(rms) is None and keys.get(layer) is not None else rms, high=1.0)


def _feed_forward(keys: Keys) -> int:
    """Of a dense layer. Files of models that have none may leave it out."""
    missing = keys.get("feed_forward_length") is None and keys.get("expert_feed_forward_length") is not None
    return keys.count("expert_feed_forward_length" if missing else "feed_forward_length")


def _experts(keys: Keys) -> dict[str, int]:
    """How many experts there are, how many of them a token has, and how wide they are. Empty for dense models."""
    stated = keys.get("expert_count")
    if stated is None or (isinstance(stated, int) and stated == 0):
        if keys.architecture in _ALWAYS_EXPERTS:
            raise keys.error("expert_count", _MISSING)
        return {}
    if keys.architecture not in _WITH_EXPERTS:
        raise keys.error("expert_count", f"is {_shown(stated)}: mixture-of-experts models of this architecture are not "
                         "supported; take a dense model")
    count, used = keys.count("expert_count"), keys.count("expert_used_count")
    if used > count:
        raise keys.error("expert_used_count", f"is {used}, but there are {count} experts: damaged")
    dense = _feed_forward(keys)
    width = max(1, dense // used) if keys.architecture in _WIDTH_OF_ALL else dense
    return {"expert_count": count, "expert_used_count": used,
            "expert_feed_forward_length": keys.count("expert_feed_forward_length", width),
            "expert_shared_feed_forward_length": keys.count("expert_shared_feed_forward_length", dense, least=0)}


def _head_dim(keys: Keys, embedding_length: int, head_count: int) -> int:
    if keys.get("attention.key_length") is None and embedding_length % head_count:
        cause = f"is {head_count}, which does not divide the embedding length {embedding_length}: damaged"
        raise keys.error("attention.head_count", cause)
    head_dim = keys.count("attention.key_length", default=embedding_length // head_count)
    value_length = keys.count("attention.value_length", default=head_dim)
    if value_length != head_dim:
        cause = (f"is {value_length} but keys have {head_dim} values: different sizes are not supported; take "
                 "another model")
        raise keys.error("attention.value_length", cause)
    return check_head_dim(keys, head_dim)


def check_head_dim(keys: Keys, head_dim: int) -> int:
    """Raises LcpuError for a size of heads that attention does not have."""
    if not 8 <= head_dim <= 512 or head_dim % 2:
        cause = f"heads have {head_dim} values; lcpu supports even numbers from 8 to 512; take another model"
        raise LcpuError(f"{keys.source}: {cause}")
    return head_dim


def _rope_scaling(keys: Keys, context_length: int) -> RopeScaling:
    kind = keys.get("rope.scaling.type")
    if kind is None:
        kind = "linear"
    if not isinstance(kind, str) or kind not in ("none", "linear", "yarn", "longrope"):
        raise keys.error("rope.scaling.type", f"is {_shown(kind)}: lcpu supports none, linear, yarn and longrope; take "
                         "another model")
    name = "rope.scale_linear" if keys.get("rope.scaling.factor") is None else "rope.scaling.factor"  # the old name
    factor = keys.real(name, default=1.0, high=1e6)
    if kind == "none" or factor == 0.0:  # as in llama.cpp, 0 means no scaling
        factor = 1.0
    if factor < 1e-3:
        raise keys.error(name, f"is {factor}, not 0 or 0.001 to 1e+06: damaged")
    log_multiplier = keys.real("rope.scaling.yarn_log_multiplier", default=0.0) if kind == "yarn" else 0.0
    own = 1.0 + 0.1 * log_multiplier * math.log(factor) if factor > 1.0 else 1.0  # takes YaRN's own factor away again
    return RopeScaling(
        type="none" if kind == "linear" and factor == 1.0 else kind,
        factor=factor,
        original_context_length=keys.count("rope.scaling.original_context_length", default=context_length),
        attention_factor=keys.real("rope.scaling.attn_factor", default=1.0, low=1e-3, high=1e3) / own,
        yarn_extrapolation_factor=keys.real("rope.scaling.yarn_ext_factor", default=1.0, high=1.0),
        yarn_beta_fast=keys.real("rope.scaling.yarn_beta_fast", default=32.0, low=1e-3, high=1e6),
        yarn_beta_slow=keys.real("rope.scaling.yarn_beta_slow", default=1.0, low=1e-3, high=1e6),
        # Of gpt-oss, no model was trained with it. It is lcpu's key: llama.cpp takes whole pairs for all models.
        yarn_truncate=keys.flag("rope.scaling.yarn_truncate", keys.architecture != "gpt-oss"),
    )
