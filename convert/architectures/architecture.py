"""What an architecture is: the tensors that it has, and how config.json becomes metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .delta_net import delta_net_sizes
from .rope import rope_metadata

# The shape of a tensor is written in the names of sizes: "embed", "ffn", "q" (query heads times head size), "kv",
# "head", "vocab", "experts", "expert ffn", "shared ffn", "qkv" (q, k and v in one), "gate and up" (in one),
# "q and gate" (in one), and those of `delta_net`. Where blocks differ in sizes, there are numbers instead.
Shape = tuple[str | int, ...]
Change = Callable[[np.ndarray], np.ndarray]  # of float32

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # keys of config.json

# What a block of every decoder with gated feed-forward has, by GGUF's names.
DECODER_BLOCK: dict[str, Shape] = {
    "attn_norm.weight": ("embed",),
    "attn_q.weight": ("q", "embed"),
    "attn_k.weight": ("kv", "embed"),
    "attn_v.weight": ("kv", "embed"),
    "attn_output.weight": ("embed", "q"),
    "ffn_norm.weight": ("embed",),
    "ffn_gate.weight": ("ffn", "embed"),
    "ffn_up.weight": ("ffn", "embed"),
    "ffn_down.weight": ("embed", "ffn"),
}
QKV_BIASES: dict[str, Shape] = {"attn_q.bias": ("q",), "attn_k.bias": ("kv",), "attn_v.bias": ("kv",)}
OTHER_BIASES: dict[str, Shape] = {
    "attn_output.bias": ("embed",),
    "ffn_gate.bias": ("ffn",),
    "ffn_up.bias": ("ffn",),
    "ffn_down.bias": ("embed",),
}


def plus_one(weight: np.ndarray) -> np.ndarray:
    """What a norm multiplies with, where the model adds 1 to its weight: in GGUF, that is done already."""
    return weight + np.float32(1)


@dataclass(frozen=True)
class Architecture:
    """A GGUF architecture, and what its checkpoints look like."""

    name: str  # general.architecture
    gguf: gguf.MODEL_ARCH  # whose names tensors have
    block: Mapping[str, Shape]  # the tensors of each block
    optional: Mapping[str, Shape] = field(default_factory=dict)  # tensors that a block may have
    kinds: Callable[[Config], Sequence[Mapping[str, Shape]]] = lambda config: ()  # what each block has besides, where
    # blocks are of several kinds
    beside: Callable[[Config], Mapping[str, Shape]] = lambda config: {}  # tensors of no block that few models have
    spare: Callable[[Config], Iterable[str]] = lambda config: ()  # tensors that nothing reads, though some checkpoints
    # have them
    other_names: Mapping[str, str] = field(default_factory=dict)  # endings the gguf package does not know: GGUF's name
    activation: str = "silu"  # hidden_act or hidden_activation
    activation_aliases: tuple[str, ...] = ()  # what else means the same
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tensors of all experts, by the ends of their
    # names: those whose rows they have in turn. Floats are [experts, k, rows], quantized ones [experts, rows, k].
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tensors, by the ends of their names, that have
    # the rows of others one after the other
    interleaved_rope: bool = False  # rotates neighbouring values, not halves: rows of q and k change places
    has_output: bool = True  # may have an output layer of its own, not only the transposed embedding
    ropes: tuple[str, ...] = ()  # of "partial": a part of each head rotates; "longrope": angles have two sets of
    # factors; "growing": queries grow with their position; "sections": pictures have positions of several dimensions;
    # "proportional": of the pairs of each head, those that turn fast rotate
    row_order: Callable[[str, Mapping[str, int]], np.ndarray | None] = lambda name, size: None  # where the rows of a
    # block's tensor come from, if they change places; its name without "blk.N."
    column_order: Callable[[str, Mapping[str, int]], np.ndarray | None] = lambda name, size: None  # and its columns
    keeps_merges: bool = False  # a vocabulary of characters has merges in GGUF, too, not scores
    is_ternary: bool = False  # block matrices are ternary whatever config.json says
    epsilon: tuple[str, str] = ("rms_norm_eps", "layer_norm_rms_epsilon")  # of norms, in config.json and in metadata
    norm_bias: bool = False  # the last norm has a bias
    output_norm: str = "output_norm"  # GGUF's name of the last norm
    changes: Mapping[str, Change] = field(default_factory=dict)  # what values of vectors become, by the ends of names
    prefixes: tuple[tuple[str, str], ...] = ()  # how names begin, where it is otherwise, and how they should
    parts: Mapping[str, str] = field(default_factory=dict)  # how names of tensors begin that are left out: what to say
    context_length: int = 2048  # of models that do not say
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict  # config.json with defaults, in the older form
    metadata: Callable[[Config], dict[str, Value]] = lambda config: {}  # further keys, without "<architecture>."


def sizes(config: Config) -> dict[str, int]:
    """What the names in shapes stand for."""
    heads = config.count("num_attention_heads")
    embed = config.count("hidden_size")
    if config.get("head_dim") is None and embed % heads:
        raise config.error("num_attention_heads", f"is {heads}, which does not divide hidden_size, {embed}")
    head = config.count("head_dim", embed // heads)
    kv_heads = config.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"is {kv_heads}, which does not divide the {heads} heads")
    feed_forward = config.count("intermediate_size")
    experts = next((config.count(key, most=2**16) for key in _EXPERTS if config.get(key) is not None), 0)
    return {
        "embed": embed,
        "ffn": feed_forward,
        "heads": heads,
        "kv heads": kv_heads,
        "head": head,
        "q": heads * head,
        "q and gate": 2 * heads * head,
        "kv": kv_heads * head,
        "qkv": (heads + 2 * kv_heads) * head,
        "gate and up": 2 * feed_forward,
        "experts": experts,
        "expert ffn": config.count("moe_intermediate_size", feed_forward),
        "shared ffn": config.count("shared_expert_intermediate_size", feed_forward),
        "vocab": config.count("vocab_size", most=2**24),
        "blocks": config.count("num_hidden_layers", most=2**12),
        **delta_net_sizes(config),
    }


def hyperparameters(architecture: Architecture, config: Config) -> dict[str, Value]:
    """The metadata under the name of the architecture, as llama.cpp's converter writes it."""
    size = sizes(config)
    key = "hidden_act" if config.get("hidden_activation") is None else "hidden_activation"
    activation = config.get(key) or architecture.activation
    if activation not in (architecture.activation, *architecture.activation_aliases):
        cause = f"is {activation!r}; lcpu converts {architecture.name} models with {architecture.activation!r}"
        raise config.error(key, cause)
    keys: dict[str, Value] = {
        "block_count": size["blocks"],
        "context_length": config.count("max_position_embeddings", architecture.context_length),
        "embedding_length": size["embed"],
        "feed_forward_length": size["ffn"],
        "attention.head_count": size["heads"],
        "attention.head_count_kv": size["kv heads"],
        f"attention.{architecture.epsilon[1]}": config.real(architecture.epsilon[0], 1e-6),
        "vocab_size": size["vocab"],
    }
    if config.get("head_dim") is not None:
        keys |= {"attention.key_length": size["head"], "attention.value_length": size["head"]}
    keys |= rope_metadata(config, size["head"], architecture.ropes) | architecture.metadata(config)
    return {f"{architecture.name}.{key}": value for key, value in keys.items()}
