"""Qwen 3, dense or with experts: like Qwen 2, with norms on each head of queries and keys instead of biases."""

from ..builder import Builder
from ..rows import Rows
from .llama import feed_forward, logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q = b.rms_norm_heads(q, name + "attn_q_norm.weight", b.h.head_count)
        k = b.rms_norm_heads(k, name + "attn_k_norm.weight", b.h.head_count_kv)
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = feed_forward(b, x, name)
    return logits(b, x)
