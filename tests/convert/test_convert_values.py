"""What becomes of values on their way: order of rows, ternary weights, the bytes of each type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.convert import values
from lcpu.convert.encode import Encoder
from lcpu.convert.packings.bitnet import ternary_weight
from lcpu.convert.packings.weight import weight_values
from lcpu.convert.safetensors_file import open_safetensors
from lcpu.convert.source import SourceTensor
from lcpu.convert.type_rules import TYPE_IDS
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.team import Team

from .checkpoints import bfloat16, write_safetensors
from .reference import i2_s_reference, pack, unpacked_reference

Encode = Callable[..., bytes]


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(2) as team:
        yield team


@pytest.fixture(params=[None, 2 * 256], ids=["one chunk", "chunks of two rows"])
def encode(request, monkeypatch, team) -> Encode:
    """encode(values, type) -> the bytes of a tensor, made at once or two rows at a time: they must not know."""
    if request.param:
        monkeypatch.setattr(values, "CHUNK_VALUES", request.param)

    def run(made: values.Values, type: str) -> bytes:
        advances: list[int] = []
        data = Encoder(team).encode("w", made, TYPE_IDS[type], advances.append).tobytes()
        assert sum(advances) == len(data)
        return data

    return run


@pytest.fixture
def source(tmp_path: Path):
    """source(array) -> a tensor of a safetensors file; a uint16 array is bfloat16."""

    def make(array: np.ndarray) -> SourceTensor:
        write_safetensors(tmp_path / "a.safetensors", {"w": array})
        return open_safetensors(tmp_path / "a.safetensors")[1]["w"]

    return make


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


ORDER = np.array([7, 0, 6, 1, 5, 2, 4, 3])


@pytest.mark.parametrize(("type", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "uint16")])
def test_what_has_the_type_is_kept_bit_for_bit(encode, source, type, dtype):
    bits = np.random.default_rng(0).integers(0, 256, 8 * 256 * np.dtype(dtype).itemsize, dtype=np.uint8)
    stored = bits.view(dtype).reshape(8, 256)
    assert encode(values.plain(source(stored)), type) == stored.tobytes()
    assert encode(values.plain(source(stored), ORDER), type) == stored[ORDER].tobytes()


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16"])
def test_types_are_those_of_the_gguf_package(encode, source, type, dtype):
    weights = random(8, 256) * np.float32(10) ** np.arange(-6, 2, dtype=np.float32)[:, None]
    stored = bfloat16(weights) if dtype == "uint16" else weights.astype(dtype)
    weights = widened(stored) if dtype == "uint16" else stored.astype(np.float32)
    wanted = gguf.quants.quantize(weights[ORDER], gguf.GGMLQuantizationType[type])
    assert encode(values.plain(source(stored), ORDER), type) == wanted.tobytes()
    assert encode(values.plain(source(stored)), type) == wanted[np.argsort(ORDER)].tobytes()


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_packed(encode, source, scale):
    ternary = np.random.default_rng(0).integers(-1, 2, (8, 256)).astype(np.float32)
    assert np.array_equal(unpacked_reference(pack(ternary)), ternary)
    made = weight_values(ternary_weight(source(pack(ternary)), scale), ORDER)
    assert made.shape == (8, 256)
    assert made.is_ternary
    assert encode(made, "F32") == (ternary[ORDER] * np.float32(scale)).tobytes()
    assert encode(made, "I2_S") == i2_s_reference(ternary[ORDER], np.float32(scale))
    assert encode(made, "TQ2_0") == gguf.quants.quantize(
        ternary[ORDER] * np.float32(scale), gguf.GGMLQuantizationType.TQ2_0
    ).tobytes()


@pytest.mark.parametrize("as_bfloat16", [True, False])
def test_masters(encode, source, as_bfloat16):
    stored = bfloat16(random(8, 256) / 50) if as_bfloat16 else random(8, 256) / 50
    weights = widened(stored) if as_bfloat16 else stored
    scale = np.float32(np.abs(weights.astype(np.float64)).mean())
    ternary = np.clip(np.round(weights / scale), -1, 1)
    made = values.ternarized(source(stored))
    assert np.array_equal(np.frombuffer(encode(made, "F32"), np.float32).reshape(8, 256), ternary * scale)
    assert encode(made, "I2_S") == i2_s_reference(ternary, scale)


def test_masters_near_zero_have_the_least_scale(encode, source):
    made = values.ternarized(source(np.full((1, 256), 1e-7, np.float32)))
    assert not np.frombuffer(encode(made, "F32"), np.float32).any()
    assert encode(made, "I2_S") == i2_s_reference(np.zeros((1, 256)), np.float32(1e-5))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16"])
def test_vectors_become_float32(encode, source, dtype):
    bias = random(700)
    stored = bfloat16(bias) if dtype == "uint16" else bias.astype(dtype)
    wanted = widened(stored) if dtype == "uint16" else stored.astype(np.float32)
    order = np.arange(700)[::-1]
    assert encode(values.plain(source(stored), order), "F32") == wanted[::-1].tobytes()


def test_a_tensor_that_is_not_aligned(encode, tmp_path):
    weights = random(8, 256)
    path = tmp_path / "odd.safetensors"
    write_safetensors(path, {"pad": np.zeros(1, np.uint8), "w": weights})
    source = open_safetensors(path)[1]["w"]
    assert not source.array().flags.aligned
    assert encode(values.plain(source), "F16") == weights.astype(np.float16).tobytes()


def test_pages_given_back_are_read_again(encode, source):
    made = values.plain(source(random(64, 1024)))
    assert encode(made, "F32") == encode(made, "F32")


@pytest.mark.parametrize(("worst", "type"), [(1e5, "F16"), (np.inf, "F16"), (np.nan, "F16"), (np.nan, "Q8_0"),
                                             (np.inf, "BF16"), (1e8, "Q4_0")])  # fmt: skip
def test_values_that_a_type_cannot_hold(encode, source, worst, type):
    weights = random(2, 256)
    weights[1, 3] = worst
    made = values.plain(source(weights))
    message = f"^tensor w has values that are not finite, or too large for {type}: take --type bf16, or the"
    with pytest.raises(LcpuError, match=message):
        encode(made, type)


def test_a_packed_value_that_is_none(encode, source):
    made = weight_values(ternary_weight(source(np.full((1, 256), 0b11, np.uint8)), 1.0))
    with pytest.raises(LcpuError, match="tensor 'w' has values that are not -1, 0 or 1: damaged"):
        encode(made, "I2_S")


def test_masters_that_are_no_numbers(encode, source):
    made = values.ternarized(source(np.full((1, 256), np.nan, np.float32)))
    with pytest.raises(LcpuError, match="tensor w has values that are not finite"):
        encode(made, "I2_S")
