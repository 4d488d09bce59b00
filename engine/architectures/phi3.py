"""Phi-3, Phi-4-mini, Phi-4: Llama with fused projections, and halves of heads, or of a part of each, that rotate.

LongRoPE's factors are chosen by `rope.rope_factors_name`. The sliding window of Phi-3-mini's and Phi-3-medium's
config.json is left out, as in llama.cpp.
"""

from ..builder import Builder
from ..rows import Rows
from .llama import feed_forward, logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        b.split(name + "ffn_up", [(name + part, b.h.feed_forward_length) for part in ("ffn_gate", "ffn_up")])
        x = feed_forward(b, x, name)
    return logits(b, x)
