"""Ministral 3 and Mistral Small 3: Llama with YaRN, and queries that grow with their position."""

from ..builder import Builder
from ..positions import PositionScale
from ..rows import Rows
from .llama import feed_forward, logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h, slope = b.h, b.keys.real("attention.temperature_scale", 0.0)
    grow = PositionScale(b, slope, h.rope_scaling.original_context_length) if slope else lambda q: q
    x = b.embed("token_embd.weight")
    for layer in range(h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = grow(b.rope(q, h.head_count)), b.rope(k, h.head_count_kv)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", h.embedding_length, add_to=x)
        x = feed_forward(b, x, name)
    return logits(b, x)
