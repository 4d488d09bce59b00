"""StableLM: layer norms, a part of halves of heads rotates, and gated SiLU.

Some norm each head of queries and keys; then the feed-forward may have the same input as attention (StableLM 2 12B).
"""

from ..builder import Builder
from ..layer_norm import layer_norm, layer_norm_heads, logits
from ..rows import Rows
from .llama import projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h = b.h
    x = b.embed("token_embd.weight")
    for layer in range(h.block_count):
        name = f"blk.{layer}."
        normed = layer_norm(b, x, name + "attn_norm")
        q, k, v = projections(b, normed, name)
        if b.has(name + "attn_q_norm.weight"):
            q = layer_norm_heads(b, q, name + "attn_q_norm", h.head_count)
        if b.has(name + "attn_k_norm.weight"):
            k = layer_norm_heads(b, k, name + "attn_k_norm", h.head_count_kv)
        q, k = b.rope(q, h.head_count, halves=True), b.rope(k, h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", h.embedding_length, add_to=x)
        if b.has(name + "ffn_norm.weight"):
            normed = layer_norm(b, x, name + "ffn_norm")
        hidden = b.gated(normed, name + "ffn_gate", name + "ffn_up", h.feed_forward_length)
        x = b.linear(hidden, name + "ffn_down", h.embedding_length, add_to=x)
    return logits(b, x)
