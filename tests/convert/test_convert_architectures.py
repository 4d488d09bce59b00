"""Every architecture: the tensors and the metadata of the file that its checkpoint becomes."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest

from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.type_rules import Overrides
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.kernels.errors import LcpuError

from .checkpoints import (
    BLOCKS,
    CONFIG,
    EMBED,
    FFN,
    HEAD,
    HEAD_NORMS,
    HEADS,
    KV_HEADS,
    QKV_BIASES,
    VOCAB,
    bfloat16,
    block_shapes,
    llama_tensors,
    write_checkpoint,
)
from .reference import LLAMA3, check_tensors, interleaved, llama3_factor, values_of

Q = HEADS * HEAD


@pytest.mark.parametrize(
    ("architecture", "name", "interleave", "changes"),
    [
        ("LlamaForCausalLM", "llama", True, {}),
        ("LlamaForCausalLM", "llama", True, QKV_BIASES),
        ("MistralForCausalLM", "llama", True, {}),
        ("Qwen2ForCausalLM", "qwen2", False, QKV_BIASES),
        ("Qwen3ForCausalLM", "qwen3", False, HEAD_NORMS),
    ],
)
@pytest.mark.parametrize("weights", ["safetensors", "torch"])
def test_architectures(convert, architecture, name, interleave, changes, weights):
    tensors = llama_tensors(**changes)
    with convert(tensors, architectures=[architecture], weights=weights) as file:
        check_tensors(file, tensors, interleave=interleave)
        general = {key: file.metadata[f"general.{key}"] for key in
                   ("architecture", "type", "name", "file_type", "quantization_version", "size_label")}
        assert general == {"architecture": name, "type": "model", "name": "Tiny", "file_type": 0,
                           "quantization_version": 2, "size_label": "111K"}
        prefix = f"{name}."
        found = {key.removeprefix(prefix): file.metadata[key] for key in file.metadata if key.startswith(prefix)}
    assert found.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert found == {
        "block_count": BLOCKS, "context_length": 128, "embedding_length": EMBED, "feed_forward_length": FFN,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "vocab_size": VOCAB,
        "rope.dimension_count": HEAD, "rope.freq_base": 10000.0,
    }  # fmt: skip


def test_heads_of_another_size(convert):
    shapes = {"q_proj": (HEADS * 32, EMBED), "k_proj": (KV_HEADS * 32, EMBED), "v_proj": (KV_HEADS * 32, EMBED),
              "o_proj": (EMBED, HEADS * 32)}
    changes: dict[str, Any] = {}
    for part, shape in shapes.items():
        changes |= block_shapes(f"self_attn.{part}.weight", shape)
    tensors = llama_tensors(**changes)
    with convert(tensors, head_dim=32) as file:
        check_tensors(file, tensors, interleave=True)
        sizes = [file.metadata[f"llama.{key}"] for key in
                 ("attention.key_length", "attention.value_length", "rope.dimension_count")]
        assert sizes == [32, 32, 32]


@pytest.mark.parametrize("in_parameters", [True, False])
def test_defaults(convert, in_parameters):
    """What old and new files leave out: Llama 1 has as many KV heads as heads, and newer files keep theta elsewhere."""
    kv = block_shapes("self_attn.k_proj.weight", (Q, EMBED)) | block_shapes("self_attn.v_proj.weight", (Q, EMBED))
    parameters = {"rope_type": "default", "rope_theta": 5e5} if in_parameters else None
    with convert(llama_tensors(**kv), num_key_value_heads=None, max_position_embeddings=None, rope_theta=None,
                 hidden_act=None, rope_parameters=parameters) as file:
        keys = ("attention.head_count_kv", "context_length", "rope.freq_base")
        assert [file.metadata[f"llama.{key}"] for key in keys] == [HEADS, 2048, 5e5 if in_parameters else 1e4]


@pytest.mark.parametrize("tied", [True, False, None])
@pytest.mark.parametrize("has_output", [True, False])
def test_tied_output(convert, tied, has_output):
    tensors = llama_tensors() if has_output else llama_tensors(lm_head__weight=None)
    if tied is False and not has_output:
        with pytest.raises(LcpuError, match=r"the tensor of output\.weight is missing"):
            convert(tensors, tie_word_embeddings=tied)
        return
    with convert(tensors, tie_word_embeddings=tied) as file:
        assert ("output.weight" in file.tensors) == (has_output and tied is not True)


def test_buffers_of_old_checkpoints_are_left_out(convert):
    tensors = llama_tensors()
    extra = {f"model.layers.{block}.self_attn.rotary_emb.inv_freq": np.zeros(HEAD // 2, np.float32) for block in (0, 1)}
    with convert(tensors | extra) as file:
        check_tensors(file, tensors, interleave=True)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"rope_scaling": None}, {}),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, {"type": "linear", "factor": 4.0}),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {}),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
            {"type": "yarn", "factor": 4.0, "original_context_length": 32},
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4, "beta_fast": 16, "beta_slow": 2.0, "rope_theta": 1e4,
                                 "attention_factor": 2 * (1 + 0.1 * np.log(4))}},
            {"type": "yarn", "factor": 4.0, "original_context_length": 128, "yarn_beta_fast": 16.0,
             "yarn_beta_slow": 2.0, "attn_factor": 2.0},
        ),
    ],
)  # fmt: skip
def test_rope_scaling(convert, config, keys):
    with convert(**config) as file:
        prefix = "llama.rope.scaling."
        assert {key.removeprefix(prefix): file.metadata[key] for key in file.metadata if key.startswith(prefix)} == keys
        assert "rope_freqs.weight" not in file.tensors


def test_rope_scaling_of_llama_3(convert):
    with convert(rope_scaling=LLAMA3) as file:
        factors = values_of(file, "rope_freqs.weight")
    frequencies = 10000.0 ** (-np.arange(0, HEAD, 2) / HEAD)
    wanted = [llama3_factor(frequency) for frequency in frequencies]
    assert len({round(factor, 3) for factor in wanted}) > 2
    assert np.allclose(factors, wanted, rtol=1e-6)


# ---- Gemma ----


POST_NORMS = block_shapes("pre_feedforward_layernorm.weight", (EMBED,)) | block_shapes(
    "post_feedforward_layernorm.weight", (EMBED,))
GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"], "hidden_act": None, "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": None, "head_dim": HEAD, "query_pre_attn_scalar": HEAD, "sliding_window": 32,
}  # fmt: skip


def gemma3_tensors() -> dict[str, np.ndarray]:
    return llama_tensors(lm_head__weight=None, **POST_NORMS, **HEAD_NORMS)


def gemma3_keys(convert: Any, **config: Any) -> dict[str, Any]:
    """The keys of the architecture that its checkpoints alone have, without the prefix."""
    with convert(gemma3_tensors(), **GEMMA3 | config) as file:
        prefix = "gemma3."
        keys = {key.removeprefix(prefix): file.metadata[key] for key in file.metadata if key.startswith(prefix)}
    return {key: value for key, value in keys.items() if key.startswith(("rope.freq", "rope.scaling", "final", "attn"))
            or key in ("attention.scale", "attention.sliding_window", "attention.sliding_window_pattern")}


def test_norms_of_gemma_have_their_one(convert):
    tensors = gemma3_tensors()
    with convert({name: bfloat16(values) for name, values in tensors.items()}, **GEMMA3) as file:
        for name, module in (("attn_norm", "input_layernorm"), ("post_attention_norm", "post_attention_layernorm"),
                             ("ffn_norm", "pre_feedforward_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm"),
                             ("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")):
            source = bfloat16(tensors[f"model.layers.1.{module}.weight"]).astype(np.uint32) << 16
            assert np.array_equal(values_of(file, f"blk.1.{name}.weight"), source.view(np.float32) + np.float32(1))
        assert values_of(file, "output_norm.weight") == pytest.approx(tensors["model.norm.weight"] + 1, rel=1e-2)
        assert "output.weight" not in file.tensors
        assert {info.type_name for info in file.tensors.values() if len(info.shape) == 1} == {"F32"}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({}, {}),
        ({"query_pre_attn_scalar": 64}, {"attention.scale": 0.125}),
        ({"final_logit_softcapping": 30.0}, {"final_logit_softcapping": 30.0}),
        ({"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
         {"rope.freq_base": 5e5, "rope.freq_base_swa": 2e4, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}},
         {"rope.freq_base": 5e5, "rope.freq_base_swa": 2e4, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
        ({"sliding_window": None}, {"attention.sliding_window": 4096}),  # the default of those who leave it out
        ({"layer_types": ["sliding_attention"] * BLOCKS}, {}),  # as with a period of six
        ({"layer_types": ["sliding_attention", "full_attention"]}, {"attention.sliding_window_pattern": 2}),
        ({"layer_types": ["full_attention", "full_attention"]}, {"attention.sliding_window_pattern": 1}),
        ({"sliding_window_pattern": 1}, {"attention.sliding_window_pattern": 1}),
    ],
)  # fmt: skip
def test_keys_of_gemma_3(convert, config, keys):
    usual = {"rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "attention.sliding_window": 32}
    without_theta = {"rope_theta": None}
    wanted = {key: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
              for key, value in (usual | keys).items()}
    assert gemma3_keys(convert, **without_theta | config) == wanted


def test_layers_without_a_period(convert):
    found = gemma3_keys(convert, layer_types=["full_attention", "sliding_attention"])
    assert found["attention.sliding_window_pattern"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layer_types": ["full_attention"]}, r"layer_types is \['full_attention'\]; lcpu converts a list of 2 layers"),
        ({"layer_types": ["chunked", "full_attention"]}, "layer_types is .*; lcpu converts a list of 2 layers"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is given"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is true"),
        ({"hidden_activation": "gelu"}, "hidden_activation is 'gelu'; lcpu converts gemma3 models with 'gelu_pytorch"),
    ],
)
def test_what_gemma_3_cannot_be(convert, config, message):
    with pytest.raises(LcpuError, match=message):
        convert(gemma3_tensors(), **GEMMA3 | config)


def test_keys_of_gemma_2(convert):
    tensors = llama_tensors(lm_head__weight=None, **POST_NORMS)
    with convert(tensors, **GEMMA3 | {"architectures": ["Gemma2ForCausalLM"], "sliding_window": None,
                                      "attn_logit_softcapping": 20.0}) as file:
        found = {key: file.metadata[f"gemma2.{key}"] for key in
                 ("attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window")}
        assert "gemma2.attention.sliding_window_pattern" not in file.metadata
    assert found == {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 4096}


@pytest.mark.parametrize("is_old", [True, False])
def test_the_language_model_of_one_that_sees(convert, tmp_path, is_old):
    """Under the names of old and of new checkpoints; what config.json says of it is in a section of its own."""
    tensors = gemma3_tensors()
    with convert(tensors, **GEMMA3) as file:
        expected = {name: file.data(name).tobytes() for name in file.tensors}
        metadata = {key: value for key, value in file.metadata.items() if key.startswith("gemma3.")}
    first, parts = ("language_model.model.", "") if is_old else ("model.language_model.", "model.")
    renamed = {name.replace("model.", first, 1): values for name, values in tensors.items()}
    renamed |= {f"{parts}vision_tower.vision_model.embeddings.patch_embedding.bias": np.zeros(8, np.float32),
                f"{parts}multi_modal_projector.mm_input_projection_weight": np.zeros((8, EMBED), np.float32)}
    text = {key: value for key, value in (CONFIG | GEMMA3).items() if value is not None and key != "architectures"}
    nothing = dict.fromkeys(CONFIG | GEMMA3)
    how = nothing | {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}}
    with convert(renamed, **how) as file:
        assert {name: file.data(name).tobytes() for name in file.tensors} == expected
        assert {key: value for key, value in file.metadata.items() if key.startswith("gemma3.")} == metadata
    with open_checkpoint(tmp_path / "Tiny") as checkpoint:
        notes = plan(checkpoint, "auto", "Tiny").notes
    assert notes == ("the model sees or hears besides: the file is the language model alone",)


# ---- types ----


@pytest.mark.parametrize(("dtype", "name", "file_type"), [("float32", "F32", 0), ("float16", "F16", 1)])
def test_auto_keeps_the_type(convert, dtype, name, file_type):
    tensors = {key: array.astype(dtype) for key, array in llama_tensors().items()}
    with convert(tensors) as file:
        assert file.metadata["general.file_type"] == file_type
        types = {len(info.shape): info.type_name for info in file.tensors.values()}
        assert types == {1: "F32", 2: name}
        assert np.array_equal(values_of(file, "blk.1.ffn_up.weight"), tensors["model.layers.1.mlp.up_proj.weight"])


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0"])
def test_quantized_types(convert, name):
    with convert(type=name.lower()) as file:
        assert file.metadata["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{name}"]
        weights = interleaved(llama_tensors()["model.layers.1.self_attn.q_proj.weight"], HEADS)
        wanted = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[name])
        assert file.data("blk.1.attn_q.weight").tobytes() == wanted.tobytes()
        assert {info.type_name for info in file.tensors.values() if len(info.shape) == 1} == {"F32"}


def test_types_of_the_output_and_the_embedding(convert):
    with convert(type="q4_0", overrides=Overrides(output="F16", embedding="Q8_0")) as file:
        names = ("output.weight", "token_embd.weight", "blk.0.ffn_up.weight")
        assert [file.tensors[name].type_name for name in names] == ["F16", "Q8_0", "Q4_0"]
    bfloat = {name: bfloat16(array) for name, array in llama_tensors().items()}
    with convert(bfloat, "q4_0", overrides=Overrides(output="keep")) as file:
        assert file.tensors["output.weight"].type_name == "BF16"


def test_rows_that_are_not_whole_blocks_get_another_type(tmp_path):
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny")) as checkpoint:
        planned = plan(checkpoint, "q4_k", "Tiny")
    assert planned.type_name == "q4_k_m"
    assert {TENSOR_TYPES[each.type_id].name for each in planned.tensors} == {"F32", "Q5_0", "Q8_0"}
    assert planned.notes == ("the rows of 16 tensors, such as token_embd.weight, are not whole blocks of the type: "
                             "they get another",)


def test_bfloat16_is_kept_bit_for_bit(convert):
    tensors = {name: bfloat16(array) for name, array in llama_tensors().items()}
    with convert(tensors) as file:
        assert file.metadata["general.file_type"] == 32
        assert file.data("blk.0.ffn_up.weight").tobytes() == tensors["model.layers.0.mlp.up_proj.weight"].tobytes()
        assert file.tensors["output_norm.weight"].type_name == "F32"


# ---- metadata and notes ----


def test_names_of_hub_models(convert):
    with convert(name="acme/Rocket-2-7B-Instruct-v1.5") as file:
        general = {key: file.metadata.get(f"general.{key}") for key in
                   ("name", "organization", "basename", "finetune", "version")}
    assert general == {"name": "Rocket-2-7B-Instruct-v1.5", "organization": "acme", "basename": "Rocket-2",
                       "finetune": "7b-Instruct", "version": "v1.5"}


@pytest.mark.parametrize(
    ("config", "noted"),
    [
        ({"sliding_window": 32}, True),
        ({"sliding_window": 128}, False),
        ({"sliding_window": None}, False),
        ({"sliding_window": 32, "use_sliding_window": False}, False),
    ],
)
def test_a_sliding_window_is_noted(tmp_path, config, noted):
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny", **config)) as checkpoint:
        notes = plan(checkpoint, "auto", "Tiny").notes
    assert [note[:50] for note in notes] == ["the model's attention reaches back 32 tokens; a GG"] * noted
