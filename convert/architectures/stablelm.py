"""StableLM: layer norms, a part of each head rotates; 12B has no norm before the feed-forward, but norms of heads."""

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK, QKV_BIASES, Architecture


def _metadata(config: Config) -> dict[str, Value]:
    return {"use_parallel_residual": config.flag("use_parallel_residual")}


STABLELM = Architecture(
    name="stablelm",
    gguf=gguf.MODEL_ARCH.STABLELM,
    block={name: shape for name, shape in DECODER_BLOCK.items() if name != "ffn_norm.weight"}
    | {"attn_norm.bias": ("embed",)},
    optional=QKV_BIASES | {
        "ffn_norm.weight": ("embed",),
        "ffn_norm.bias": ("embed",),
        "attn_q_norm.weight": ("heads", "head"),
        "attn_k_norm.weight": ("kv heads", "head"),
    },
    other_names={"self_attn.q_layernorm.norms": "attn_q_norm.weight",
                 "self_attn.k_layernorm.norms": "attn_k_norm.weight"},
    ropes=("partial",),
    epsilon=("layer_norm_eps", "layer_norm_epsilon"),
    norm_bias=True,
    metadata=_metadata,
)
