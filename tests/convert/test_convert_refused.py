"""Checkpoints that cannot be converted, and conversions that fail: one line each, and no file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.write import write_plan
from lcpu.kernels.errors import LcpuError

from .checkpoints import EMBED, FFN, HEAD, HEADS, VOCAB, llama_tensors, write_checkpoint
from .reference import LLAMA3

Q = HEADS * HEAD
MISSING = "the tensor of {} is missing: the checkpoint is not whole"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__embed_tokens__weight": None}, MISSING.format(r"token_embd\.weight")),
        ({"model__layers__1__mlp__up_proj__weight": None}, MISSING.format(r"blk\.1\.ffn_up\.weight")),
        ({"model__norm__weight": None}, MISSING.format(r"output_norm\.weight")),
        ({"model__layers__0__self_attn__k_proj__weight": (Q, EMBED)},
         r"model\.safetensors: tensor 'model\.layers\.0\.self_attn\.k_proj\.weight' has the shape 64 x 64, but "
         r"config\.json says 32 x 64"),
        ({"model__embed_tokens__weight": (VOCAB + 1, EMBED)}, "has the shape 385 x 64, but config.json says 384 x 64"),
        ({"model__layers__2__mlp__up_proj__weight": (FFN, EMBED)},
         r"tensor 'model\.layers\.2\.mlp\.up_proj\.weight' has no place in llama models of 2 blocks"),
        ({"model__layers__0__self_attn__q_norm__weight": (HEAD,)}, "has no place in llama models"),
        ({"something__else": (1,)}, "tensor 'something.else' has no place in llama models"),
    ],
)  # fmt: skip
def test_tensors_that_are_missing_or_do_not_fit(convert, changes, message):
    with pytest.raises(LcpuError, match=message) as caught:
        convert(llama_tensors(**changes))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_floats(convert):
    with pytest.raises(LcpuError, match="has the type I64, which is not that of weights"):
        convert(llama_tensors() | {"model.norm.weight": np.zeros(EMBED, np.int64)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["GPT9"]}, r"has the architecture 'GPT9'; lcpu converts LlamaForCausalLM, "),
        ({"architectures": []}, "has no architecture; lcpu converts"),
        ({"architectures": None}, "has no architecture; lcpu converts"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 64.0}, "hidden_size is 64.0, not a whole number from 1 to 2147483647"),
        ({"hidden_size": True}, "hidden_size is True, not a whole number from 1 to"),
        ({"num_hidden_layers": 2**31}, "num_hidden_layers is 2147483648, not a whole number from 1 to 4096"),
        ({"vocab_size": 2**25}, "vocab_size is 33554432, not a whole number from 1 to 16777216"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5, which does not divide hidden_size, 64"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, which does not divide the 4 heads"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1, not a positive number"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; lcpu converts llama models with 'silu'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', not true or false"),
        ({"rope_scaling": 2}, "rope_scaling is int, not an object"),
        ({"rope_scaling": {"type": "longrope"}}, "is of the type 'longrope'; lcpu converts default, linear, dynamic"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "share": 1.0}}, "of the type 'yarn' has 'share'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "low_freq_factor": 1.0}}, "'yarn' has 'low_freq_factor'"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor 4, which is not below high_freq"),
        ({"rope_scaling": LLAMA3 | {"factor": 1e7}}, "has the factor 1e\\+07, which is not 1e-06 to 1e\\+06"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not 1"),
        ({"quantization_config": {"quant_method": "aqlm"}},
         "by 'aqlm'; lcpu reads AutoRound, AWQ, BitNet, bitsandbytes, compressed-tensors, FP8, GPTQ, MXFP4: take"),
        ({"quantization_config": {"quant_method": ["gptq"]}}, "the weights are quantized by \"\\['gptq'\\]"),
        ({"quantization_config": {"weights": 4}}, "quantized by 'an unknown method'"),
        ({"compression_config": {"format": "marlin-24"}}, "has the format 'marlin-24'; of compressed-tensors"),
        ({"quantization_config": {"quant_method": "gptq", "format": "marlin"}}, "has the format 'marlin'; of GPTQ"),
        ({"quantization_config": {"quant_method": "awq", "version": "gemv"}}, "has the layout 'gemv'; of AWQ, lcpu "),
        ({"quantization_config": {"quant_method": "awq", "version": "GEMV_fast"}}, "has the layout 'gemv_fast'"),
        ({"quantization_config": {"quant_method": "awq", "version": "marlin"}}, "has the layout 'marlin'"),
        ({"quantization_config": {"quant_method": "awq", "bits": 8}}, "has 8 bits; of AWQ, lcpu reads those of 4"),
        ({"quantization_config": {"quant_method": "auto-round", "packing_format": "auto_round:mlx"}},
         "has the packing_format 'auto_round:mlx'; of AutoRound, lcpu reads auto_round:auto_gptq, "),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "has the quant_algo 'NVFP4'"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantized by 'MLX'"),
        ({"head_dim": 1024}, "heads have 1024 values; lcpu supports even numbers from 8 to 512"),
        ({"quantization_config": {"quant_method": "bitnet"} | {"use_rms_norm": True}}, "has use_rms_norm"),
    ],
)
def test_configurations_that_cannot_be_converted(convert, config, message):
    with pytest.raises(LcpuError, match=f"config.json: .*{message}") as caught:
        convert(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("quantize_config.json", {"checkpoint_format": "marlin"}, "has the format 'marlin'; of GPTQ"),
        ("quant_config.json", {"version": "GEMV"}, "has the layout 'gemv'; of AWQ"),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}, "has the quant_algo 'NVFP4'; of ModelOpt"),
    ],
)
def test_a_quantized_checkpoint_is_known_by_the_file_beside_it(tmp_path, name, settings, message):
    folder = write_checkpoint(tmp_path / "Tiny")
    (folder / name).write_text(json.dumps(settings))
    with pytest.raises(LcpuError, match=message):
        open_checkpoint(folder)


def test_quantized_weights_are_named_as_such_before_they_are_read(tmp_path):
    folder = write_checkpoint(tmp_path / "Tiny", quantization_config={"quant_method": "exl2"})
    (folder / "model.safetensors").write_bytes(b"not looked at")
    with pytest.raises(LcpuError, match="quantization_config says that the weights are quantized by 'exl2'"):
        open_checkpoint(folder)


def test_what_the_engine_refuses_is_not_written(tmp_path):
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny")) as checkpoint:
        planned = plan(checkpoint, "auto", "Tiny")
        odd = replace(planned, metadata={**planned.metadata, "tokenizer.ggml.bos_token_id": "one"})
        with pytest.raises(LcpuError, match=r"a\.gguf: is not written, since lcpu could not run it \(.*bos_token_id"):
            write_plan(odd, tmp_path / "a.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Tiny"]


def test_not_enough_room(tmp_path, monkeypatch):
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny")) as checkpoint:
        planned = plan(checkpoint, "auto", "Tiny")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, planned.nbytes))
        with pytest.raises(LcpuError, match=r"a\.gguf: needs 0\.00 GiB, but the disk has 0\.00 GiB left: make room"):
            write_plan(planned, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_failure_leaves_no_file(tmp_path):
    tensors = llama_tensors() | {"lm_head.weight": np.full((VOCAB, EMBED), 1e6, np.float32)}
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny", tensors)) as checkpoint:
        planned = plan(checkpoint, "f16", "Tiny")
        with pytest.raises(LcpuError, match=r"tensor output\.weight has values that are not finite, or too large for"):
            write_plan(planned, tmp_path / "a.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Tiny"]
