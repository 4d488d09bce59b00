"""Falcon: attention and a feed-forward without a gate have one input, the layer norm of x; halves of heads rotate.

Falcon 40B norms x for attention once more.
"""

from ..builder import Builder
from ..layer_norm import add_mlp, layer_norm, logits
from ..rows import Rows
from .llama import projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        normed = layer_norm(b, x, name + "attn_norm")
        own = layer_norm(b, x, name + "attn_norm_2", memory="norm 2") if b.has(name + "attn_norm_2.weight") else normed
        q, k, v = projections(b, own, name)
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = add_mlp(b, x, normed, name, "gelu_erf")
    return logits(b, x)
