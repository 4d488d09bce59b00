"""Checkpoints with gated delta nets: their metadata, what changes its place, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.plan import plan
from lcpu.engine.options import GenerationOptions
from lcpu.kernels.errors import LcpuError

from .checkpoints import write_checkpoint
from .golden_cases import LENGTH, case, text
from .hybrids import KEY_HEADS, SIZE, VALUE_HEADS, hybrid
from .packed import float8, gptq, packed_model
from .reference import values_of

NAME, WITH_EXPERTS = "qwen3_5_text", "qwen3_5_moe_text"
BOTH = pytest.mark.parametrize("name", [NAME, WITH_EXPERTS])
LEFT_OUT = {"model.visual.patch_embed.proj.weight": np.ones((4, 4), np.float32),
            "mtp.fc.weight": np.ones((4, 4), np.float32),
            "mtp.layers.0.mlp.up_proj.weight": np.ones((4, 4), np.float32)}
HEADS = [0, 2, 1, 3]  # where value heads come from: each key head has two


def test_metadata(convert):
    tensors, how = case(NAME)
    with convert(tensors, "f32", **how) as file:
        keys = {key.removeprefix("qwen35."): value for key, value in file.metadata.items()}
        assert [keys[f"ssm.{name}"] for name in ("conv_kernel", "state_size", "group_count", "time_step_rank",
                                                 "inner_size")] == [4, SIZE, KEY_HEADS, VALUE_HEADS, VALUE_HEADS * SIZE]
        assert keys["full_attention_interval"] == 4
        assert keys["rope.dimension_count"] == 8
        assert list(keys["rope.dimension_sections"]) == [2, 1, 1, 0]
        assert "attention.recurrent_layers" not in keys
    kinds = ["full_attention", *["linear_attention"] * 2, "full_attention"]
    with convert(hybrid(tensors, attention=(0, 3)), "f32", **how, layer_types=kinds) as file:
        assert list(file.metadata["qwen35.attention.recurrent_layers"]) == [False, True, True, False]
        assert "blk.0.attn_q.weight" in file.tensors


def test_what_changes_its_place(convert):
    tensors, how = case(NAME)
    with convert(tensors, "f32", **how) as file:
        made = {name.removeprefix("blk.1."): values_of(file, name) for name in file.tensors if "blk.1." in name}
    found = {name.removeprefix("model.layers.1.linear_attn."): each for name, each in tensors.items() if ".1." in name}
    np.testing.assert_allclose(made["ssm_a"], -np.exp(found["A_log"][HEADS]), rtol=1e-6)
    assert np.array_equal(made["ssm_dt.bias"], found["dt_bias"][HEADS])
    assert np.array_equal(made["ssm_alpha.weight"], found["in_proj_a.weight"][HEADS])
    gates, columns = (each.reshape(VALUE_HEADS, SIZE, -1)[HEADS] for each in (found["in_proj_z.weight"],
                                                                          found["out_proj.weight"].T))
    assert np.array_equal(made["attn_gate.weight"], gates.reshape(VALUE_HEADS * SIZE, -1))
    assert np.array_equal(made["ssm_out.weight"].T, columns.reshape(VALUE_HEADS * SIZE, -1))
    before = 2 * KEY_HEADS * SIZE
    for name, source in (("attn_qkv.weight", found["in_proj_qkv.weight"]), ("ssm_conv1d.weight",
                                                                           found["conv1d.weight"][:, 0])):
        assert np.array_equal(made[name][:before], source[:before])
        values = source[before:].reshape(VALUE_HEADS, SIZE, -1)[HEADS]
        assert np.array_equal(made[name][before:], values.reshape(VALUE_HEADS * SIZE, -1))
    assert np.array_equal(made["ssm_norm.weight"], found["norm.weight"])


@BOTH
def test_the_language_model_of_one_that_sees(convert, tmp_path, name):
    tensors, how = case(name)
    inner = {name: value for name, value in how.items() if name not in ("architectures", "model_type")}
    seen = {name.replace("model.", "model.language_model.", 1): array for name, array in tensors.items()} | LEFT_OUT
    with convert(tensors, "f32", **how) as file:
        wanted = {name: values_of(file, name) for name in file.tensors}
        keys = {key: value for key, value in file.metadata.items() if key.startswith("qwen35")}
    whole = {"architectures": [how["architectures"][0].replace("Causal", "Conditional").replace("LM", "Generation")],
             "text_config": inner}
    with convert(seen, "f32", **whole) as file:
        assert file.tensors.keys() == wanted.keys()
        assert all(np.array_equal(values_of(file, name), array) for name, array in wanted.items())
        assert {key: list(np.ravel(file.metadata[key])) for key in keys} == {
            key: list(np.ravel(value)) for key, value in keys.items()}
    with open_checkpoint(write_checkpoint(tmp_path / "seen", seen, **whole)) as checkpoint:
        notes = plan(checkpoint, "f32", "Tiny").notes
    assert notes == ("the model sees or hears besides: the file is the language model alone",
                     "the model has layers that draft tokens (MTP): they are left out")


@pytest.mark.parametrize(("pack", "settings"), [
    (float8, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    (gptq(), {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True})])
def test_quantized_weights_change_their_places(convert, pack, settings):
    tensors, how = case(NAME)
    packed, floats = packed_model(tensors, pack)
    with convert(floats, "f32", **how) as file:
        wanted = {name: values_of(file, name) for name in file.tensors}
    with convert(packed, "f32", **how, quantization_config=settings) as file:
        for name, array in wanted.items():
            np.testing.assert_allclose(values_of(file, name), array, rtol=1e-6, err_msg=name)


def test_experts_in_tensors_of_their_own(convert):
    tensors, how = case(WITH_EXPERTS)
    apart = {name: each for name, each in tensors.items() if ".experts." not in name}
    for name, stack in tensors.items():
        if ".experts." in name:
            place, _, kind = name.rpartition(".")
            for number, each in enumerate(stack):
                parts = zip(("gate_proj", "up_proj"), np.split(each, 2), strict=True) if "gate_up" in kind else [
                    (kind, each)]
                apart |= {f"{place}.{number}.{part}.weight": values for part, values in parts}
    with convert(tensors, "f32", **how) as file:
        wanted = {name: values_of(file, name) for name in file.tensors}
    with convert(apart, "f32", **how) as file:
        assert all(np.array_equal(values_of(file, name), array) for name, array in wanted.items())


@BOTH
def test_inputs_of_all_matrices_are_measured(convert, tmp_path, name):
    tensors, how = case(name)
    with convert(tensors, "f32", **how) as file:
        matrices = {key for key, info in file.tensors.items()
                    if key.startswith("blk.") and len(info.shape) > 1 and "conv1d" not in key}
        matrices.add("output.weight" if "output.weight" in file.tensors else "token_embd.weight")
    with LLM.load(tmp_path / "a.gguf", threads=1, context=LENGTH, input_squares=True) as llm:
        squares = llm.measure_imatrix([text(), text()[::-1]])
        products = {name: each.sums for each in llm.measure_products([text(), text()[::-1]], most_bytes=1)
                    for name in each.tensors}
    assert set(squares) == matrices
    assert set(products) == {name for name in matrices if "_exps" not in name}  # those have not all tokens
    for name in products:
        if "ssm_out" in name or "ffn_down" in name:
            np.testing.assert_allclose(np.diagonal(products[name]), squares[name].sums[0], rtol=1e-4)


def test_measuring_inputs_leaves_states_alone(convert, tmp_path):
    tensors, how = case(NAME)
    convert(tensors, "f32", **how | {"max_position_embeddings": 512}).close()
    answers = []
    with LLM.load(tmp_path / "a.gguf", threads=1, input_squares=True) as llm:
        for reused in (0, 128):
            answer = llm.stream(text() * 3, GenerationOptions(max_tokens=9, temperature=0.0))
            answers.append("".join(answer))
            assert answer.reused_tokens == reused
            llm.measure_imatrix([[1, 2, 3]] * 90)
    assert answers[0] == answers[1]


def test_files_with_layers_that_draft(convert, tmp_path):
    """llama.cpp's converter puts them behind the others: they are not computed."""
    tensors, how = case(NAME)
    with convert(tensors, "f32", **how) as file:
        written = [TensorToWrite(name, info.shape, info.type_id, file.data(name).view(np.float32))
                   for name, info in file.tensors.items()]
        written += [replace(each, name=each.name.replace("blk.3.", "blk.4."))
                    for each in written if each.name.startswith("blk.3.")]
        keys = {"qwen35.block_count": 5, "qwen35.nextn_predict_layers": 1}
        write_gguf(tmp_path / "drafts.gguf", {**file.metadata, **keys}, written)
    found = []
    for name in ("a.gguf", "drafts.gguf"):
        with LLM.load(tmp_path / name, threads=1, context=LENGTH) as llm:
            found.append(llm.logits(text()))
    assert np.array_equal(*found)


@pytest.mark.parametrize(("changes", "message"), [
    ({"linear_value_head_dim": 32}, "linear_value_head_dim is 32; lcpu converts delta nets whose keys and values"),
    ({"linear_num_key_heads": 3}, "lcpu converts delta nets whose keys"),
    ({"layer_types": ["linear_attention"]}, "layer_types is .*; lcpu converts a list of 4 layers, each linear"),
    ({"attn_output_gate": False}, "attn_output_gate is false: engines compute attention with gates"),
    ({"linear_num_key_heads": 4}, "config.json says"),
    ({"rope_parameters": {"rope_type": "default", "mrope_section": "11"}}, "mrope_section is 11, not up to four"),
])
def test_what_engines_do_not_compute_is_refused(convert, changes, message):
    tensors, how = case(NAME)
    with pytest.raises(LcpuError, match=message):
        convert(tensors, "f32", **(how | changes))
