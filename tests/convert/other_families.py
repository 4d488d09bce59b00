"""Changes for `llama_tensors`: what checkpoints of other families have, and the tensors of a Falcon."""

from __future__ import annotations

import numpy as np

from .checkpoints import BLOCKS, EMBED, FFN, HEAD, HEADS, KV_HEADS, QKV_BIASES, VOCAB, block_shapes

Shapes = dict[str, tuple[int, ...] | None]


def _of_blocks(**endings: tuple[int, ...] | None) -> Shapes:
    shapes: Shapes = {}
    for ending, shape in endings.items():
        shapes |= block_shapes(ending.replace("__", "."), shape)
    return shapes


# OLMo 2: norms after the halves of a layer, and of queries and keys as a whole.
AFTER = _of_blocks(input_layernorm__weight=None, post_feedforward_layernorm__weight=(EMBED,),
                   self_attn__q_norm__weight=(HEADS * HEAD,), self_attn__k_norm__weight=(KV_HEADS * HEAD,))

_NO_MLP = dict.fromkeys(("mlp__gate_proj__weight", "mlp__up_proj__weight", "mlp__down_proj__weight"))

# Granite: 6 experts with gate and up in one tensor, and one expert of all tokens likewise.
EXPERTS_IN_ONE = _of_blocks(block_sparse_moe__router__layer__weight=(6, EMBED), **_NO_MLP,
                            block_sparse_moe__input_linear__weight=(6, 64, EMBED),
                            block_sparse_moe__output_linear__weight=(6, EMBED, 32))
SHARED_IN_ONE = _of_blocks(shared_mlp__input_linear__weight=(96, EMBED), shared_mlp__output_linear__weight=(EMBED, 48))

LAYER_NORMS: Shapes = _of_blocks(input_layernorm__bias=(EMBED,), post_attention_layernorm__bias=(EMBED,)) | {
    "model__norm__bias": (EMBED,)}
STARCODER = LAYER_NORMS | QKV_BIASES | _of_blocks(
    self_attn__o_proj__bias=(EMBED,), mlp__c_fc__weight=(FFN, EMBED), mlp__c_fc__bias=(FFN,),
    mlp__c_proj__weight=(EMBED, FFN), mlp__c_proj__bias=(EMBED,), **_NO_MLP)

# StableLM 2 12B: one norm for both halves of a layer, and norms of each head.
PARALLEL = {name: shape for name, shape in LAYER_NORMS.items() if "post_attention" not in name} | _of_blocks(
    post_attention_layernorm__weight=None)
for _part, _heads in (("q", HEADS), ("k", KV_HEADS)):
    for _head in range(_heads):
        PARALLEL |= block_shapes(f"self_attn.{_part}_layernorm.norms.{_head}.weight", (HEAD,))


def falcon_tensors(two_norms: bool) -> dict[str, np.ndarray]:
    """Random weights of a Falcon with two KV heads and two norms, as 40B, or with one of each, as 7B."""
    kv_heads = KV_HEADS if two_norms else 1
    shapes: dict[str, tuple[int, ...]] = {"transformer.word_embeddings.weight": (VOCAB, EMBED)}
    for block in range(BLOCKS):
        name = f"transformer.h.{block}."
        for norm in ("ln_attn", "ln_mlp") if two_norms else ("input_layernorm",):
            shapes |= {f"{name}{norm}.{kind}": (EMBED,) for kind in ("weight", "bias")}
        shapes |= {f"{name}self_attention.query_key_value.weight": ((HEADS + 2 * kv_heads) * HEAD, EMBED),
                   f"{name}self_attention.dense.weight": (EMBED, HEADS * HEAD),
                   f"{name}mlp.dense_h_to_4h.weight": (4 * EMBED, EMBED),
                   f"{name}mlp.dense_4h_to_h.weight": (EMBED, 4 * EMBED)}
    shapes |= {"transformer.ln_f.weight": (EMBED,), "transformer.ln_f.bias": (EMBED,), "lm_head.weight": (VOCAB, EMBED)}
    random = np.random.default_rng(3)
    return {name: (random.standard_normal(shape) / 8 + (len(shape) == 1 and name.endswith("weight")) if len(shape) == 1
                   else random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
            for name, shape in shapes.items()}
