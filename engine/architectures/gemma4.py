"""Gemma 4: Gemma 3 with heads of another size in layers without a window, and norms of values.

Layers without a window may have the keys as values, too. The last ones may have no keys and values, but see those of
the last layer of their kind that has. Small models (E2B, E4B) have embeddings for each layer; others (26B-A4B) have
experts beside the dense feed-forward. Names are llama.cpp's.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..attention import Kept, attend, keep
from ..builder import Builder
from ..experts import add_experts
from ..hyperparameters import check_head_dim
from ..per_layer import PerLayerEmbeddings
from ..post_norms import add_rms_norm
from ..rope import RopeTable
from ..rows import Rows
from ..windows import layer_windows, rope_tables
from .gemma import embed
from .gemma2 import capped
from .llama import logits


@dataclass(frozen=True)
class _Layer:
    """What differs between layers."""

    name: str  # what its tensors begin with
    window: int
    table: RopeTable
    head_dim: int
    kv_heads: int
    feed_forward: int
    keeps: bool  # keys and values of its own


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    per_layer = b.keys.count("embedding_length_per_layer_input", 0, least=0)
    x = embed(b)
    embeddings = PerLayerEmbeddings(b, x, per_layer) if per_layer else None
    kept: dict[bool, Kept] = {}  # of the last layer with and without a window that has keys and values
    for number, layer in enumerate(_layers(b)):
        x = _attend(b, x, layer, kept)
        x = _feed_forward(b, x, layer)
        x = embeddings.add(x, number) if embeddings else x
        scale = f"{layer.name}layer_output_scale.weight"
        x = b.scale(x, float(b.tensors.flat(scale, 1)[0])) if b.has(scale) else x
    return capped(b, logits(b, x), b.keys.real("final_logit_softcapping", 0.0))


def _layers(b: Builder) -> list[_Layer]:
    h, keys = b.h, b.keys
    windows = layer_windows(b, period=6)
    head_dim = check_head_dim(keys, keys.count("attention.key_length_swa", h.head_dim))
    if keys.count("attention.value_length_swa", head_dim) != head_dim:
        raise keys.error("attention.value_length_swa", f"is not {head_dim}, the size of keys: not supported; take "
                                                       "another model")
    rotated = keys.count("rope.dimension_count_swa", head_dim)
    if rotated > head_dim or rotated % 2:
        raise keys.error("rope.dimension_count_swa", f"is {rotated}, not an even number of at most {head_dim}: damaged")
    tables = rope_tables(b, windows, base=10000.0, rotated=rotated)
    kv_heads = keys.counts("attention.head_count_kv", h.block_count)
    for count in kv_heads:
        if h.head_count % count:
            raise keys.error("attention.head_count_kv", f"has {count}, which does not divide the {h.head_count} heads: "
                                                        "damaged")
    widths = keys.counts("feed_forward_length", h.block_count)
    shared = keys.count("attention.shared_kv_layers", 0, least=0)
    return [_Layer(f"blk.{i}.", windows[i], tables[i], head_dim if windows[i] else h.head_dim, kv_heads[i], widths[i],
                   keeps=i < h.block_count - shared) for i in range(h.block_count)]


def _attend(b: Builder, x: Rows, layer: _Layer, kept: dict[bool, Kept]) -> Rows:
    """x + norm(output . attention(norm(x)))"""
    h, name, width = b.h, layer.name, layer.kv_heads * layer.head_dim
    outputs = [(name + "attn_q", h.head_count * layer.head_dim)]
    if layer.keeps:
        outputs += [(name + part, width) for part in ("attn_k", "attn_v") if b.has(f"{name}{part}.weight")
                    or part == "attn_k"]
    q, *keys_and_values = b.linears(b.rms_norm(x, name + "attn_norm.weight"), outputs)
    q = b.rms_norm_heads(q, name + "attn_q_norm.weight", h.head_count)
    q = b.rope(q, h.head_count, halves=True, table=layer.table)
    is_local = layer.window > 0
    if layer.keeps:
        k = keys_and_values[0]
        v = keys_and_values[1] if len(keys_and_values) > 1 else b.copy(k, "attn_v")
        v = b.rms_norm_heads(v, None, layer.kv_heads)
        k = b.rms_norm_heads(k, name + "attn_k_norm.weight", layer.kv_heads)
        k = b.rope(k, layer.kv_heads, halves=True, table=layer.table)
        kept[is_local] = keep(b, k, v, name, layer.head_dim)
    elif is_local not in kept:
        raise b.keys.error("attention.shared_kv_layers", "leaves no keys and values for one kind of layers: damaged")
    attended = attend(b, q, kept[is_local], window=layer.window, scale=1.0)
    return add_rms_norm(b, x, b.linear(attended, name + "attn_output", x.width), name + "post_attention_norm.weight")


def _feed_forward(b: Builder, x: Rows, layer: _Layer) -> Rows:
    """x + norm(the feed-forward of norm(x)), or the norm of a sum of two: of that, normed, and of experts'."""
    name = layer.name
    normed = b.rms_norm(x, name + "ffn_norm.weight")
    hidden = b.gated(normed, name + "ffn_gate", name + "ffn_up", layer.feed_forward, "gelu")
    y = b.linear(hidden, name + "ffn_down", x.width)
    if b.has(name + "ffn_gate_inp.weight"):
        y = b.rms_norm(y, name + "post_ffw_norm_1.weight", memory="feed-forward")
        y = add_rms_norm(b, y, _experts(b, x, name), name + "post_ffw_norm_2.weight")
    return add_rms_norm(b, x, y, name + "post_ffw_norm.weight")


def _experts(b: Builder, x: Rows, name: str) -> Rows:
    """The router has a norm of its own, whose weight is named like a scale of its matrix."""
    b.matrix(name + "ffn_gate_inp.weight", b.h.expert_count, x.width, is_scaled=False)
    routed = b.rms_norm(x, name + "ffn_gate_inp.scale", factor=x.width**-0.5, memory="router")
    normed = b.rms_norm(x, name + "pre_ffw_norm_2.weight")
    return add_experts(b, None, normed, name, renormalize=True, activation="gelu", router_input=routed)
