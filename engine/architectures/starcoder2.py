"""StarCoder 2: layer norms, biases everywhere, halves of heads that rotate, and a feed-forward without a gate."""

from ..builder import Builder
from ..layer_norm import add_mlp, layer_norm, logits
from ..rows import Rows
from .llama import projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, layer_norm(b, x, name + "attn_norm"), name)
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = add_mlp(b, x, layer_norm(b, x, name + "ffn_norm"), name, "gelu")
    return logits(b, x)
