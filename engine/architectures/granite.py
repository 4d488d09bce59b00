"""Granite 3 and 4, dense or with experts: Llama with factors for embeddings, halves of layers, scores and logits.

Neighbouring values rotate, or none in a file that says so. Experts are Mixtral's, and every token may have one more.
"""

from ..builder import Builder
from ..experts import add_experts
from ..rows import Rows
from .llama import logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h, keys = b.h, b.keys
    rotates = keys.flag("rope.scaling.finetuned", True)
    residual = keys.real("residual_scale", 0.0) or 1.0
    scale = keys.real("attention.scale", 0.0) or h.head_dim**-0.5
    x = b.scale(b.embed("token_embd.weight"), keys.real("embedding_scale", 0.0) or 1.0)
    for layer in range(h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        if rotates:
            q, k = b.rope(q, h.head_count), b.rope(k, h.head_count_kv)
        attended = b.attention(q, k, v, name, scale=scale)
        x = b.add(x, b.linear(attended, name + "attn_output", h.embedding_length), residual)
        x = _feed_forward(b, x, name, residual)
    return b.scale(logits(b, x), 1 / keys.real("logit_scale", low=1e-6))


def _feed_forward(b: Builder, x: Rows, name: str, residual: float) -> Rows:
    """x + residual * (the feed-forward of norm(x), or experts and the one that every token has)"""
    h, ending, width = b.h, "", b.h.feed_forward_length
    normed = b.rms_norm(x, name + "ffn_norm.weight")
    if h.expert_count:
        x = add_experts(b, x, normed, name, renormalize=True, factor=residual)
        if b.keys.get("expert_shared_feed_forward_length") in (None, 0):
            return x
        ending, width = "_shexp", h.expert_shared_feed_forward_length
    hidden = b.gated(normed, f"{name}ffn_gate{ending}", f"{name}ffn_up{ending}", width)
    return b.add(x, b.linear(hidden, f"{name}ffn_down{ending}", h.embedding_length), residual)
