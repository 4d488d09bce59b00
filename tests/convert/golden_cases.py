"""A checkpoint with random weights of every architecture, whose logits by transformers are in golden_logits.npz."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoints import (
    BLOCKS,
    EMBED,
    FFN,
    FUSED,
    HEAD,
    HEAD_NORMS,
    HEADS,
    QKV_BIASES,
    block_shapes,
    expert_shapes,
    llama_tensors,
)
from .gemma4_checkpoints import DENSE, MIXTURE, SMALL, gemma4_tensors
from .hybrids import EXPERTS, STATES, hybrid
from .lfm2_checkpoints import DENSE as LFM2
from .lfm2_checkpoints import MIXTURE as LFM2_MOE
from .lfm2_checkpoints import lfm2_tensors
from .other_families import (
    AFTER,
    EXPERTS_IN_ONE,
    LAYER_NORMS,
    PARALLEL,
    SHARED_IN_ONE,
    STARCODER,
    falcon_tensors,
)
from .packed import mxfp4
from .reference import LLAMA3
from .test_convert_bitnet import AUTO, BITNET_CONFIG, NEW_NORMS, bitnet_tensors

GOLDEN = Path(__file__).parent / "golden_logits.npz"
TOKENS = [1, 5, 77, 123, 42, 250, 7, 9, 280, 33, 2, 199]
LENGTH = 72  # of the text that repeats TOKENS: longer than what LLAMA3 and YARN take for the original context
ROWS = slice(LENGTH - 4, LENGTH)  # the tokens whose logits are kept

_POST_NORMS = block_shapes("pre_feedforward_layernorm.weight", (EMBED,)) | block_shapes(
    "post_feedforward_layernorm.weight", (EMBED,))
_GEMMA = {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True, "head_dim": HEAD}
_GEMMA_2 = _GEMMA | {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": HEAD, "sliding_window": 20}
_GEMMA_3 = _GEMMA_2 | {"model_type": "gemma3_text", "rope_theta": 50000.0, "rope_local_base_freq": 500.0,
                       "sliding_window_pattern": 2}

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_TIED = {"lm_head__weight": None}
_GRANITE_MOE = {"num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 32, "embedding_multiplier": 12.0,
                "logits_scaling": 6.0, "residual_multiplier": 0.22, "attention_multiplier": 0.125}
_FALCON = {"intermediate_size": None, "num_key_value_heads": None, "hidden_act": None, "layer_norm_epsilon": 1e-5}
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SHARED = {
    f"shared_expert.{part}_proj": shape for part, shape in (("gate", (48, EMBED)), ("up", (48, EMBED)),
                                                            ("down", (EMBED, 48)))
} | {"shared_expert_gate": (1, EMBED)}
_WHOLE_NORMS = block_shapes("self_attn.q_norm.weight", (EMBED,)) | block_shapes("self_attn.k_norm.weight", (EMBED,))
_ALL_HEADS = block_shapes("self_attn.k_proj.weight", (EMBED, EMBED)) | block_shapes("self_attn.v_proj.weight",
                                                                                    (EMBED, EMBED))

_SINKS: dict[str, Any] = {
    "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "head_dim": HEAD,
    "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 32, "attention_bias": True,
    "rope_scaling": _YARN | {"beta_fast": 32.0, "beta_slow": 1.0},
}


def _gpt_oss() -> dict[str, tuple[int, ...] | None]:
    shapes: dict[str, tuple[int, ...] | None] = {f"mlp.{part}_proj.weight": None for part in ("gate", "up", "down")}
    shapes |= {"self_attn.o_proj.bias": (EMBED,), "self_attn.sinks": (HEADS,), "mlp.router.weight": (6, EMBED),
               "mlp.router.bias": (6,), "mlp.experts.gate_up_proj": (6, EMBED, 64),
               "mlp.experts.gate_up_proj_bias": (6, 64), "mlp.experts.down_proj": (6, 32, EMBED),
               "mlp.experts.down_proj_bias": (6, EMBED)}
    return QKV_BIASES | {key: each for name, shape in shapes.items() for key, each in block_shapes(name, shape).items()}


def _in_mxfp4(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The experts of gpt-oss in blocks, [experts, rows, K / 32, 16], instead of [experts, K, rows]."""
    stored = {}
    for name, array in tensors.items():
        if not name.endswith("experts.gate_up_proj") and not name.endswith("experts.down_proj"):
            stored[name] = array
            continue
        experts, k, rows = array.shape
        parts, _ = mxfp4(array.swapaxes(1, 2).reshape(-1, k), np.random.default_rng(0))
        stored[f"{name}_blocks"] = parts[".weight_packed"].reshape(experts, rows, k // 32, 16)
        stored[f"{name}_scales"] = parts[".weight_scale"].reshape(experts, rows, k // 32)
    return stored



def _longrope(rotated: int) -> dict[str, Any]:
    """Scaling for heads of which so many values rotate."""
    return {"type": "longrope", "short_factor": [1 + pair / 8 for pair in range(rotated // 2)],
            "long_factor": [2 + pair for pair in range(rotated // 2)]}


# by name: transformers' class, changes of the tensors' shapes, changes of the configuration
CASES: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}, {}),
    "llama-biases": ("LlamaForCausalLM", QKV_BIASES | block_shapes("self_attn.o_proj.bias", (EMBED,)),
                     {"attention_bias": True}),
    "llama-3.1": ("LlamaForCausalLM", _TIED, {"tie_word_embeddings": True, "rope_scaling": LLAMA3}),
    "llama-linear": ("LlamaForCausalLM", {}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "mistral": ("MistralForCausalLM", {}, {"sliding_window": None, "head_dim": HEAD}),
    "qwen2": ("Qwen2ForCausalLM", QKV_BIASES, {}),
    "qwen2-yarn": ("Qwen2ForCausalLM", QKV_BIASES, {"rope_scaling": _YARN}),
    "qwen3": ("Qwen3ForCausalLM", HEAD_NORMS, {"head_dim": HEAD}),
    "qwen3_5_text": ("Qwen3_5ForCausalLM", _TIED, STATES | {"tie_word_embeddings": True}),
    "qwen3_5_moe_text": ("Qwen3_5MoeForCausalLM", {}, STATES | EXPERTS),
    "gemma": ("GemmaForCausalLM", _TIED, _GEMMA | {"hidden_act": "gelu"}),
    "gemma2": ("Gemma2ForCausalLM", _TIED | _POST_NORMS, _GEMMA_2 | {"attn_logit_softcapping": 3.0,
               "final_logit_softcapping": 4.0}),
    "gemma3": ("Gemma3ForCausalLM", _TIED | _POST_NORMS | HEAD_NORMS, _GEMMA_3),
    "gemma3-scaled": ("Gemma3ForCausalLM", _TIED | _POST_NORMS | HEAD_NORMS, _GEMMA_3 | {
        "query_pre_attn_scalar": 40, "rope_theta": None, "rope_local_base_freq": None, "sliding_window_pattern": None,
        "layer_types": ["full_attention", "sliding_attention"], "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 30000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}}),
    "gemma4": ("Gemma4ForCausalLM", {}, SMALL),
    "gemma4-31b": ("Gemma4ForCausalLM", {}, DENSE),
    "gemma4-26b-a4b": ("Gemma4ForCausalLM", {}, MIXTURE),
    "lfm2": ("Lfm2ForCausalLM", {}, LFM2),
    "lfm2_moe": ("Lfm2MoeForCausalLM", {}, LFM2_MOE),
    "phi3": ("Phi3ForCausalLM", FUSED, {"rope_scaling": _longrope(HEAD), "original_max_position_embeddings": 32,
             "pad_token_id": 0}),
    "phi3-short": ("Phi3ForCausalLM", FUSED | _TIED, {"tie_word_embeddings": True, "partial_rotary_factor": 0.75,
                   "rope_scaling": _longrope(12), "original_max_position_embeddings": 256,
                   "max_position_embeddings": 1024, "pad_token_id": 0}),
    "granite": ("GraniteForCausalLM", _TIED, {"tie_word_embeddings": True, "embedding_multiplier": 12.0,
                "logits_scaling": 0.3, "residual_multiplier": 0.22, "attention_multiplier": 0.125}),
    "granitemoe": ("GraniteMoeForCausalLM", EXPERTS_IN_ONE, _GRANITE_MOE),
    "granitemoeshared": ("GraniteMoeSharedForCausalLM", EXPERTS_IN_ONE | SHARED_IN_ONE, _GRANITE_MOE | {
        "shared_intermediate_size": 48}),
    "smollm3": ("SmolLM3ForCausalLM", {}, {"num_hidden_layers": 5, "use_sliding_window": False,
                "pad_token_id": 0}),
    "olmo2": ("Olmo2ForCausalLM", AFTER, {"pad_token_id": 0}),
    "olmo3": ("Olmo3ForCausalLM", AFTER, {
        "pad_token_id": 0, "sliding_window": 20, "layer_types": ["sliding_attention", "full_attention"],
        "rope_theta": 3000.0, "rope_parameters": {"full_attention": _YARN | {"rope_theta": 3000.0},
                                                  "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}}),
    "ministral3": ("Ministral3ForCausalLM", {}, {"head_dim": HEAD, "sliding_window": None, "rope_parameters": _YARN | {
        "rope_theta": 500.0, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 8.0, "beta_slow": 1.0,
        "llama_4_scaling_beta": 0.3}}),
    "starcoder2": ("Starcoder2ForCausalLM", STARCODER, {"hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5,
                   "use_bias": True, "sliding_window": None}),
    "stablelm": ("StableLmForCausalLM", LAYER_NORMS | QKV_BIASES, {
        "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "use_qkv_bias": True}),
    "stablelm-12b": ("StableLmForCausalLM", PARALLEL, {
        "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "use_qkv_bias": False, "use_parallel_residual": True,
        "qk_layernorm": True}),
    "falcon": ("FalconForCausalLM", {}, _FALCON),
    "falcon-40b": ("FalconForCausalLM", {}, _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "gpt_oss": ("GptOssForCausalLM", _gpt_oss(), _SINKS),
    "gpt_oss-mxfp4": ("GptOssForCausalLM", _gpt_oss(), _SINKS | {
        "rope_scaling": _SINKS["rope_scaling"] | {"truncate": False},
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens", "lm_head"]}}),
    "mixtral": ("MixtralForCausalLM", expert_shapes(4, FFN, "block_sparse_moe", ("w1", "w3", "w2")),
                {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "olmoe": ("OlmoeForCausalLM", expert_shapes(6, FFN) | _WHOLE_NORMS | _ALL_HEADS,
              _EXPERTS | {"moe_intermediate_size": None, "num_key_value_heads": HEADS}),
    "qwen2_moe": ("Qwen2MoeForCausalLM", expert_shapes(6, 32) | QKV_BIASES | {
                      key: shape for name, wanted in _SHARED.items()
                      for key, shape in block_shapes(f"mlp.{name}.weight", wanted).items()},
                  _EXPERTS | {"shared_expert_intermediate_size": 48}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", expert_shapes(6, 32) | HEAD_NORMS,
                  _EXPERTS | {"head_dim": HEAD, "norm_topk_prob": True}),
    "bitnet": ("BitNetForCausalLM", {}, {"hidden_act": "relu2", "tie_word_embeddings": True, "quantization_config":
               AUTO | {"quantization_mode": "online"}}),
}  # fmt: skip


def text() -> list[int]:
    return (TOKENS * LENGTH)[:LENGTH]


def case(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a checkpoint, and the other arguments of `write_checkpoint`."""
    architecture, changes, config = CASES[name]
    tensors = llama_tensors(seed=7, blocks=config.get("num_hidden_layers", BLOCKS), **changes)
    if architecture.startswith("Qwen3_5"):
        tensors = hybrid(tensors, experts="Moe" in architecture)
    if architecture == "Gemma4ForCausalLM":
        tensors = gemma4_tensors(config)
    elif architecture.startswith("Lfm2"):
        tensors = lfm2_tensors(config)
    elif name.startswith(("gemma", "qwen3_5")):  # norms add 1 to their weights
        tensors |= {key: values - 1 for key, values in tensors.items() if "norm" in key and "linear_attn" not in key}
    how = {"architectures": [architecture], "model_type": name.split("-")[0], **config}
    if architecture == "FalconForCausalLM":
        tensors = falcon_tensors(two_norms="num_kv_heads" in config)
    if name == "bitnet":
        return bitnet_tensors(NEW_NORMS), how | BITNET_CONFIG | dict(config)
    tensors = _in_mxfp4(tensors) if name == "gpt_oss-mxfp4" else tensors
    return tensors, how
