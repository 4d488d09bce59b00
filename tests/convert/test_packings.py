"""Quantized checkpoints: the values and types that weights get, and what is said and refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.source import SourceTensor
from lcpu.convert.type_rules import Overrides
from lcpu.convert.write import write_plan
from lcpu.engine.gguf_file import GGUFFile
from lcpu.kernels.errors import LcpuError

from . import packed
from .checkpoints import (
    BLOCKS,
    EMBED,
    FFN,
    FLOAT8,
    HEADS,
    KV_HEADS,
    block_shapes,
    llama_tensors,
    mixtral_tensors,
    write_checkpoint,
)
from .reference import gguf_name, interleaved, reference_logits, values_of

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
GPTQ_V2 = GPTQ | {"checkpoint_format": "gptq_v2"}
AWQ = {"quant_method": "awq", "bits": 4, "version": "gemm"}
ROUND = {"quant_method": "auto-round", "bits": 4}
COMPRESSED = {"quant_method": "compressed-tensors"}
BNB = {"quant_method": "bitsandbytes"}
TOKENS = [1, 5, 77, 123, 42, 250, 7, 9, 280, 33]
LINEARS = 7 * BLOCKS
UP = "model.layers.0.mlp.up_proj"

CASES: dict[str, tuple[Any, dict[str, Any], str, str]] = {  # how, settings, type of the weights, of the model
    "gptq": (packed.gptq(), GPTQ, "Q4_0", "q4_0"),
    "gptq v2": (packed.gptq(less_one=False), GPTQ_V2, "Q4_0", "q4_0"),
    "gptq that says v1 and is v2": (packed.gptq(less_one=False), GPTQ, "Q4_0", "q4_0"),
    "gptq that says v2 and is v1": (packed.gptq(), GPTQ_V2, "Q4_0", "q4_0"),
    "gptq asymmetric": (packed.gptq(symmetric=False), GPTQ, "Q5_0", "q5_0"),
    "gptq v2 asymmetric": (packed.gptq(symmetric=False, less_one=False), GPTQ_V2, "Q5_0", "q5_0"),
    "gptq of 2 bits": (packed.gptq(2, symmetric=False), GPTQ, "Q4_0", "q4_0"),
    "gptq of 3 bits": (packed.gptq(3, symmetric=False), GPTQ, "Q4_0", "q4_0"),
    "gptq of 8 bits": (packed.gptq(8), GPTQ, "Q8_0", "q8_0"),
    "gptq of 8 bits, asymmetric": (packed.gptq(8, symmetric=False), GPTQ, "F32", "f32"),
    "gptq with a scale for each row": (packed.gptq(group=0), GPTQ | {"group_size": -1}, "Q4_0", "q4_0"),
    "gptq in groups of 16": (packed.gptq(group=16), GPTQ, "F32", "f32"),
    "awq": (packed.awq, AWQ, "Q5_0", "q5_0"),
    "auto-round as gptq": (packed.gptq(), ROUND | {"packing_format": "auto_round:auto_gptq"}, "Q4_0", "q4_0"),
    "auto-round": (packed.gptq(symmetric=False, less_one=False), ROUND | {"packing_format": "auto_round:gptqmodel"},
                   "Q5_0", "q5_0"),
    "auto-round as awq": (packed.awq, ROUND | {"packing_format": "auto_round:auto_awq"}, "Q5_0", "q5_0"),
    "compressed, 4 bits": (packed.compressed(4), COMPRESSED | {"format": "pack-quantized"}, "Q4_0", "q4_0"),
    "compressed, 4 bits, asymmetric": (packed.compressed(4, symmetric=False), COMPRESSED, "Q5_0", "q5_0"),
    "compressed, 8 bits": (packed.compressed(8), COMPRESSED, "Q8_0", "q8_0"),
    "compressed, int8": (packed.int8_rows, COMPRESSED | {"format": "int-quantized"}, "Q8_0", "q8_0"),
    "compressed, float8": (packed.float8, COMPRESSED | {"format": "float-quantized"}, "F32", "f32"),
    "compressed, mxfp4": (packed.mxfp4, COMPRESSED | {"format": "mxfp4-pack-quantized"}, "MXFP4", "mxfp4"),
    "bitsandbytes, nf4": (packed.nf4, BNB | {"load_in_4bit": True}, "F32", "f32"),
    "fp8": (packed.float8, {"quant_method": "fp8", "weight_block_size": [128, 128]}, "F32", "f32"),
}


def meant_by(meant: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values of each tensor of a GGUF file."""
    out = {}
    for name, array in meant.items():
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
        out[gguf_name(name)] = interleaved(array, heads) if heads else array
    return out


@pytest.mark.parametrize("case", CASES)
def test_every_value_is_kept(convert, case):
    pack, settings, type, model_type = CASES[case]
    stored, meant = packed.packed_model(llama_tensors(), pack)
    if "float8" in case:
        stored = {name.replace("scale_inv", "scale"): array for name, array in stored.items()}
    with convert(stored, quantization_config=settings) as file:
        for name, wanted in meant_by(meant).items():
            is_linear = name.startswith("blk.") and "norm" not in name
            assert file.tensors[name].type_name == (type if is_linear else "F32"), name
            assert np.array_equal(values_of(file, name), wanted), name
        file_types = {"f32": 0, "q4_0": 2, "q8_0": 7, "q5_0": 8, "mxfp4": 38}
        assert file.metadata["general.file_type"] == file_types[model_type]


def test_scales_that_float16_does_not_hold_are_rounded(convert):
    tensors = llama_tensors()
    tensors[f"{UP}.weight"][5] *= 1e-12  # whose scale becomes 0
    stored, meant = packed.packed_model(tensors, packed.int8_scb)
    with convert(stored, quantization_config=BNB) as file:
        for name, wanted in meant_by(meant).items():
            made = values_of(file, name)
            if name.startswith("blk.") and "norm" not in name:
                assert file.tensors[name].type_name == "Q8_0"
                assert np.abs(made - wanted).max() <= 2**-11 * np.abs(wanted).max()
                codes = file.data(name).reshape(-1, 34)[:, 2:].view(np.int8).reshape(wanted.shape)
                peaks = np.abs(wanted).max(1, keepdims=True)
                assert np.array_equal(codes, np.round(wanted / peaks * 127))
            else:
                assert np.array_equal(made, wanted)


@pytest.mark.parametrize("case", ["gptq", "awq"])
@pytest.mark.parametrize("type", ["f32", "auto"])
def test_the_engine_computes_what_the_model_means(tmp_path, case, type):
    pack, settings, _, _ = CASES[case]
    stored, meant = packed.packed_model(llama_tensors(), pack)
    folder = write_checkpoint(tmp_path / "Tiny", stored, quantization_config=settings)
    with LLM.load(folder, type=type, threads=1) as llm:
        logits = llm.logits(TOKENS)
    wanted = reference_logits(meant, TOKENS, lambda frequency: 1)
    tolerance = 2e-3 if type == "f32" else 3e-2  # activations of 8 bits
    assert np.abs(logits - wanted).max() < tolerance * np.abs(wanted).max()
    if type == "f32":
        floats = write_checkpoint(tmp_path / "Floats", meant)
        with LLM.load(floats, threads=1) as llm:
            assert np.array_equal(llm.logits(TOKENS), logits), "bit for bit those of the dequantized model"


@pytest.mark.parametrize(("case", "type", "wanted"), [
    ("gptq", "q8_0", "Q8_0"), ("gptq", "q5_0", "Q5_0"), ("awq", "q8_0", "Q8_0"), ("gptq", "f16", "F16"),
    ("bitsandbytes, nf4", "bf16", "BF16"),
])  # fmt: skip
def test_wider_types_and_floats_need_no_permission(convert, case, type, wanted):
    pack, settings, _, _ = CASES[case]
    stored, meant = packed.packed_model(llama_tensors(), pack)
    with convert(stored, type, quantization_config=settings) as file:
        for name, values in meant_by(meant).items():
            if name.startswith("blk.") and "norm" not in name:
                assert file.tensors[name].type_name == wanted
                tolerance = {"F16": 2**-11, "BF16": 2**-8}.get(wanted, 0)
                np.testing.assert_allclose(values_of(file, name), values, rtol=tolerance, atol=1e-7 if tolerance else 0)


@pytest.mark.parametrize("case", ["awq", "gptq asymmetric", "compressed, 4 bits, asymmetric"])
def test_q4_1_rounds_offsets_alone(tmp_path, case):
    pack, settings, _, _ = CASES[case]
    stored, meant = packed.packed_model(llama_tensors(), pack)
    folder = write_checkpoint(tmp_path / "Tiny", stored, quantization_config=settings)
    with open_checkpoint(folder) as checkpoint:
        planned = plan(checkpoint, "q4_1", "Tiny")
        assert "14 get other values (Q4_1), off by 0.00" in planned.kept(write_plan(planned, tmp_path / "a.gguf"))
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        wanted = meant_by(meant)["blk.1.ffn_down.weight"]
        steps = file.data("blk.1.ffn_down.weight").reshape(-1, 20)[:, :2].copy().view(np.float16).astype(np.float32)
        errors = np.abs(values_of(file, "blk.1.ffn_down.weight") - wanted).reshape(-1, 32)
        assert (errors <= 0.008 * steps).all()


@pytest.mark.parametrize(("case", "type", "message"), [
    ("awq", "q4_0", "14 weights, such as blk.0.attn_q.weight, are quantized, and Q4_0 would change them again: without "
                    "--type, they are kept in Q5_0; or allow it by `lcpu convert --allow-lossy`"),
    ("fp8", "q8_0", "are quantized, and Q8_0 would change them again: without --type, they become floats; or allow it"),
])  # fmt: skip
def test_types_that_change_values_need_permission(tmp_path, case, type, message):
    pack, settings, _, _ = CASES[case]
    stored, _ = packed.packed_model(llama_tensors(), pack)
    folder = write_checkpoint(tmp_path / "Tiny", stored, quantization_config=settings)
    with open_checkpoint(folder) as checkpoint:
        with pytest.raises(LcpuError, match=message.replace(".", r"\.")):
            plan(checkpoint, type, "Tiny")
        planned = plan(checkpoint, type, "Tiny", allow_lossy=True)
        errors = write_plan(planned, tmp_path / "a.gguf")
    assert len(errors) == LINEARS
    assert all(1e-4 < error < 0.2 for error in errors.values())
    method = "AWQ" if case == "awq" else "FP8"
    off = f"off by {max(errors.values()):.2g} of their root mean square at most"
    assert planned.kept(errors) == f"of the weights quantized by {method}, 14 get other values ({type.upper()}), {off}"
    with pytest.raises(LcpuError, match="allow it by `lcpu convert --allow-lossy`"):
        LLM.load(folder, type=type)


def test_what_is_said(tmp_path, caplog):
    tensors = llama_tensors()
    stored, _ = packed.packed_model(tensors, packed.gptq())
    folder = write_checkpoint(tmp_path / "Tiny", stored, quantization_config=GPTQ)
    with open_checkpoint(folder) as checkpoint:
        planned = plan(checkpoint, "auto", "Tiny")
        line = "of the weights quantized by GPTQ, 14 keep their values exactly (Q4_0)"
        assert planned.kept() == line
        assert planned.kept(write_plan(planned, tmp_path / "a.gguf")) == line
        halves = plan(checkpoint, "f16", "Tiny")
        assert halves.kept() == "of the weights quantized by GPTQ, 14 get other values (F16)"
        off = max(write_plan(halves, tmp_path / "b.gguf").values())
        assert 1e-5 < off < 2**-11
        floats = plan(checkpoint, "f32", "Tiny")
        assert floats.kept({}) == "of the weights quantized by GPTQ, 14 keep their values exactly (F32)"
    with caplog.at_level("INFO", logger="lcpu"):
        LLM.load(folder, threads=1).close()
    assert line in caplog.text
    with open_checkpoint(write_checkpoint(tmp_path / "Floats", tensors)) as checkpoint:
        assert plan(checkpoint, "auto", "Floats").kept() == ""


def test_the_output_layer_may_have_another_type(convert):
    stored, _ = packed.packed_model(llama_tensors(), packed.gptq())
    overrides = Overrides(output="Q8_0", embedding="F16")
    with convert(stored, quantization_config=GPTQ, overrides=overrides) as file:
        types = {name: info.type_name for name, info in file.tensors.items()}
    assert (types["output.weight"], types["token_embd.weight"], types["blk.0.ffn_up.weight"]) == ("Q8_0", "F16", "Q4_0")


def test_a_quantized_output_layer(convert, tmp_path):
    stored, _ = packed.packed_model(llama_tensors(), packed.gptq())
    head = stored.pop("lm_head.weight")
    parts, values = packed.gptq()(head, np.random.default_rng(1))
    stored |= {f"lm_head{ending}": part for ending, part in parts.items()}
    with convert(stored, quantization_config=GPTQ) as file:
        assert file.tensors["output.weight"].type_name == "Q4_0"
        assert np.array_equal(values_of(file, "output.weight"), values)
    with open_checkpoint(tmp_path / "Tiny") as checkpoint:
        with pytest.raises(LcpuError, match=r"1 weights, such as output\.weight, are quantized, and Q4_1 would change"):
            plan(checkpoint, "auto", "Tiny", Overrides(output="Q4_1"))
        planned = plan(checkpoint, "auto", "Tiny", Overrides(output="Q4_1"), allow_lossy=True)
    assert [each.name for each in planned.tensors if each.type_id == 3] == ["output.weight"]


def test_scattered_columns_of_ffn_down_change_places(tmp_path):
    """desc_act: the rows of gate and up go along. Other layers have no rows before them that could."""
    biases = block_shapes("mlp.gate_proj.bias", (FFN,)) | block_shapes("mlp.up_proj.bias", (FFN,))
    stored, meant = packed.packed_model(llama_tensors(**biases), packed.gptq(scattered="all"))
    folder = write_checkpoint(tmp_path / "Tiny", stored, quantization_config=GPTQ | {"desc_act": True})
    with open_checkpoint(folder) as checkpoint:
        planned = plan(checkpoint, "auto", "Tiny")
        line = planned.kept(write_plan(planned, tmp_path / "a.gguf"))
    assert line == ("of the weights quantized by GPTQ, 14 keep their values exactly (12 F32, 2 Q4_0); 12 have columns "
                    "in activation order (desc_act), whose scales only float types can keep: --type q8_0 --allow-lossy "
                    "makes them smaller")
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        for block in range(BLOCKS):
            wanted = meant[f"model.layers.{block}.mlp.down_proj.weight"]
            assert file.tensors[f"blk.{block}.ffn_down.weight"].type_name == "Q4_0"
            order = stored[f"model.layers.{block}.mlp.down_proj.g_idx"].argsort(kind="stable")
            assert np.array_equal(values_of(file, f"blk.{block}.ffn_down.weight"), wanted[:, order])
            for part in ("gate", "up"):
                for kind in ("weight", "bias"):
                    made = values_of(file, f"blk.{block}.ffn_{part}.{kind}")
                    assert np.array_equal(made, meant[f"model.layers.{block}.mlp.{part}_proj.{kind}"][order])
    with LLM.load(folder, type="f32", threads=1) as llm:
        logits = llm.logits(TOKENS)
    wanted = reference_logits(meant, TOKENS, lambda frequency: 1)
    assert np.abs(logits - wanted).max() < 2e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("alike", [True, False])
def test_scattered_columns_within_heads_change_places(tmp_path, alike):
    """The rows of v go along, if the heads that share them want the same order."""
    changes = {name.replace(".", "__"): tuple(256 if size == EMBED else size for size in array.shape)
               for name, array in llama_tensors().items()}
    for part in "kv":
        changes |= block_shapes(f"self_attn.{part}_proj.weight", (128, 256))
    tensors = llama_tensors(**changes)
    stored, meant = packed.packed_model(tensors, packed.gptq(scattered="heads" if alike else "all"))
    folder = write_checkpoint(tmp_path / "Tiny", stored, quantization_config=GPTQ, hidden_size=256)
    with open_checkpoint(folder) as checkpoint:
        write_plan(plan(checkpoint, "auto", "Tiny"), tmp_path / "a.gguf")
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        name = "model.layers.1.self_attn.{}_proj.weight"
        wanted, v = meant[name.format("o")], meant[name.format("v")]
        made = values_of(file, "blk.1.attn_output.weight")
        if not alike:
            assert file.tensors["blk.1.attn_output.weight"].type_name == "F32"
            assert np.array_equal(made, wanted)
            return
        order = stored[name.format("o").replace("weight", "g_idx")][:64].argsort(kind="stable")
        columns = np.concatenate([order + 64 * head for head in range(4)])
        assert file.tensors["blk.1.attn_output.weight"].type_name == "Q4_0"
        assert np.array_equal(made, wanted[:, columns])
        assert np.array_equal(values_of(file, "blk.1.attn_v.weight"), v[columns[:128]])


def test_biases_of_zeros_that_the_model_does_not_have(convert):
    zeros = {f"model.layers.{block}.mlp.{part}_proj.bias": np.zeros(EMBED if part == "down" else FFN, np.float16)
             for block in range(BLOCKS) for part in ("gate", "up", "down")}
    stored, _ = packed.packed_model(llama_tensors(), packed.gptq())
    with convert(stored | zeros, quantization_config=GPTQ) as file:
        assert not [name for name in file.tensors if name.endswith("bias")]


def test_a_checkpoint_that_is_only_described(tmp_path):
    for name in ("gptq", "awq", "bitsandbytes, nf4", "compressed, int8", "fp8"):
        pack, settings, _, _ = CASES[name]
        stored, _ = packed.packed_model(llama_tensors(), pack)
        folder = write_checkpoint(tmp_path / name, stored, quantization_config=settings)
        with open_checkpoint(folder) as checkpoint:
            whole = plan(checkpoint, "auto", "Tiny")
            described = {key: SourceTensor(key, each.shape, each.dtype, None, 0)
                         for key, each in checkpoint.tensors.items()}
        with open_checkpoint(folder, described) as checkpoint:
            planned = plan(checkpoint, "auto", "Tiny")
        assert [(each.name, each.type_id) for each in planned.tensors] == [(each.name, each.type_id)
                                                                           for each in whole.tensors], name


def test_settings_in_a_file_beside(tmp_path):
    """As AutoGPTQ and AutoAWQ write them for config.json files that say nothing."""
    for file, settings, pack in (("quantize_config.json", {"bits": 4, "group_size": 32}, packed.gptq()),
                                 ("quant_config.json", {"w_bit": 4, "version": "GEMM"}, packed.awq)):
        folder = write_checkpoint(tmp_path / file, packed.packed_model(llama_tensors(), pack)[0])
        (folder / file).write_text(json.dumps(settings))
        with open_checkpoint(folder) as checkpoint:
            assert plan(checkpoint, "auto", "Tiny").type_name in ("q4_0", "q5_0")


MIXTRAL = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 3, "num_experts_per_tok": 2}


@pytest.mark.parametrize("name", ["gptq", "awq", "compressed, mxfp4", "bitsandbytes, nf4", ""])
def test_experts_are_stacked(convert, tmp_path, name):
    pack, settings, type, _ = CASES.get(name, (None, None, "F32", ""))
    stored = meant = mixtral_tensors(3)
    if pack is not None:
        stored, meant = packed.packed_model(stored, pack)
    with convert(stored, quantization_config=settings, **MIXTRAL) as file:
        for part, number in (("gate", 1), ("down", 2), ("up", 3)):
            stack = f"blk.1.ffn_{part}_exps.weight"
            assert file.tensors[stack].type_name == type
            experts = [f"model.layers.1.block_sparse_moe.experts.{expert}.w{number}.weight" for expert in range(3)]
            assert np.array_equal(values_of(file, stack), [meant[expert] for expert in experts])
        assert file.tensors["blk.1.ffn_gate_inp.weight"].type_name == "F32"
    with LLM.load(tmp_path / "Tiny", type="f32", threads=1) as llm:
        logits = llm.logits(TOKENS)
    wanted_logits = reference_logits(meant, TOKENS, lambda frequency: 1)
    assert np.abs(logits - wanted_logits).max() < 2e-3 * np.abs(wanted_logits).max()


def test_experts_that_are_missing(convert):
    tensors = mixtral_tensors(3)
    del tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    with pytest.raises(LcpuError, match=r"1\.block_sparse_moe\.experts\.w3\.weight' are not the 3 experts that config"):
        convert(tensors, **MIXTRAL)


@pytest.mark.parametrize(("case", "change", "message"), [
    ("gptq", {f"{UP}.scales": None}, f"tensor '{UP}.qweight' has no {UP}.scales: the checkpoint is not whole"),
    ("gptq", {f"{UP}.qweight": np.zeros((9, FFN), np.int32)}, r"has the shape \(9, 96\), which is not that of 96 x 64"),
    ("gptq", {f"{UP}.qzeros": np.zeros((2, 11), np.int32)}, "has the shape 2 x 11, but config.json says 2 x 12"),
    ("gptq", {f"{UP}.g_idx": np.full(EMBED, 2, np.int32)}, "names groups that are not among the 2 of the layer"),
    ("gptq", {f"{UP}.qweight": np.zeros((8, FFN), np.int64)}, "has the type I64, not I32"),
    ("awq", {f"{UP}.qweight": np.zeros((EMBED, 11), np.int32)}, "has the shape 64 x 11, but config.json says 64 x 12"),
    ("compressed, 4 bits", {f"{UP}.weight_scale": np.zeros((FFN, 3), np.float32)}, "has 3 groups, which do not divide"),
    ("bitsandbytes, nf4", {f"{UP}.weight.quant_state.bitsandbytes__nf4": np.zeros(9, np.uint8)},
     "does not describe the weight: damaged"),
    ("bitsandbytes, nf4", {f"{UP}.weight": np.zeros((9, 1), np.uint8)}, "has 9 bytes, which are not 96 x 64 values"),
    ("fp8", {f"{UP}.weight_scale_inv": np.zeros((2, 1), np.float32)}, "has the shape 2 x 1, but config.json says 1 x"),
    ("fp8", {"model.norm.weight": np.zeros(EMBED, FLOAT8)}, "is quantized, but 64 values are no matrix of FP8"),
    ("gptq", {f"{UP}.scales": np.full((2, FFN), np.nan, np.float32)}, "up.weight has values that are not finite"),
    ("fp8", {f"{UP}.weight_scale_inv": np.full((1, 1), 1e38, np.float32)}, "up.weight has values that are not finite"),
    ("fp8", {f"{UP}.weight_scale_inv": None}, f"has no {UP}.weight_scale: the checkpoint is not whole"),
])  # fmt: skip
def test_tensors_that_do_not_fit(convert, case, change, message):
    pack, settings, _, _ = CASES[case]
    stored, _ = packed.packed_model(llama_tensors(), pack)
    stored = {name: array for name, array in (stored | change).items() if array is not None}
    with pytest.raises(LcpuError, match=message) as caught:
        convert(stored, quantization_config=settings)
    assert "\n" not in str(caught.value)
