"""Gemma: norms add 1 to their weights, GELU in the place of SiLU, and the embedding is the output layer as well."""

import gguf

from .architecture import DECODER_BLOCK, OTHER_BIASES, QKV_BIASES, Architecture, plus_one

GEMMA = Architecture(
    name="gemma",
    gguf=gguf.MODEL_ARCH.GEMMA,
    block=DECODER_BLOCK,
    optional=QKV_BIASES | {"attn_output.bias": OTHER_BIASES["attn_output.bias"]},
    activation="gelu_pytorch_tanh",
    activation_aliases=("gelu",),  # so the first files named it
    changes={"norm.weight": plus_one},
    context_length=8192,
    complete=lambda values: {"head_dim": 256, "tie_word_embeddings": True} | values,
)
