"""Gemma 3: Gemma 2 with norms on each head of queries and keys instead of caps, and rotations of two kinds.

Of six layers, five have a window and rotate with a base of their own, without scaling.
"""

from ..builder import Builder
from ..rows import Rows
from ..windows import layer_windows, rope_tables
from .gemma import embed
from .gemma2 import attention_scale, capped, finish
from .llama import logits, norm_and_rotate, projections

_LAYERS_27B = 62


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h, scale = b.h, attention_scale(b, _LAYERS_27B)
    windows = layer_windows(b, period=6)
    tables = rope_tables(b, windows, base=10000.0, attention_factor=h.rope_scaling.attention_factor)
    x = embed(b)
    for layer, (window, table) in enumerate(zip(windows, tables, strict=True)):
        name = f"blk.{layer}."
        q, k, v = projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
        q, k = norm_and_rotate(b, q, k, name, table)
        x = finish(b, x, b.attention(q, k, v, name, window=window, scale=scale), name)
    return capped(b, logits(b, x), b.keys.real("final_logit_softcapping", 0.0))
