"""Phi-3, Phi-4-mini, Phi-4: q, k and v are one matrix, gate and up another."""

import gguf

from .architecture import Architecture

PHI3 = Architecture(
    name="phi3",
    gguf=gguf.MODEL_ARCH.PHI3,
    block={
        "attn_norm.weight": ("embed",),
        "attn_qkv.weight": ("qkv", "embed"),
        "attn_output.weight": ("embed", "q"),
        "ffn_norm.weight": ("embed",),
        "ffn_up.weight": ("gate and up", "embed"),
        "ffn_down.weight": ("embed", "ffn"),
    },
    ropes=("partial", "longrope"),
)
