"""Embeddings that a model has for each of its layers, beside the first one (Gemma 3n and 4, small models)."""

from __future__ import annotations

import math

from ..kernels.errors import LcpuError
from .builder import Builder
from .post_norms import add_rms_norm
from .rows import WHOLE_VECTORS, Rows


class PerLayerEmbeddings:
    """(norm(projection . x / sqrt(width of x)) + embedding * sqrt(width)) / sqrt 2, for all layers at once.

    The embeddings stay in the file: a step reads the rows of its tokens.
    """

    def __init__(self, b: Builder, x: Rows, width: int) -> None:
        """x: the first embeddings. width: of a layer's. Raises LcpuError for a width that lcpu does not have."""
        if width % WHOLE_VECTORS:
            raise LcpuError(f"{b.file.path}: embeddings of layers have {width} values; lcpu supports multiples of "
                            f"{WHOLE_VECTORS}; take another model")
        layers = b.h.block_count
        own = b.embed("per_layer_token_embd.weight", layers * width, "embeddings of layers")
        projected = b.scale(b.linear(x, "per_layer_model_proj", layers * width), x.width**-0.5)
        projected = b.rms_norm_heads(projected, "per_layer_proj_norm.weight", layers)
        self._values = b.scale(b.add(projected, own, math.sqrt(width)), 0.5**0.5)
        self._builder, self._width = b, width

    def add(self, x: Rows, layer: int) -> Rows:
        """x + norm(projection . (GELU(gate . x) * the embedding of the layer)), in x's place."""
        b, name = self._builder, f"blk.{layer}."
        gate = b.gate_part(b.linear(x, name + "inp_gate", self._width), self._values, layer * self._width, "gelu")
        return add_rms_norm(b, x, b.linear(gate, name + "proj", x.width), name + "post_norm.weight")
