"""Gemma: like Llama, with scaled embeddings, halves of heads that rotate, and GELU instead of SiLU.

The 1 that the checkpoints' norms add to their weights is in the weights of a GGUF file.
"""

import math

from ..builder import Builder
from ..rows import Rows
from .llama import logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = embed(b)
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = b.linear(hidden(b, x, name), name + "ffn_down", b.h.embedding_length, add_to=x)
    return logits(b, x)


def embed(b: Builder) -> Rows:
    """The embeddings times sqrt(their length)."""
    return b.scale(b.embed("token_embd.weight"), math.sqrt(b.h.embedding_length))


def hidden(b: Builder, x: Rows, name: str) -> Rows:
    """GELU(gate . norm(x)) * up . norm(x)"""
    normed = b.rms_norm(x, name + "ffn_norm.weight")
    return b.gated(normed, name + "ffn_gate", name + "ffn_up", b.h.feed_forward_length, "gelu")
