"""BitNet b1.58: ternary weights, norms before the output and down projections, output by the embedding table.

`bitnet` (1bitLLM) gates with SiLU unless its metadata say "relu2", `bitnet-b1.58` (2B-4T; `bitnet-25` is the same) with
squared ReLU. Ma et al., "The Era of 1-bit LLMs"; names and order as in bitnet.cpp.
"""

from ..builder import Builder
from ..rows import Rows
from .llama import projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h = b.h
    squared = h.architecture != "bitnet" or b.file.metadata.get("bitnet.hidden_activation") == "relu2"
    activation = "relu_squared" if squared else "silu"
    x = b.embed("token_embd.weight")
    for layer in range(h.block_count):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        attended = b.attention(b.rope(q, h.head_count, halves=True), b.rope(k, h.head_count_kv, halves=True), v, name)
        attended = b.rms_norm(attended, name + "attn_sub_norm.weight")
        x = b.linear(attended, name + "attn_output", h.embedding_length, add_to=x)
        normed = b.rms_norm(x, name + "ffn_norm.weight")
        hidden = b.gated(normed, name + "ffn_gate", name + "ffn_up", h.feed_forward_length, activation)
        hidden = b.rms_norm(hidden, name + "ffn_sub_norm.weight")
        x = b.linear(hidden, name + "ffn_down", h.embedding_length, add_to=x)
    return b.logits(b.rms_norm(b.outputs(x), "output_norm.weight"), "token_embd")
