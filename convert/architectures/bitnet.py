"""BitNet b1.58: ternary matrices, a norm before each that ends a block's half, and the embedding as output layer."""

from dataclasses import replace

import gguf

from .architecture import DECODER_BLOCK, Architecture

# The models of 1bitLLM.
BITNET = Architecture(
    name="bitnet",
    gguf=gguf.MODEL_ARCH.BITNET,
    block=DECODER_BLOCK | {"attn_sub_norm.weight": ("q",), "ffn_sub_norm.weight": ("ffn",)},
    other_names={"self_attn.attn_sub_norm": "attn_sub_norm.weight", "mlp.ffn_sub_norm": "ffn_sub_norm.weight"},
    has_output=False,
    is_ternary=True,
    metadata=lambda config: {"rope.scaling.type": "linear", "rope.scaling.factor": 1.0},
)
# BitNet-b1.58-2B-4T.
BITNET_158 = replace(BITNET, name="bitnet-b1.58", activation="relu2", metadata=lambda config: {})
