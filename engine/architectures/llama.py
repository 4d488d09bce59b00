"""Llama 1-3, Mistral, TinyLlama, SmolLM: pre-norm, grouped-query attention, gated SiLU feed-forward."""

from ..builder import Builder, Rows


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h = b.h
    q_width, kv_width = h.head_count * h.head_dim, h.head_count_kv * h.head_dim
    x = b.embed("token_embd.weight")
    for layer in range(h.block_count):
        name = f"blk.{layer}."
        normed = b.rms_norm(x, name + "attn_norm.weight")
        q, k, v = b.linears(normed, [(name + "attn_q", q_width), (name + "attn_k", kv_width),
                                     (name + "attn_v", kv_width)])
        q, k = b.rope(q, h.head_count), b.rope(k, h.head_count_kv)
        attended = b.attention(q, k, v)
        x = b.linear(attended, name + "attn_output", h.embedding_length, add_to=x)
        normed = b.rms_norm(x, name + "ffn_norm.weight")
        gate, up = b.linears(normed, [(name + "ffn_gate", h.feed_forward_length),
                                      (name + "ffn_up", h.feed_forward_length)])
        x = b.linear(b.silu_multiply(gate, up), name + "ffn_down", h.embedding_length, add_to=x)
    x = b.rms_norm(b.outputs(x), "output_norm.weight")
    return b.linear(x, "output" if b.has("output.weight") else "token_embd", h.vocab_size)
