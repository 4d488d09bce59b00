"""BitNet checkpoints: ternary weights, packed and as masters, to I2_S."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lcpu.convert.type_rules import Overrides
from lcpu.engine.gguf_file import GGUFFile
from lcpu.kernels.errors import LcpuError

from .checkpoints import BLOCKS, EMBED, FFN, HEAD, HEADS, KV_HEADS, VOCAB, bfloat16, llama_tensors
from .reference import gguf_name, i2_s_reference, interleaved, pack, unpacked_reference, values_of

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
UP = "model.layers.0.mlp.up_proj.weight"


def bitnet_tensors(norms: tuple[str, str], **changes: Any) -> dict[str, np.ndarray]:
    """A model with rows of 128 values, which I2_S needs."""
    widen = {EMBED: 128, FFN: 256, HEADS * HEAD: 128}
    shapes = {name: tuple(widen.get(size, size) for size in array.shape) for name, array in llama_tensors().items()}
    for block in range(BLOCKS):
        shapes |= {f"model.layers.{block}.{norms[0]}.weight": (128,), f"model.layers.{block}.{norms[1]}.weight": (256,)}
        shapes[f"model.layers.{block}.self_attn.k_proj.weight"] = (64, 128)
        shapes[f"model.layers.{block}.self_attn.v_proj.weight"] = (64, 128)
    del shapes["lm_head.weight"]
    random = np.random.default_rng(1)
    return {name: random.standard_normal(shape).astype(np.float32) / 30 for name, shape in shapes.items()}


BITNET_CONFIG = {"hidden_size": 128, "intermediate_size": 256, "tie_word_embeddings": None}
OLD_NORMS, NEW_NORMS = ("self_attn.inner_attn_ln", "mlp.ffn_layernorm"), ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear"}


def is_linear(name: str) -> bool:
    return name.split(".")[-2] in LINEARS


def absmean(weights: np.ndarray) -> tuple[np.ndarray, np.float32]:
    scale = np.float32(np.abs(weights.astype(np.float64)).mean())
    return np.clip(np.round(weights / scale), -1, 1), scale


def packed_tensors(tensors: dict[str, np.ndarray], *, divide: bool) -> dict[str, np.ndarray]:
    """The offline form of a checkpoint: uint8 and a scale for every linear layer."""
    out = {}
    for name, array in tensors.items():
        if not is_linear(name):
            out[name] = array
            continue
        ternary, scale = absmean(array)
        assert np.array_equal(unpacked_reference(pack(ternary)), ternary)
        out[name] = pack(ternary)
        stored = np.float32(1) / scale if divide else scale
        out[f"{name}_scale"] = bfloat16(np.array([stored], np.float32))
    return out


def check_bitnet(file: GGUFFile, tensors: dict[str, np.ndarray], scale_of: Callable[[np.float32], np.float32],
                 heads: dict[str, int]) -> None:
    wanted = {gguf_name(name): array for name, array in tensors.items()}
    assert file.tensors.keys() == wanted.keys()
    for name, array in wanted.items():
        if name.endswith("norm.weight"):
            assert np.array_equal(values_of(file, name), array)
        elif not name.startswith("blk."):
            assert file.tensors[name].type_name == "F16"
            assert np.array_equal(values_of(file, name), array.astype(np.float16).astype(np.float32))
        else:
            ternary, scale = absmean(array)
            kind = name.split(".")[-2]
            ternary = interleaved(ternary, heads[kind]) if kind in heads else ternary
            assert file.data(name).tobytes() == i2_s_reference(ternary, scale_of(scale)), name


def rounded(scale: np.float32) -> np.float32:
    return (bfloat16(np.array([scale], np.float32)).astype(np.uint32) << 16).view(np.float32)[0]


@pytest.mark.parametrize("type", ["auto", "i2_s"])
@pytest.mark.parametrize(
    ("architecture", "name", "norms", "config"),
    [
        ("BitnetForCausalLM", "bitnet", OLD_NORMS, {}),
        ("BitNetForCausalLM", "bitnet-b1.58", NEW_NORMS,
         {"hidden_act": "relu2", "quantization_config": AUTO | {"quantization_mode": "online"}}),
    ],
)  # fmt: skip
def test_bitnet_masters(convert, type, architecture, name, norms, config):
    tensors = bitnet_tensors(norms)
    head = {"lm_head.weight": np.zeros((VOCAB, 128), np.float32)}  # which these models have, and do not use
    with convert(tensors | head, type, architectures=[architecture], **BITNET_CONFIG, **config) as file:
        check_bitnet(file, tensors, lambda scale: scale, {})
        assert file.metadata["general.architecture"] == name
        assert file.metadata["general.file_type"] == 40
        assert (f"{name}.rope.scaling.type" in file.metadata) == (name == "bitnet")


def test_bitnet_packed_with_scales_to_multiply(convert):
    tensors = bitnet_tensors(NEW_NORMS)
    with convert(packed_tensors(tensors, divide=False), architectures=["BitNetForCausalLM"], hidden_act="relu2",
                 quantization_config=AUTO | {"quantization_mode": "offline"}, **BITNET_CONFIG) as file:
        check_bitnet(file, tensors, rounded, {})


def test_llama_packed_with_scales_to_divide(convert):
    tensors = {name: array for name, array in bitnet_tensors(NEW_NORMS).items() if "sub_norm" not in name}
    with convert(packed_tensors(tensors, divide=True), quantization_config={"quant_method": "bitnet"},
                 **BITNET_CONFIG) as file:
        assert file.metadata["general.architecture"] == "llama"
        check_bitnet(file, tensors, lambda scale: 1 / rounded(1 / scale), {"attn_q": HEADS, "attn_k": KV_HEADS})


def test_ternary_weights_as_floats(convert):
    tensors = bitnet_tensors(OLD_NORMS)
    with convert(tensors, "f32", architectures=["BitnetForCausalLM"], **BITNET_CONFIG) as file:
        ternary, scale = absmean(tensors["model.layers.1.mlp.down_proj.weight"])
        assert np.array_equal(values_of(file, "blk.1.ffn_down.weight"), ternary * scale)


def test_layers_that_are_left_out_stay_float(convert):
    tensors = {name: array for name, array in bitnet_tensors(NEW_NORMS).items() if "sub_norm" not in name}
    settings = AUTO | {"quantization_mode": "online", "modules_to_not_convert": ["lm_head", "layers.1.mlp"]}
    with convert(tensors, quantization_config=settings, **BITNET_CONFIG) as file:
        names = {info.type_name: name for name, info in file.tensors.items() if "ffn_up" in name}
    assert names == {"I2_S": "blk.0.ffn_up.weight", "F16": "blk.1.ffn_up.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{UP}_scale": None}, rf"tensor '{UP}' has no {UP}_scale: the checkpoint is not whole"),
        ({f"{UP}_scale": np.zeros(1, np.float32)}, "is 0.0, not a positive number: damaged"),
        ({f"{UP}_scale": np.ones(2, np.float32)}, "has the shape 2 and type F32, not one float"),
        ({UP: np.zeros((256, 128), np.uint8)}, "has the shape 256 x 128, but config.json says 64 x 128"),
    ],
)
def test_packed_tensors_that_do_not_fit(convert, change, message):
    tensors = packed_tensors(bitnet_tensors(NEW_NORMS), divide=False) | change
    tensors = {name: array for name, array in tensors.items() if array is not None}
    with pytest.raises(LcpuError, match=message):
        convert(tensors, architectures=["BitNetForCausalLM"], hidden_act="relu2", quantization_config=AUTO,
                **BITNET_CONFIG)


def test_rows_that_i2_s_cannot_hold(convert):
    message = r"tensor blk\.0\.attn_q\.weight has rows of 64 values, which I2_S cannot hold: it needs a multiple of 128"
    with pytest.raises(LcpuError, match=message):
        convert(quantization_config=AUTO | {"quantization_mode": "online"})


@pytest.mark.parametrize(("type", "wanted"), [("Q8_0", "Q8_0"), ("F32", "F32"), ("keep", "BF16")])
def test_the_type_of_the_output_layer(convert, type, wanted):
    """Which is the embedding here."""
    tensors = bitnet_tensors(OLD_NORMS)
    tensors["model.embed_tokens.weight"] = bfloat16(tensors["model.embed_tokens.weight"])
    with convert(tensors, "i2_s", overrides=Overrides(output=type), architectures=["BitnetForCausalLM"],
                 **BITNET_CONFIG) as file:
        assert file.tensors["token_embd.weight"].type_name == wanted
        assert file.tensors["blk.0.ffn_up.weight"].type_name == "I2_S"


def test_ternary_types_need_ternary_weights(convert):
    with pytest.raises(LcpuError, match="i2_s is for BitNet checkpoints, and this model"):
        convert(type="i2_s")
