"""SmolLM3: Llama, but nothing rotates in every fourth layer."""

from ..builder import Builder
from ..rows import Rows
from .llama import feed_forward, logits, projections

_PERIOD = 4  # llama.cpp's: files do not say


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        if (layer + 1) % _PERIOD:
            q, k = b.rope(q, b.h.head_count), b.rope(k, b.h.head_count_kv)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = feed_forward(b, x, name)
    return logits(b, x)
