"""OLMo 2 and 3: norms come after the halves of a layer, and of queries and keys as a whole; halves of heads rotate.

OLMo 3 has windows in three of four layers, which rotate without scaling.
"""

from ..builder import Builder
from ..post_norms import add_rms_norm
from ..rows import Rows
from ..windows import layer_windows, rope_tables
from .llama import logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h = b.h
    windows = layer_windows(b, period=4)
    tables = rope_tables(b, windows, base=h.rope_freq_base)
    x = b.embed("token_embd.weight")
    for layer, (window, table) in enumerate(zip(windows, tables, strict=True)):
        name = f"blk.{layer}."
        q, k, v = projections(b, x, name)
        q = b.rms_norm(q, name + "attn_q_norm.weight", memory="queries")
        k = b.rms_norm(k, name + "attn_k_norm.weight", memory="keys")
        q, k = b.rope(q, h.head_count, halves=True, table=table), b.rope(k, h.head_count_kv, halves=True, table=table)
        attended = b.linear(b.attention(q, k, v, name, window=window), name + "attn_output", h.embedding_length)
        x = add_rms_norm(b, x, attended, name + "post_attention_norm.weight")
        hidden = b.gated(x, name + "ffn_gate", name + "ffn_up", h.feed_forward_length)
        x = add_rms_norm(b, x, b.linear(hidden, name + "ffn_down", h.embedding_length), name + "post_ffw_norm.weight")
    return logits(b, x)
