"""Mixtures of experts: what their checkpoints become, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.type_rules import Overrides
from lcpu.kernels.errors import LcpuError

from .checkpoints import BLOCKS, write_checkpoint
from .golden_cases import case
from .packed import E2M1
from .reference import values_of

KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("llama", {"feed_forward_length": 96, "expert_count": 4, "expert_used_count": 2}),
    "olmoe": ("olmoe", {"feed_forward_length": 96, "expert_count": 6, "expert_used_count": 2}),
    "qwen2_moe": ("qwen2moe", {"feed_forward_length": 96, "expert_count": 6, "expert_used_count": 2,
                               "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48}),
    "qwen3_moe": ("qwen3moe", {"feed_forward_length": 96, "expert_count": 6, "expert_used_count": 2,
                               "expert_feed_forward_length": 32}),
    "gpt_oss": ("gpt-oss", {"feed_forward_length": 32, "expert_count": 6, "expert_used_count": 2,
                            "expert_feed_forward_length": 32}),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys(convert, name):
    tensors, how = case(name)
    architecture, keys = KEYS[name]
    with convert(tensors, **how) as file:
        assert file.metadata["general.architecture"] == architecture
        found = {key.removeprefix(f"{architecture}."): value for key, value in file.metadata.items()
                 if "expert" in key or "feed_forward" in key}
    assert found == keys


def test_experts_are_stacked_in_their_order(convert):
    tensors, how = case("qwen2_moe")
    with convert(tensors, **how) as file:
        name = "model.layers.1.mlp."
        ups = [tensors[f"{name}experts.{expert}.up_proj.weight"] for expert in range(6)]
        assert np.array_equal(values_of(file, "blk.1.ffn_up_exps.weight"), ups)
        up = tensors[f"{name}shared_expert.up_proj.weight"]
        assert np.array_equal(values_of(file, "blk.1.ffn_up_shexp.weight"), up)
        shared_gate = tensors[f"{name}shared_expert_gate.weight"]
        assert np.array_equal(values_of(file, "blk.1.ffn_gate_inp_shexp.weight"), shared_gate[0])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gpt_oss_has_rows_of_gate_and_up_in_turn(convert, dtype):
    tensors, how = case("gpt_oss")
    tensors = {name: array.astype(dtype) for name, array in tensors.items()}
    with convert(tensors, **how) as file:
        for block in range(BLOCKS):
            fused, bias, down = (tensors[f"model.layers.{block}.mlp.experts.{part}"]
                                 for part in ("gate_up_proj", "gate_up_proj_bias", "down_proj"))
            for i, part in enumerate(("gate", "up")):
                assert np.array_equal(values_of(file, f"blk.{block}.ffn_{part}_exps.weight"),
                                      fused[:, :, i::2].swapaxes(1, 2))
                assert np.array_equal(values_of(file, f"blk.{block}.ffn_{part}_exps.bias"), bias[:, i::2])
                assert file.tensors[f"blk.{block}.ffn_{part}_exps.bias"].type_name == "F32"
            assert np.array_equal(values_of(file, f"blk.{block}.ffn_down_exps.weight"), down.swapaxes(1, 2))
        assert file.tensors["blk.0.attn_sinks.weight"].shape == (4,)
        assert [file.metadata[f"gpt-oss.{key}"] for key in (
            "attention.sliding_window", "rope.scaling.type", "rope.scaling.yarn_truncate")] == [16, "yarn", True]


@pytest.mark.parametrize(("name", "notes"), [("gpt_oss", 0), ("gpt_oss-mxfp4", 1)])
def test_a_blend_that_llama_cpp_does_not_know_is_noted(tmp_path, name, notes):
    tensors, how = case(name)
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny", tensors, **how)) as checkpoint:
        found = plan(checkpoint, "auto", "Tiny").notes
    assert [note[:52] for note in found] == ["gpt-oss.rope.scaling.yarn_truncate is lcpu's own key"] * notes


@pytest.mark.parametrize("type", ["auto", "mxfp4_moe"])
def test_mxfp4_is_kept(convert, type):
    tensors, how = case("gpt_oss-mxfp4")
    with convert(tensors, type, **how) as file:
        for part, rows in (("gate", slice(0, None, 2)), ("up", slice(1, None, 2)), ("down", slice(None))):
            name = f"model.layers.1.mlp.experts.{'down' if part == 'down' else 'gate_up'}_proj_"
            blocks, scales = tensors[f"{name}blocks"][:, rows], tensors[f"{name}scales"][:, rows]
            codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
            meant = np.array(E2M1)[codes] * np.exp2(scales.astype(float) - 127)[..., None]
            info = file.tensors[f"blk.1.ffn_{part}_exps.weight"]
            assert info.type_name == "MXFP4"
            assert np.array_equal(values_of(file, info.name), meant.reshape(info.shape))
        assert file.tensors["blk.1.attn_q.weight"].type_name == ("F32" if type == "auto" else "Q8_0")
        assert file.metadata["general.file_type"] == (0 if type == "auto" else 38)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "renormalized": ("qwen2_moe", {"norm_topk_prob": True}, r"norm_topk_prob is true, which engines do not compute"),
    "not renormalized": ("qwen3_moe", {"norm_topk_prob": False}, r"norm_topk_prob is false, which engines do not"),
    "dense layers": ("qwen3_moe", {"mlp_only_layers": [1]}, r"mlp_only_layers is \[1\]: layers without experts"),
    "every other layer": ("qwen2_moe", {"decoder_sparse_step": 2}, r"decoder_sparse_step is 2: layers without experts"),
    "clipped": ("olmoe", {"clip_qkv": 8.0}, r"clip_qkv limits queries, keys and values"),
    "another limit": ("gpt_oss", {"swiglu_limit": 5.0}, r"swiglu_limit is 5\.0, and engines limit values to 7"),
    "other windows": ("gpt_oss", {"layer_types": ["full_attention", "sliding_attention"]},
                      r"layer_types are not every other one with a window"),
    "wider experts": ("gpt_oss", {"intermediate_size": 48}, r"gate_up_proj' is not 6 x 64 x 96 floats"),
}


@pytest.mark.parametrize(("name", "changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_refused(convert, name, changes, message):
    tensors, how = case(name)
    with pytest.raises(LcpuError, match=message):
        convert(tensors, overrides=Overrides(), **how | changes)
