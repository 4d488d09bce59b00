"""Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values, and halves of heads that rotate."""

from ..builder import Builder
from ..rows import Rows
from .llama import feed_forward, logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        x = feed_forward(b, attend(b, x, f"blk.{layer}."), f"blk.{layer}.")
    return logits(b, x)


def attend(b: Builder, x: Rows, name: str) -> Rows:
    """x + the attention of a layer"""
    q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
    q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
    return b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
