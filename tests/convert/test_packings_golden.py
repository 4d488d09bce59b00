"""Quantized weights decode to the values that the libraries make of them (golden_packings.npz)."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.convert.json_file import Config
from lcpu.convert.packings import PACKINGS, Integers, Parts, integer_weight, weight_values
from lcpu.convert.packings.weight import Weight

from .packed import source_of

GOLDEN = Path(__file__).with_name("golden_packings.npz")
STEP = 3  # the file has every third row
with np.load(GOLDEN) as archive:
    CASES = sorted(name for name in archive.files if "/" not in name)


def weight_of(name: str) -> tuple[Weight, np.ndarray]:
    with np.load(GOLDEN) as archive:
        about = json.loads(str(archive[name]))
        arrays = {ending: archive[f"{name}/{ending}"] for ending in about["dtypes"]}
        values = archive[f"{name}/values"]
    tensors = {ending: source_of(ending, arrays[ending], dtype) for ending, dtype in about["dtypes"].items()}
    packing = PACKINGS[about["settings"]["quant_method"]]
    packing.check(Config(Path("config.json"), about["settings"]))
    assert packing.is_packed(tensors)
    parts = Parts("w.weight", tensors, Config(Path("config.json"), about["settings"]), Path())
    shape = (2, 16, values.shape[1]) if name == "mxfp4" else (32 if "codes" not in name else 8, values.shape[1])
    made = packing.read(parts, shape)
    return integer_weight(made) if isinstance(made, Integers) else made, values


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_library(name):
    weight, values = weight_of(name)
    with np.errstate(invalid="ignore"):  # NaN among the codes of E5M2
        every = weight.rows(np.arange(int(np.prod(weight.shape[:-1]))))
        some = weight.rows(np.array([7, 3, 5]))
    assert every.dtype == np.float32
    tolerance = 1e-6 if "nf4" in name or "fp4" in name or "int8" in name else 0  # float32 multiplied in another order
    np.testing.assert_allclose(every[::STEP], values, rtol=tolerance, atol=0)
    assert np.array_equal(some, every[[7, 3, 5]], equal_nan=True)


def test_stacks_of_experts_keep_their_values():
    """gpt-oss' weights have three dimensions; GGUF's MXFP4 has another order of nibbles."""
    weight, _ = weight_of("mxfp4")
    made = weight_values(weight)
    assert made.shape == weight.shape
    assert made.kept is not None
    assert made.kept.types == ("MXFP4",)
    blocks = made.kept.rows("MXFP4", 1, 2)
    values = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.MXFP4)
    assert np.array_equal(values.reshape(1, *weight.shape[1:]), made.rows(1, 2))
    assert np.array_equal(made.rows(1, 2)[0], weight.rows(np.arange(16, 32)))
