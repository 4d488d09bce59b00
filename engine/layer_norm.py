"""Layer normalization, which some families have instead of RMS norms, and feed-forwards without a gate."""

from __future__ import annotations

import numpy as np

from ..kernels import elementwise
from ..kernels import layer_norm as kernels
from .builder import Builder
from .rows import Rows
from .tensors import role


def layer_norm(b: Builder, x: Rows, name: str, *, memory: str = "norm") -> Rows:
    """(x - mean) / sqrt(variance + epsilon) * weight [+ bias]. name: without ".weight" and ".bias".

    memory: the name of that of the result.
    """
    source, out = x.array, b.new_rows(memory, x.width, x.count)
    weight = b.tensors.vector(f"{name}.weight", x.width)
    bias = b.tensors.vector(f"{name}.bias", x.width) if b.has(f"{name}.bias") else np.zeros_like(weight)
    b.program.add(kernels.layer_norm, name=role(name), count=x.count, x=source, weight=weight, bias=bias, out=out.array,
                  stride=x.stride, vectors=x.vectors, width=x.width, epsilon=b.h.norm_epsilon)
    return out


def layer_norm_heads(b: Builder, x: Rows, name: str, heads: int) -> Rows:
    """Norm each head of a row on its own, in place. name: of weights [heads][head size], without ".weight"."""
    weight = b.tensors.flat(f"{name}.weight", heads, b.h.head_dim)
    b.program.add(kernels.layer_norm_heads, name=role(name), count=x.count, x=x.array, weight=weight, stride=x.stride,
                  heads=heads, head_dim=b.h.head_dim, epsilon=b.h.norm_epsilon)
    return x.changed()


def logits(b: Builder, x: Rows) -> Rows:
    """Of the rows that want them, by the output layer, or the embedding table where it is both."""
    return b.logits(layer_norm(b, b.outputs(x), "output_norm"))


def add_mlp(b: Builder, x: Rows, normed: Rows, name: str, activation: str) -> Rows:
    """x + down . activation(up . normed [+ bias]) [+ bias]. name: what the layer's tensors begin with, "blk.0."."""
    hidden = b.linear(normed, name + "ffn_up", b.h.feed_forward_length)
    b.program.add(elementwise.ACTIVATES[activation], count=hidden.count, x=hidden.array, stride=hidden.stride,
                  vectors=hidden.vectors)
    return b.linear(hidden.changed(), name + "ffn_down", b.h.embedding_length, add_to=x)
