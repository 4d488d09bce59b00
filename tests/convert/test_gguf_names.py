"""What names of GGUF files tell, and which model of a repository is meant."""

from __future__ import annotations

import re

import pytest

from lcpu.convert.gguf_names import ORDER, NamedModel, base_type, models_among
from lcpu.convert.gguf_repo import choose
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.formats import FORMATS

SPLIT = [f"m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("file", "type"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b.Q5_0.gguf", "Q5_0"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("model_iq3_xxs.gguf", "IQ3_XXS"),
        ("tinyllama-f16.gguf", "F16"),
        ("tinyllama.fp16.gguf", "F16"),
        ("x-BF16.gguf", "BF16"),
        ("ggml-model-i2_s.gguf", "I2_S"),
        ("x-TQ1_0.gguf", "TQ1_0"),
        ("x-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-MXFP4.gguf", "MXFP4"),
        ("Q8-Lover-Q4_0.gguf", "Q4_0"),
        ("x.i1-Q4_K_S.gguf", "Q4_K_S"),
        ("x-Q4_K_M_v2.gguf", "Q4_K_M"),
        ("x-Q6_K-00001-of-00002.gguf", "Q6_K"),
        ("Q8_0/x-00001-of-00002.gguf", "Q8_0"),
        ("Q8_0/x-Q4_0.gguf", "Q4_0"),
        ("model.gguf", None),
        ("xQ4_0y.gguf", None),
    ],
)
def test_types(file, type):
    assert NamedModel((file,), 0).type == type


@pytest.mark.parametrize(
    "name",
    """mmproj-model-f16.gguf sub/mmproj-f16.gguf x-mmproj.gguf imatrix.gguf x.imatrix.gguf lora-q8_0.gguf
    ggml-vocab-llama.gguf x-control-vector.gguf README.md x.gguf.part model.bin""".split(),
)
def test_no_models(name):
    assert models_among({name: 1}) == []


def test_split_models():
    sizes = dict.fromkeys([*SPLIT, "whole.gguf", "Half-00002-of-00002.gguf", "explorative.gguf"], 10)
    assert models_among(sizes) == [NamedModel(("explorative.gguf",), 10), NamedModel(tuple(SPLIT), 30),
                                   NamedModel(("whole.gguf",), 10)]


def test_the_order_has_what_lcpu_runs():
    """A type that is not there would never be taken unless it is named."""
    assert ORDER[0] == "Q4_K_M"
    assert len(set(ORDER)) == len(ORDER)
    assert {base_type(name) for name in ORDER} >= {format.name.upper() for format in FORMATS.values()}


def chosen(names: str, type: str | None = None, file: str | None = None) -> str:
    return choose("acme/tiny", dict.fromkeys(names.split(), 1), type, file).files[0]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("a-F16.gguf a-Q4_K_M.gguf a-Q8_0.gguf", "a-Q4_K_M.gguf"),
        ("a-F16.gguf a-Q8_0.gguf a-Q4_0.gguf", "a-Q4_0.gguf"),
        ("a-Q8_0.gguf a-Q8_K.gguf a-Q4_0_4_4.gguf", "a-Q8_0.gguf"),  # the others do not run
        ("a-UD-Q4_K_M.gguf a-F16.gguf", "a-UD-Q4_K_M.gguf"),
        ("a-UD-Q4_K_M.gguf a-Q4_K_M.gguf", "a-Q4_K_M.gguf"),
        ("model.gguf mmproj-f16.gguf", "model.gguf"),
        ("model.gguf a-Q8_K.gguf", "model.gguf"),
        ("BF16/a-00001-of-00002.gguf BF16/a-00002-of-00002.gguf", "BF16/a-00001-of-00002.gguf"),
    ],
)
def test_the_default(names, taken):
    assert chosen(names) == taken


@pytest.mark.parametrize(
    ("names", "type", "taken"),
    [
        ("a-q8_0.gguf a-Q4_K_M.gguf", "Q8_0", "a-q8_0.gguf"),
        ("a-Q8_0.gguf a-Q4_K_M.gguf", "q8_0", "a-Q8_0.gguf"),
        ("a-UD-Q4_K_XL.gguf a-Q4_K_M.gguf", "q4_k_xl", "a-UD-Q4_K_XL.gguf"),
        ("a-UD-Q4_K_XL.gguf a-Q4_K_XL.gguf", "ud-q4_k_xl", "a-UD-Q4_K_XL.gguf"),
        ("a-Q8_K.gguf a-Q4_K_M.gguf", "q8_k", "a-Q8_K.gguf"),  # the engine says that it cannot run it
    ],
)
def test_a_type(names, type, taken):
    assert chosen(names, type) == taken


@pytest.mark.parametrize(
    ("names", "file", "taken"),
    [
        ("a-Q4_0.gguf b-Q4_0.gguf", "b-Q4_0.gguf", "b-Q4_0.gguf"),
        ("x/a.gguf y/b.gguf", "b.gguf", "y/b.gguf"),
        ("x/a.gguf a.gguf", "a.gguf", "a.gguf"),
        (" ".join(SPLIT), SPLIT[2], SPLIT[0]),
        ("mmproj-a.gguf a.gguf", "mmproj-a.gguf", "mmproj-a.gguf"),
    ],
)
def test_a_file(names, file, taken):
    assert chosen(names, file=file) == taken


@pytest.mark.parametrize(
    ("names", "type", "file", "message"),
    [
        ("a-Q4_0.gguf b-Q4_0.gguf", None, None,
         "has 2 models of type Q4_0: choose one with --hf-file NAME: a-Q4_0.gguf, b-Q4_0.gguf"),
        ("a-Q4_0.gguf b-Q4_0.gguf", "q4_0", None,
         "has 2 models of type Q4_0: choose one with --hf-file NAME: a-Q4_0.gguf, b-Q4_0.gguf"),
        ("a.gguf b.gguf", None, None, "has 2 models: choose one with --hf-file NAME: a.gguf, b.gguf"),
        ("a-Q4_0.gguf a-F16.gguf", "q6_k", None, "has no GGUF file of type Q6_K: it has F16, Q4_0"),
        ("a.gguf b.gguf", "q6_k", None, "has no GGUF file of type Q6_K: its files are a.gguf, b.gguf"),
        ("a-Q8_K.gguf a-Q4_0_8_8.gguf", None, None,
         "has GGUF files of no type that lcpu runs: to try one of Q4_0_8_8, Q8_K, name it as acme/tiny:Q4_0_8_8"),
        ("a.gguf b.gguf", None, "c.gguf", "has no file c.gguf: --hf-file can be a.gguf, b.gguf"),
        ("x/a.gguf y/a.gguf", None, "a.gguf", "has 2 files named a.gguf: --hf-file can be x/a.gguf, y/a.gguf"),
        ("README.md", None, "c.gguf", "has no file c.gguf: --hf-file can be none, it has no GGUF files"),
        (" ".join(SPLIT[:2]), None, SPLIT[0],
         "has not all files of the split model m-Q8_0-00001-of-00003.gguf: take another file or repository"),
        ("config.json model.safetensors", None, None,
         "has no GGUF files but a checkpoint: make one with `lcpu convert acme/tiny`, or run it at once with "
         "--convert"),
        ("README.md mmproj-f16.gguf", "q4_0", None, "has no GGUF files of a model: take another repository"),
        (" ".join(f"{letter}-Q4_0.gguf" for letter in "abcdefghijklmno"), None, None,
         "has 15 models of type Q4_0: choose one with --hf-file NAME: " + ", ".join(f"{c}-Q4_0.gguf" for c in
         "abcdefghijkl") + " and 3 more"),
    ],
)
def test_what_is_not_clear(names, type, file, message):
    with pytest.raises(LcpuError, match=f"^{re.escape(f'acme/tiny: {message}')}$"):
        chosen(names, type, file)
