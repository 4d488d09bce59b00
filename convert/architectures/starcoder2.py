"""StarCoder 2: layer norms, biases everywhere, and a feed-forward without a gate."""

import gguf

from .architecture import DECODER_BLOCK, OTHER_BIASES, QKV_BIASES, Architecture

STARCODER2 = Architecture(
    name="starcoder2",
    gguf=gguf.MODEL_ARCH.STARCODER2,
    block={name: shape for name, shape in (DECODER_BLOCK | QKV_BIASES | OTHER_BIASES).items() if "gate" not in name}
    | {"attn_norm.bias": ("embed",), "ffn_norm.bias": ("embed",)},
    activation="gelu_pytorch_tanh",
    epsilon=("norm_epsilon", "layer_norm_epsilon"),
    norm_bias=True,
)
