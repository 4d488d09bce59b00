"""Llama 1 to 3, TinyLlama, SmolLM, Mistral, Mixtral: attention rotates neighbouring values, so q and k change order."""

from dataclasses import replace

import gguf

from .architecture import DECODER_BLOCK, OTHER_BIASES, QKV_BIASES, Architecture
from .experts import expert_metadata, with_experts

LLAMA = Architecture(
    name="llama",
    gguf=gguf.MODEL_ARCH.LLAMA,
    block=DECODER_BLOCK,
    optional=QKV_BIASES | OTHER_BIASES,
    interleaved_rope=True,
)
MIXTRAL = replace(LLAMA, block=with_experts(DECODER_BLOCK), optional=QKV_BIASES, metadata=expert_metadata)
