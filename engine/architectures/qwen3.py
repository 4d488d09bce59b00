"""Qwen 3, dense or with experts: like Qwen 2, with norms on each head of queries and keys instead of biases."""

from ..builder import Builder
from ..rows import Rows
from .llama import feed_forward, logits, norm_and_rotate, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = norm_and_rotate(b, q, k, name)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = feed_forward(b, x, name)
    return logits(b, x)
