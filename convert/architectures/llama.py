"""Llama 1 to 3, TinyLlama, SmolLM and Mistral: attention rotates neighbouring values, so q and k change their order."""

import gguf

from .architecture import DECODER_BLOCK, OTHER_BIASES, QKV_BIASES, Architecture

LLAMA = Architecture(
    name="llama",
    gguf=gguf.MODEL_ARCH.LLAMA,
    block=DECODER_BLOCK,
    optional=QKV_BIASES | OTHER_BIASES,
    interleaved_rope=True,
)
