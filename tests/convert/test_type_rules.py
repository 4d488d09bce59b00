"""Which tensor gets which type: what llama.cpp chooses for the same models (llama-cpp-python 0.3.36)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import pytest

from lcpu.convert.type_rules import ALIASES, KEEP, MIXTURES, TYPE_IDS, Overrides, choose_types
from lcpu.engine.gguf_file import TensorInfo
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.kernels.errors import LcpuError

from . import compare_mixtures
from .compare_mixtures import ours, short, summary
from .mixture_models import MODELS

FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9, "q2_k": 10,
              "q2_k_s": 21, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16,
              "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30, "iq3_m": 27, "iq3_s": 26, "iq3_xs": 22,
              "iq3_xxs": 23, "iq2_m": 29, "iq2_s": 28, "iq2_xs": 20, "iq2_xxs": 19, "iq1_m": 31, "iq1_s": 24,
              "mxfp4": 38, "mxfp4_moe": 38, "nvfp4": 39, "q1_0": 40, "q2_0": 41, "tq1_0": 36, "tq2_0": 37, "i2_s": 40,
              "copy": None}
RECORD = json.loads(compare_mixtures.RECORD.read_text())


class Model:
    """Names, shapes and metadata of a llama."""

    def __init__(self, layers: int, embd: int = 256, ff: int = 512, *, kv_heads: int = 2, tied: bool = False,
                 experts: int = 0, type_name: str = "F32") -> None:
        self.metadata = {"general.architecture": "llama", "llama.block_count": layers, "llama.expert_count": experts,
                         "llama.attention.head_count": 4, "llama.attention.head_count_kv": kv_heads}
        self.type_name = type_name
        self.tensors = [self.info("token_embd.weight", 300, embd), self.info("output_norm.weight", embd)]
        if not tied:
            self.tensors.append(self.info("output.weight", 300, embd))
        for layer in reversed(range(layers)):  # the order of a file says nothing
            shapes = {"attn_norm": (embd,), "attn_q": (embd, embd), "attn_k": (embd // 2, embd),
                      "attn_v": (embd // 2, embd), "attn_output": (embd, embd), "ffn_norm": (embd,)}
            if experts:
                shapes |= {"ffn_gate_inp": (experts, embd), "ffn_gate_exps": (experts, ff, embd),
                           "ffn_down_exps": (experts, embd, ff)}
            else:
                shapes |= {"ffn_gate": (ff, embd), "ffn_up": (ff, embd), "ffn_down": (embd, ff)}
            self.tensors += [self.info(f"blk.{layer}.{name}.weight", *shape) for name, shape in shapes.items()]

    def info(self, name: str, *shape: int) -> TensorInfo:
        return TensorInfo(name, shape, TYPE_IDS[self.type_name], 0, 0, 0)

    def types(self, mixture: str, **overrides: object) -> dict[str, str]:
        ids, self.misfits = choose_types(self.tensors, self.metadata, MIXTURES[mixture], Overrides(**overrides))
        return {name: TENSOR_TYPES[type_id].name for name, type_id in ids.items()}


def of_layers(types: dict[str, str], role: str) -> list[str]:
    names = (f"blk.{layer}.{role}.weight" for layer in range(len(types)))
    return [types[name] for name in names if name in types]


def marked(layers: Iterable[int], count: int, better: str, base: str) -> list[str]:
    return [better if layer in set(layers) else base for layer in range(count)]


def test_every_mixture_has_its_file_type():
    assert {name: mixture.file_type for name, mixture in MIXTURES.items()} == FILE_TYPES
    assert {name for names in ALIASES.items() for name in names} <= {"q3_k", "q4_k", "q5_k", "nf4", "fp4", *MIXTURES}


@pytest.mark.parametrize("name", MODELS)
def test_all_mixtures_as_llama_cpp_chose(name):
    """What compare_mixtures.py recorded."""
    for mixture, alone in RECORD[name].items():
        base, imatrix = mixture.removesuffix(" + imatrix"), mixture.endswith(" + imatrix")
        assert short(summary(ours(MODELS[name], base, imatrix))) == alone, mixture
        if not imatrix:
            same = RECORD[name].get(f"{base} + imatrix", alone)
            assert short(summary(ours(MODELS[name], base, True))) == same, f"{base} with an importance matrix"


def test_every_model_and_every_mixture_of_llama_cpp_is_recorded():
    assert RECORD.keys() == MODELS.keys()
    recorded = {mixture.removesuffix(" + imatrix") for mixture in RECORD["llama"]}
    assert recorded == MIXTURES.keys() - {"copy", "i2_s", "mxfp4", "nvfp4"}


@pytest.mark.parametrize(
    ("mixture", "base", "better", "values", "down"),
    [
        ("q4_k_m", "Q4_K", "Q6_K", [0, 1, 4, 7, 10, 13, 16, 19, 20, 21], [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]),
        ("q5_k_m", "Q5_K", "Q6_K", [0, 1, 4, 7, 10, 13, 16, 19, 20, 21], [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]),
        ("q4_k_s", "Q4_K", "Q5_K", [0, 1, 2, 3], [0, 1]),
        ("q5_k_s", "Q5_K", "", [], []),
        ("q6_k", "Q6_K", "", [], []),
        ("q4_0", "Q4_0", "", [], []),
        ("iq4_nl", "IQ4_NL", "Q5_K", [], [0, 1]),
        ("iq4_xs", "IQ4_XS", "Q5_K", [], [0, 1]),
    ],
)
def test_mixtures_of_22_layers(mixture, base, better, values, down):
    types = Model(22).types(mixture)
    assert of_layers(types, "attn_v") == marked(values, 22, better, base)
    assert of_layers(types, "ffn_down") == marked(down, 22, better, base)
    for role in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
        assert set(of_layers(types, role)) == {base}
    assert set(of_layers(types, "attn_norm")) == {types["output_norm.weight"]} == {"F32"}
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == base


@pytest.mark.parametrize("mixture", ["f32", "f16", "bf16", "q8_0"])
def test_one_type_for_all_matrices(mixture):
    types = Model(3).types(mixture)
    assert {name: kind for name, kind in types.items() if "norm" not in name} == {
        name: mixture.upper() for name in types if "norm" not in name}
    assert {kind for name, kind in types.items() if "norm" in name} == {"F32"}


def test_a_tied_embedding_is_an_output_layer():
    model = Model(10, kv_heads=4, tied=True)
    types = model.types("q4_k_m")
    assert types["token_embd.weight"] == "Q6_K"
    assert of_layers(types, "ffn_down") == marked([0, 3, 6, 8, 9], 10, "Q6_K", "Q4_K")
    assert model.types("tq2_0")["token_embd.weight"] == "Q6_K"
    assert model.types("q4_k_m", output="Q8_0")["token_embd.weight"] == "Q8_0"
    assert model.types("q4_k_m", output="Q8_0", embedding="Q5_1")["token_embd.weight"] == "Q5_1"


def test_ternary_types():
    assert Model(2).types("q2_0")["token_embd.weight"] == "Q4_K"
    assert Model(2).types("q1_0")["token_embd.weight"] == "Q1_0"
    types = Model(2).types("tq1_0")
    assert (types["token_embd.weight"], types["output.weight"]) == ("Q4_K", "Q6_K")
    assert set(of_layers(types, "attn_v")) == {"TQ1_0"}
    for type_name, kept in (("F32", "F16"), ("F16", "F16"), ("BF16", "BF16"), ("Q8_0", "Q8_0")):
        types = Model(2, type_name=type_name).types("i2_s")
        assert (types["token_embd.weight"], types["output.weight"]) == (kept, kept)
        assert set(of_layers(types, "ffn_down")) == {"I2_S"}
    assert Model(2).types("i2_s", output=KEEP)["output.weight"] == "F32"


def test_rows_that_are_not_whole_blocks():
    model = Model(12, 288)
    types = model.types("q4_k_m")
    assert types["output.weight"] == "Q8_0"
    assert types["token_embd.weight"] == "Q5_0"
    assert of_layers(types, "attn_v") == marked([0, 3, 6, 9, 10, 11], 12, "Q8_0", "Q5_0")
    assert of_layers(types, "ffn_down") == marked([0, 3, 6, 9, 10, 11], 12, "Q6_K", "Q4_K")
    assert set(model.misfits) == {name for name in types if "ffn_down" not in name and "norm" not in name}
    assert set(of_layers(model.types("q5_k_s"), "attn_q")) == {"Q5_1"}
    assert set(of_layers(model.types("tq2_0"), "attn_q")) == {"Q4_0"}
    assert set(of_layers(model.types("iq4_xs"), "attn_q")) == {"IQ4_NL"}
    assert set(of_layers(model.types("q2_0"), "attn_q")) == {"Q4_0"}
    for mixture in ("q4_0", "q8_0", "q4_k_m"):
        assert set(of_layers(Model(9, 256, 344).types(mixture), "ffn_down")) == {"F16"}
    with pytest.raises(LcpuError, match=r"tensor 'blk\.1\.attn_q\.weight' has rows of 288 values, and I2_S"):
        Model(2, 288).types("i2_s")


def test_models_of_80_layers_with_shared_values():
    better = [*range(10), *range(12, 70, 3), *range(70, 80)]
    types = Model(80).types("q4_k_m")
    assert of_layers(types, "attn_v") == marked(better, 80, "Q6_K", "Q5_K")
    assert of_layers(types, "ffn_down") == marked(better, 80, "Q6_K", "Q4_K")
    assert of_layers(Model(80, kv_heads=4).types("q4_k_m"), "attn_v") == marked(better, 80, "Q6_K", "Q4_K")


def test_eight_experts():
    types = Model(11, experts=8).types("q4_k_m")
    assert of_layers(types, "ffn_down_exps") == marked([0, 3, 6, 9, 10], 11, "Q6_K", "Q4_K")
    assert set(of_layers(types, "ffn_gate_inp")) == {"F32"}
    assert set(of_layers(types, "attn_v")) == set(of_layers(types, "attn_k")) == {"Q8_0"}
    assert set(of_layers(types, "attn_output")) == {"Q5_K"}


@pytest.mark.parametrize("mixture", ["iq4_nl", "iq4_xs"])
def test_values_that_four_heads_share(mixture):
    assert set(of_layers(Model(22, kv_heads=1).types(mixture), "attn_v")) == {"Q5_K"}
    types = Model(11, experts=8, kv_heads=1).types(mixture)
    assert set(of_layers(types, "attn_v")) == set(of_layers(types, "attn_k")) == {"Q8_0"}
    assert set(of_layers(types, "attn_output")) == {"Q5_K"}
    assert of_layers(types, "ffn_down_exps") == marked([0], 11, "Q5_K", mixture.upper())


def test_mxfp4_for_experts():
    for experts in (8, 4):
        types = Model(9, experts=experts).types("mxfp4_moe")
        assert set(of_layers(types, "ffn_down_exps")) == set(of_layers(types, "ffn_gate_exps")) == {"MXFP4"}
        assert set(of_layers(types, "attn_v")) == {types["output.weight"]} == {types["token_embd.weight"]} == {"Q8_0"}
    assert set(of_layers(Model(9).types("mxfp4_moe"), "ffn_down")) == {"Q8_0"}


def test_overrides():
    model = Model(4)
    assert set(model.types("q4_k_m", pure=True).values()) == {"F32", "Q4_K"}
    types = model.types("q4_k_m", output="Q8_0", embedding="F16")
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q8_0", "F16")
    patterns = ((re.compile("ffn_down"), "Q5_0"), (re.compile(r"blk\.1\.|norm"), KEEP))
    types = model.types("q4_k_m", pure=True, patterns=patterns)
    assert of_layers(types, "ffn_down") == ["Q5_0"] * 4  # the first that matches
    assert of_layers(types, "attn_v") == ["Q4_K", "F32", "Q4_K", "Q4_K"]
    assert types["output_norm.weight"] == "F32"


def test_copy_changes_only_what_is_named():
    model = Model(2, type_name="F16")
    assert set(model.types("copy").values()) == {"F16"}
    types = model.types("copy", output="Q6_K")
    assert [name for name, kind in types.items() if kind != "F16"] == ["output.weight"]
    tied = Model(2, tied=True, type_name="F16").types("copy", output="Q6_K")
    assert [name for name, kind in tied.items() if kind != "F16"] == ["token_embd.weight"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("blk.0.ssm_conv1d.weight", (512, 256)), ("blk.0.attn_q.bias", (2, 256)), ("position_embd.weight", (512, 256)),
     ("blk.0.attn_q_norm.weight", (4, 256)), ("blk.0.attn_q.weight", (1, 256)), ("altup_proj.weight", (4, 256))],
)
def test_what_is_never_quantized(name, shape):
    model = Model(1)
    model.tensors.append(model.info(name, *shape))
    assert model.types("q8_0")[name] == "F32"


def test_integers_stay():
    model = Model(1)
    model.tensors.append(TensorInfo("some.weight", (4, 256), TYPE_IDS["I32"], 0, 0, 0))
    assert model.types("q8_0")["some.weight"] == "I32"
