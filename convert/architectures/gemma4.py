"""Gemma 4, and the language model of those that see and hear: heads of two sizes, and what each kind of model has."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np

from ...engine.gguf_metadata import Value
from ..json_file import Config
from . import vision
from .architecture import DECODER_BLOCK, Architecture, Shape, sizes
from .gemma3 import GEMMA3
from .windows import LOCAL_BASE, check_reads_back, layer_kinds, with_base_of_windows

_HEAD, _KV_HEADS = "local_head_dim", "local_num_key_value_heads"  # of layers with a window, as `_complete` puts them
_PERIOD = 6  # of layers, where a file does not say
_ROPES = ("proportional",)
_PARTS = ("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio.")
# As transformers has them.
_DEFAULTS = {"vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30,
             "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 512,
             "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 0, "tie_word_embeddings": True,
             "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                                 "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25,
                                                    "rope_theta": 1e6}}}


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """The sizes of heads are those of layers without a window, as in GGUF; those of others have names of their own."""
    values = _DEFAULTS | {key: value for key, value in values.items() if value is not None}
    layers, kinds = values["num_hidden_layers"], values.get("layer_types")
    if kinds is None and isinstance(layers, int):
        kinds = ["full_attention" if (layer + 1) % _PERIOD == 0 or layer + 1 == layers else "sliding_attention"
                 for layer in range(layers)]
    by_layer = values.get("per_layer_config")  # the newer form of the two keys below
    first = next(iter(by_layer.values()), None) if isinstance(by_layer, dict) else None
    own: dict[str, Any] = first if isinstance(first, dict) else {}
    local, local_kv = values["head_dim"], values["num_key_value_heads"]
    kv_heads = values.get("num_global_key_value_heads") if values.get("attention_k_eq_v") else None
    return with_base_of_windows(values | {
        "head_dim": own.get("head_dim") or values.get("global_head_dim") or 512, _HEAD: local,
        "num_key_value_heads": own.get("num_key_value_heads") or kv_heads or local_kv, _KV_HEADS: local_kv,
        "layer_types": kinds})


def _metadata(config: Config) -> dict[str, Value]:
    _check(config)
    size, local = sizes(config), layer_kinds(config, _PERIOD)
    head = config.count(_HEAD)
    keys: dict[str, Value] = {
        "attention.sliding_window": config.count("sliding_window"),
        "attention.sliding_window_pattern": np.array(local),
        "attention.shared_kv_layers": config.get("num_kv_shared_layers") or 0,
        "attention.key_length_swa": head,
        "attention.value_length_swa": head,
        "embedding_length_per_layer_input": config.get("hidden_size_per_layer_input") or 0,
        "rope.dimension_count_swa": head,
        "rope.freq_base_swa": config.real(LOCAL_BASE),
    }
    if config.flag("use_double_wide_mlp"):
        keys["feed_forward_length"] = np.array([_width(config, layer) for layer in range(len(local))], np.int32)
    if config.count(_KV_HEADS) != size["kv heads"]:
        heads = [config.count(_KV_HEADS) if is_local else size["kv heads"] for is_local in local]
        keys["attention.head_count_kv"] = np.array(heads, np.int32)
    if config.flag("enable_moe_block"):
        keys |= {"expert_count": size["experts"], "expert_used_count": config.count("top_k_experts"),
                 "expert_feed_forward_length": size["expert ffn"]}
    if config.get("final_logit_softcapping") is not None:
        keys["final_logit_softcapping"] = config.real("final_logit_softcapping")
    return keys


def _check(config: Config) -> None:
    """Raises LcpuError for what engines do not compute."""
    check_reads_back(config)
    if config.flag("attention_bias"):
        raise config.error("attention_bias", "is true: engines compute no biases with Gemma 4; take another model")
    rows, vocab = config.get("vocab_size_per_layer_input"), config.count("vocab_size")
    if config.get("hidden_size_per_layer_input") and rows not in (None, vocab):
        raise config.error("vocab_size_per_layer_input", f"is {rows!r:.80}, and there are {vocab} tokens: engines take "
                                                         "it to be the same; take another model")


def _shares(config: Config, layer: int) -> bool:
    """Whether a layer sees keys and values of an earlier one."""
    return layer >= config.count("num_hidden_layers") - (config.get("num_kv_shared_layers") or 0)


def _width(config: Config, layer: int) -> int:
    """Of the feed-forward."""
    is_double = config.flag("use_double_wide_mlp") and _shares(config, layer)
    return config.count("intermediate_size") * (2 if is_double else 1)


def _kinds(config: Config) -> list[dict[str, Shape]]:
    """What each layer has."""
    kinds = []
    for layer, is_local in enumerate(layer_kinds(config, _PERIOD)):
        head, kv_heads = (config.count(key) for key in ((_HEAD, _KV_HEADS) if is_local else
                                                        ("head_dim", "num_key_value_heads")))
        q, width = config.count("num_attention_heads") * head, _width(config, layer)
        block: dict[str, Shape] = {
            "attn_q.weight": (q, "embed"), "attn_q_norm.weight": (head,), "attn_output.weight": ("embed", q),
            "ffn_gate.weight": (width, "embed"), "ffn_up.weight": (width, "embed"), "ffn_down.weight": ("embed", width)}
        if not _shares(config, layer):
            block |= {"attn_k.weight": (kv_heads * head, "embed"), "attn_k_norm.weight": (head,)}
            if is_local or not config.flag("attention_k_eq_v"):
                block["attn_v.weight"] = (kv_heads * head, "embed")
        if per_layer := config.get("hidden_size_per_layer_input"):
            block |= {"inp_gate.weight": (per_layer, "embed"), "proj.weight": ("embed", per_layer),
                      "post_norm.weight": ("embed",)}
        kinds.append(block | _experts(config))
    return kinds


def _experts(config: Config) -> dict[str, Shape]:
    if not config.flag("enable_moe_block"):
        return {}
    return {"ffn_gate_inp.weight": ("experts", "embed"), "ffn_gate_inp.scale": ("embed",),
            "ffn_gate_up_exps.weight": ("experts", 2 * sizes(config)["expert ffn"], "embed"),
            "ffn_down_exps.weight": ("experts", "embed", "expert ffn"), "ffn_down_exps.scale": ("experts",),
            "pre_ffw_norm_2.weight": ("embed",), "post_ffw_norm_1.weight": ("embed",),
            "post_ffw_norm_2.weight": ("embed",)}


def _beside(config: Config) -> dict[str, Shape]:
    if not (width := config.get("hidden_size_per_layer_input")):
        return {}
    rows = width * config.count("num_hidden_layers")
    return {"per_layer_token_embd.weight": ("vocab", rows), "per_layer_model_proj.weight": (rows, "embed"),
            "per_layer_proj_norm.weight": (width,)}


def _spare(config: Config) -> list[str]:
    """Keys and values of layers that see those of others."""
    return [f"blk.{layer}.{name}.weight" for layer in range(config.count("num_hidden_layers"))
            if _shares(config, layer) for name in ("attn_k", "attn_v", "attn_k_norm")]


GEMMA4 = Architecture(
    name="gemma4",
    gguf=gguf.MODEL_ARCH.GEMMA4,
    block={name: DECODER_BLOCK[name] for name in ("attn_norm.weight", "ffn_norm.weight")} | {
        name: GEMMA3.block[name] for name in ("post_attention_norm.weight", "post_ffw_norm.weight")},
    optional={"layer_output_scale.weight": (1,)},
    kinds=_kinds,
    beside=_beside,
    spare=_spare,
    other_names={"layer_scalar": "layer_output_scale.weight", "router.scale": "ffn_gate_inp.scale",
                 "router.per_expert_scale": "ffn_down_exps.scale", "experts.gate_up_proj": "ffn_gate_up_exps.weight",
                 "experts.down_proj": "ffn_down_exps.weight"},
    activation=GEMMA3.activation,
    ropes=_ROPES,
    prefixes=vision.PREFIXES,
    parts=vision.PARTS | {prefix + part: vision.NOTE for prefix in ("", "model.") for part in _PARTS},
    keeps_merges=True,
    context_length=131072,
    metadata=_metadata,
    complete=_complete,
)
