"""Qwen 2 and 2.5: q, k and v have biases."""

import gguf

from .architecture import DECODER_BLOCK, QKV_BIASES, Architecture

QWEN2 = Architecture(
    name="qwen2",
    gguf=gguf.MODEL_ARCH.QWEN2,
    block=DECODER_BLOCK | QKV_BIASES,
    context_length=32768,
)
