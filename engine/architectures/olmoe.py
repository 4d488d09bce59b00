"""OLMoE: queries and keys are normed as a whole, halves of heads rotate, and experts' weights are not renormalized."""

from ..builder import Builder
from ..experts import add_experts
from ..rows import Rows
from .llama import logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q = b.rms_norm(q, name + "attn_q_norm.weight", memory="queries")
        k = b.rms_norm(k, name + "attn_k_norm.weight", memory="keys")
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        x = b.linear(b.attention(q, k, v, name), name + "attn_output", b.h.embedding_length, add_to=x)
        x = add_experts(b, x, b.rms_norm(x, name + "ffn_norm.weight"), name)
    return logits(b, x)
