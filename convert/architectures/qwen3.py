"""Qwen 3: every head of q and k is normalised, and heads have a size of their own."""

import gguf

from .architecture import DECODER_BLOCK, OTHER_BIASES, QKV_BIASES, Architecture

QWEN3 = Architecture(
    name="qwen3",
    gguf=gguf.MODEL_ARCH.QWEN3,
    block=DECODER_BLOCK | {"attn_q_norm.weight": ("head",), "attn_k_norm.weight": ("head",)},
    optional=QKV_BIASES | {"attn_output.bias": OTHER_BIASES["attn_output.bias"]},
    context_length=32768,
)
