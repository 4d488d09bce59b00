"""gpt-oss: the experts of a layer in one tensor, with rows of gate and up in turn, in MXFP4 or as floats."""

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK, QKV_BIASES, Architecture
from .experts import expert_metadata, with_experts
from .rope import rope_scaling

_ATTENTION = {name: shape for name, shape in DECODER_BLOCK.items() if name.startswith("attn_")}
_FEED_FORWARD = {name: shape for name, shape in with_experts(DECODER_BLOCK).items() if name.endswith("_exps.weight")}


def _metadata(config: Config) -> dict[str, Value]:
    if config.get("swiglu_limit") not in (None, 7, 7.0):
        raise config.error("swiglu_limit", f"is {config.get('swiglu_limit')!r:.80}, and engines limit values to 7; "
                                           "take another model")
    layers = config.get("layer_types")
    if layers is not None and layers != [("sliding", "full")[i % 2] + "_attention" for i in range(len(layers))]:
        raise config.error("layer_types", "are not every other one with a window, as in gpt-oss; take another model")
    window = config.count("sliding_window", 128)
    return expert_metadata(config) | {
        "attention.sliding_window": window,
        "expert_feed_forward_length": config.count("intermediate_size"),
        "rope.scaling.yarn_truncate": rope_scaling(config, ())[1].flag("truncate", True),
    }


GPT_OSS = Architecture(
    name="gpt-oss",
    gguf=gguf.MODEL_ARCH.GPT_OSS,
    block=_ATTENTION | QKV_BIASES | {
        "attn_output.bias": ("embed",),
        "attn_sinks.weight": ("heads",),
        "post_attention_norm.weight": ("embed",),
        "ffn_gate_inp.weight": ("experts", "embed"),
        "ffn_gate_inp.bias": ("experts",),
        **_FEED_FORWARD,
        "ffn_gate_exps.bias": ("experts", "expert ffn"),
        "ffn_up_exps.bias": ("experts", "expert ffn"),
        "ffn_down_exps.bias": ("experts", "embed"),
    },
    other_names={"self_attn.sinks": "attn_sinks.weight"},
    stacks={
        "mlp.experts.gate_up_proj": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
        "mlp.experts.gate_up_proj_bias": ("ffn_gate_exps.bias", "ffn_up_exps.bias"),
        "mlp.experts.down_proj": ("ffn_down_exps.weight",),
        "mlp.experts.down_proj_bias": ("ffn_down_exps.bias",),
    },
    context_length=131072,
    metadata=_metadata,
)
