"""Gemma 2: Gemma with norms before and after both halves of a layer, windows on every other layer, and soft caps."""

from ..builder import Builder
from ..post_norms import add_rms_norm
from ..rows import Rows
from ..windows import layer_windows
from .gemma import embed, hidden
from .llama import logits, projections

_WINDOW = 4096  # of files that do not say; the caps too are llama.cpp's defaults
_LAYERS_27B = 46


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h = b.h
    cap, logit_cap = b.keys.real("attn_logit_softcapping", 50.0), b.keys.real("final_logit_softcapping", 30.0)
    scale = attention_scale(b, _LAYERS_27B)
    x = embed(b)
    for layer, window in enumerate(layer_windows(b, period=2, default=_WINDOW)):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = b.rope(q, h.head_count, halves=True), b.rope(k, h.head_count_kv, halves=True)
        x = finish(b, x, b.attention(q, k, v, name, window=window, cap=cap, scale=scale), name)
    return capped(b, logits(b, x), logit_cap)


def attention_scale(b: Builder, layers_27b: int) -> float:
    """1 / sqrt(head size), and of the 27B models, which are known by their layers, 1 / sqrt(embedding / heads).

    A file's own scale comes first (lcpu's key: other engines do not read it).
    """
    h = b.h
    size = h.embedding_length // h.head_count if h.block_count == layers_27b else h.head_dim
    return b.keys.real("attention.scale", size**-0.5, low=1e-6, high=1e6)


def finish(b: Builder, x: Rows, attended: Rows, name: str) -> Rows:
    """A layer from its attention on: x + norm(output . attended), and then the same with the feed-forward."""
    width = b.h.embedding_length
    x = add_rms_norm(b, x, b.linear(attended, name + "attn_output", width), name + "post_attention_norm.weight")
    down = b.linear(hidden(b, x, name), name + "ffn_down", width)
    return add_rms_norm(b, x, down, name + "post_ffw_norm.weight")


def capped(b: Builder, logits: Rows, cap: float) -> Rows:
    """cap: 0 for none."""
    return b.soft_cap(logits, cap) if cap else logits
