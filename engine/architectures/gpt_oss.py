"""gpt-oss: a window on every other layer, a sink for each head, biases everywhere, and experts with a clamped gate.

Source: OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card" (arXiv:2508.10925); names are llama.cpp's (openai-moe).
"""

from ..builder import Builder
from ..experts import add_experts
from ..rows import Rows
from ..windows import layer_windows
from .llama import logits, projections


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer, window in enumerate(layer_windows(b, period=2)):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = b.rope(q, b.h.head_count, halves=True), b.rope(k, b.h.head_count_kv, halves=True)
        attended = b.attention(q, k, v, name, window=window, sinks=name + "attn_sinks.weight")
        x = b.linear(attended, name + "attn_output", b.h.embedding_length, add_to=x)
        normed = b.rms_norm(x, name + "post_attention_norm.weight")
        x = add_experts(b, x, normed, name, scoring="softmax of chosen", activation="clamped_swish")
    return logits(b, x)
