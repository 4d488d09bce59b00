"""Llama 1 to 3, TinyLlama, SmolLM, Mistral, Mixtral: attention rotates neighbouring values, so q and k change order."""

from dataclasses import replace

import gguf

from .architecture import DECODER_BLOCK, OTHER_BIASES, QKV_BIASES, Architecture

LLAMA = Architecture(
    name="llama",
    gguf=gguf.MODEL_ARCH.LLAMA,
    block=DECODER_BLOCK,
    optional=QKV_BIASES | OTHER_BIASES,
    interleaved_rope=True,
)
_DENSE = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
MIXTRAL = replace(
    LLAMA,
    block={name: shape for name, shape in DECODER_BLOCK.items() if name not in _DENSE} | {
        "ffn_gate_inp.weight": ("experts", "embed"),
        "ffn_gate_exps.weight": ("experts", "ffn", "embed"),
        "ffn_up_exps.weight": ("experts", "ffn", "embed"),
        "ffn_down_exps.weight": ("experts", "embed", "ffn"),
    },
    optional=QKV_BIASES,
    metadata=lambda config: {
        "expert_count": config.count("num_local_experts"),
        "expert_used_count": config.count("num_experts_per_tok"),
    },
)
