"""Llama 1-3, Mistral, TinyLlama, SmolLM: pre-norm, grouped-query attention, gated SiLU feed-forward.

Mixtral has experts: softmax over all, of which the highest are chosen and renormalized.
"""

from ..builder import Builder
from ..experts import add_experts
from ..rope import RopeTable
from ..rows import Rows


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        attended = b.attention(b.rope(q, b.h.head_count), b.rope(k, b.h.head_count_kv), v, name)
        x = b.linear(attended, name + "attn_output", b.h.embedding_length, add_to=x)
        x = feed_forward(b, x, name)
    return logits(b, x)


def projections(b: Builder, x: Rows, name: str) -> list[Rows]:
    """Queries, keys and values of a layer; some files have the three in one tensor."""
    q_width, kv_width = b.h.head_count * b.h.head_dim, b.h.head_count_kv * b.h.head_dim
    outputs = [(name + "attn_q", q_width), (name + "attn_k", kv_width), (name + "attn_v", kv_width)]
    b.split(name + "attn_qkv", outputs)
    return b.linears(x, outputs)


def norm_and_rotate(b: Builder, q: Rows, k: Rows, name: str, table: RopeTable | None = None) -> tuple[Rows, Rows]:
    """Norm each head of queries and of keys, then rotate its halves. table: angles, where layers differ in them."""
    heads, kv_heads = b.h.head_count, b.h.head_count_kv
    q = b.rms_norm_heads(q, name + "attn_q_norm.weight", heads)
    k = b.rms_norm_heads(k, name + "attn_k_norm.weight", kv_heads)
    return b.rope(q, heads, halves=True, table=table), b.rope(k, kv_heads, halves=True, table=table)


def feed_forward(b: Builder, x: Rows, name: str) -> Rows:
    """x + down . (SiLU(gate . norm(x)) * up . norm(x)), or the sum of that over a token's experts"""
    normed = b.rms_norm(x, name + "ffn_norm.weight")
    if b.h.expert_count:
        return add_experts(b, x, normed, name, renormalize=True)
    return dense(b, x, normed, name)


def dense(b: Builder, x: Rows, normed: Rows, name: str) -> Rows:
    """x + down . (SiLU(gate . normed) * up . normed)"""
    hidden = b.gated(normed, name + "ffn_gate", name + "ffn_up", b.h.feed_forward_length)
    return b.linear(hidden, name + "ffn_down", b.h.embedding_length, add_to=x)


def logits(b: Builder, x: Rows) -> Rows:
    """Of the rows that want them, by the output layer, or the embedding table where it is both."""
    return b.logits(b.rms_norm(b.outputs(x), "output_norm.weight"))
