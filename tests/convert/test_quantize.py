"""Quantizing whole files: what is written, what is refused, and what is left behind when something fails."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from lcpu.convert import quantize as module
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.quantize import Quantized, quantize, quantized_again
from lcpu.convert.type_rules import MIXTURES, TYPE_IDS, Overrides, choose_types
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.formats import FORMATS
from lcpu.kernels.jit import address_of
from lcpu.kernels.quantizing import PIECE

METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "general.file_type": 0,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4,
    "some.words": ["a", "b"],
    "some.flags": [True, False],
    "some.small": np.uint8(3),
    "some.negative": np.int16(-3),
    "some.double": np.float64(0.1),
    "some.numbers": np.arange(3, dtype=np.uint16),
    "some.truth": True,
}


def weights() -> dict[str, np.ndarray]:
    """A model of two layers; one tensor is more than a piece of work, and another has rows that nothing divides."""
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": (70, 256), "output_norm.weight": (256,), "output.weight": (70, 256)}
    for layer in range(2):
        shapes |= {f"blk.{layer}.attn_norm.weight": (256,), f"blk.{layer}.attn_v.weight": (256, 256),
                   f"blk.{layer}.ffn_up.weight": (20, 256), f"blk.{layer}.ffn_down.weight": (256, 20)}
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def ternary_weights(scale: float = 0.37) -> dict[str, np.ndarray]:
    """The same, with ternary matrices whose rows I2_S can hold."""
    random = np.random.default_rng(1)
    values = {name: x for name, x in weights().items() if "ffn_down" not in name}
    return {name: random.integers(-1, 2, x.shape).astype(np.float32) * np.float32(scale) if "blk" in name and x.ndim > 1
            else x for name, x in values.items()}


def write(path: Path, values: dict[str, np.ndarray], metadata: dict[str, object] = METADATA) -> Path:
    write_gguf(path, metadata, [TensorToWrite(name, x.shape, 0, x) for name, x in values.items()])
    return path


def run(source: Path, out: Path, mixture: str, **options: object) -> list[Quantized]:
    with GGUFFile.open(source) as file:
        types, _ = choose_types(file.tensors.values(), file.metadata, MIXTURES[mixture], Overrides())
        return quantize(file, out, types, MIXTURES[mixture].file_type, **options)


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    with GGUFFile.open(path) as file:
        return {name: (info.type_name, file.data(name).tobytes()) for name, info in file.tensors.items()}


def encoded(x: np.ndarray, type_name: str) -> bytes:
    format = FORMATS[TYPE_IDS[type_name]]
    out = np.zeros(x.size // format.block * format.block_bytes, np.uint8)
    format.encode.call(address_of(x), address_of(out), x.size // format.block)
    return out.tobytes()


def decoded(data: bytes, type_name: str) -> np.ndarray:
    format = FORMATS[TYPE_IDS[type_name]]
    count = len(data) // format.block_bytes
    raw, out = np.frombuffer(data, np.uint8), np.zeros(count * format.block, np.float32)
    format.decode.call(address_of(raw), address_of(out), count)
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "model.gguf", weights())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mixture", [name for name in MIXTURES if name not in ("copy", "i2_s")])
def test_every_tensor_is_the_blocks_of_its_values(tmp_path, model, mixture, threads):
    out = tmp_path / "out.gguf"
    results = run(model, out, mixture, threads=threads)
    written, values = contents(out), weights()
    assert list(written) == list(values)
    for result in results:
        type_name, data = written[result.name]
        assert data == encoded(values[result.name], type_name)
        assert (result.values, result.new_bytes) == (values[result.name].size, len(data))
        assert TENSOR_TYPES[result.new_type].name == type_name
    assert [name for name in os.listdir(tmp_path) if name != "out.gguf"] == []


def test_gguf_reads_it(tmp_path, model):
    out = tmp_path / "out.gguf"
    run(model, out, "q4_k_m")
    reader = gguf.GGUFReader(out)
    for tensor in reader.tensors:
        x = weights()[tensor.name]
        y = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.sqrt(np.mean((x - y) ** 2)) < 0.1
    fields = {key: (field.types, field.contents()) for key, field in reader.fields.items()}
    before = {key: (field.types, field.contents()) for key, field in gguf.GGUFReader(model).fields.items()}
    assert fields.pop("general.file_type")[1] == 15
    assert fields.pop("general.quantization_version")[1] == 2
    before.pop("general.file_type")
    for counts in ("GGUF.kv_count", "GGUF.tensor_count", "GGUF.version"):
        fields.pop(counts)
        before.pop(counts)
    assert fields == before  # values and types


def test_copy_is_a_copy(tmp_path, model):
    run(model, tmp_path / "out.gguf", "copy")
    assert (tmp_path / "out.gguf").read_bytes() == model.read_bytes()


def test_a_split_model_becomes_one_file(tmp_path):
    values = list(weights().items())
    parts = [dict(values[:4]), dict(values[4:])]
    for number, part in enumerate(parts):
        split = {"split.no": np.uint16(number), "split.count": np.uint16(2),
                 "split.tensors.count": np.int32(len(values))}
        write(tmp_path / f"m-0000{number + 1}-of-00002.gguf", part, METADATA | split)
    out = tmp_path / "out.gguf"
    run(tmp_path / "m-00002-of-00002.gguf", out, "copy")
    with GGUFFile.open(out) as file:
        assert list(file.tensors) == [name for name, _ in values]
        assert list(file.metadata) == list(METADATA)


@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K",
                                       "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0"])
def test_from_every_type(tmp_path, type_name):
    x = np.random.default_rng(2).standard_normal((40, 256), dtype=np.float32)
    data = encoded(x, type_name)
    write_gguf(tmp_path / "in.gguf", METADATA, [TensorToWrite("a.weight", x.shape, TYPE_IDS[type_name], data)])
    run(tmp_path / "in.gguf", tmp_path / "out.gguf", "f32")
    back = decoded(data, type_name)
    assert contents(tmp_path / "out.gguf")["a.weight"] == ("F32", back.tobytes())
    results = run(tmp_path / "in.gguf", tmp_path / "again.gguf", "q4_1")
    assert contents(tmp_path / "again.gguf")["a.weight"] == ("Q4_1", encoded(back, "Q4_1"))
    assert results[0].old_type == TYPE_IDS[type_name]


def test_from_float64(tmp_path):
    x = np.random.default_rng(2).standard_normal((4, 256))
    write_gguf(tmp_path / "in.gguf", METADATA, [TensorToWrite("a.weight", x.shape, TYPE_IDS["F64"], x)])
    run(tmp_path / "in.gguf", tmp_path / "out.gguf", "f32")
    assert contents(tmp_path / "out.gguf")["a.weight"] == ("F32", x.astype(np.float32).tobytes())


def test_types_that_cannot_be_read(tmp_path):
    type_id = TYPE_IDS["Q8_K"]
    nbytes = TENSOR_TYPES[type_id].nbytes((4, 256))
    write_gguf(tmp_path / "in.gguf", METADATA, [TensorToWrite("a.weight", (4, 256), type_id, bytes(nbytes))])
    with pytest.raises(LcpuError, match=r"tensor 'a\.weight' is Q8_K, which lcpu cannot dequantize"):
        run(tmp_path / "in.gguf", tmp_path / "out.gguf", "q8_0")
    run(tmp_path / "in.gguf", tmp_path / "out.gguf", "copy")
    assert contents(tmp_path / "out.gguf")["a.weight"] == ("Q8_K", bytes(nbytes))


def test_what_is_quantized_again(tmp_path, model):
    run(model, tmp_path / "q8_0.gguf", "q8_0")
    with GGUFFile.open(tmp_path / "q8_0.gguf") as file:
        types = {name: info.type_id for name, info in file.tensors.items()}
        assert quantized_again(file, types) == []
        assert quantized_again(file, dict.fromkeys(types, TYPE_IDS["F32"])) == []
        types |= {"output.weight": TYPE_IDS["Q4_0"], "output_norm.weight": TYPE_IDS["Q4_0"]}
        assert quantized_again(file, types) == ["output.weight"]


# ---- errors ----


def test_errors_are_those_of_the_blocks(tmp_path, model):
    for result in run(model, tmp_path / "out.gguf", "q4_k_m", check=True, threads=2):
        x = weights()[result.name]
        type_name, data = contents(tmp_path / "out.gguf")[result.name]
        if type_name == "F32":
            assert result.error is result.relative_error is None
            continue
        difference = x.ravel().astype(np.float64) - decoded(data, type_name)
        assert result.error == pytest.approx(math.sqrt(np.mean(difference**2)), rel=1e-4)
        assert result.relative_error == pytest.approx(result.error / math.sqrt(np.mean(x.astype(float) ** 2)), rel=1e-4)


def test_no_error_in_zeros(tmp_path):
    write(tmp_path / "in.gguf", {"a.weight": np.zeros((2, 256), np.float32)})
    (result,) = run(tmp_path / "in.gguf", tmp_path / "out.gguf", "q4_k_s", check=True)
    assert (result.error, result.relative_error) == (0.0, 0.0)


# ---- ternary ----


def i2_s(x: np.ndarray, scale: float) -> bytes:
    """Written from its description, one value after another."""
    out = np.zeros(x.size // 4 + 32, np.uint8)
    for index, value in enumerate(x.ravel()):
        code = 1 if abs(value) < 1e-6 else 2 if value > 0 else 0
        group, j = divmod(index, 128)
        out[32 * group + j % 32] |= code << (6 - 2 * (j // 32))
    out[x.size // 4 :][:4] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
    return out.tobytes()


def test_i2_s_there_and_back(tmp_path):
    values = ternary_weights()
    write(tmp_path / "in.gguf", values)
    results = run(tmp_path / "in.gguf", tmp_path / "i2_s.gguf", "i2_s", check=True)
    written = contents(tmp_path / "i2_s.gguf")
    for name in ("blk.0.attn_v.weight", "blk.1.ffn_up.weight"):
        assert written[name] == ("I2_S", i2_s(values[name], 0.37))
    assert {result.error for result in results if result.new_type == TYPE_IDS["I2_S"]} == {0.0}
    run(tmp_path / "i2_s.gguf", tmp_path / "f32.gguf", "f32")
    back = contents(tmp_path / "f32.gguf")
    for name, x in values.items():
        wanted = x.astype(np.float16).astype(np.float32) if name in ("token_embd.weight", "output.weight") else x
        assert np.array_equal(np.frombuffer(back[name][1], np.float32), wanted.ravel())
    run(tmp_path / "f32.gguf", tmp_path / "again.gguf", "i2_s")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "i2_s.gguf").read_bytes()


@pytest.mark.parametrize("mixture", ["tq1_0", "tq2_0"])
def test_ternary_weights_lose_nothing(tmp_path, mixture):
    write(tmp_path / "in.gguf", ternary_weights(0.375))  # which float16 holds
    results = run(tmp_path / "in.gguf", tmp_path / "out.gguf", mixture, check=True)
    assert {result.error for result in results if result.new_type == TYPE_IDS[mixture.upper()]} == {0.0}


def test_weights_that_are_not_ternary(tmp_path):
    values = ternary_weights()
    values["blk.1.attn_v.weight"][3, 7] = 0.36
    write(tmp_path / "in.gguf", values)
    with pytest.raises(LcpuError, match=r"'blk\.1\.attn_v\.weight' is not ternary: .* 0\.36 to 0\.37; --ternarize"):
        run(tmp_path / "in.gguf", tmp_path / "out.gguf", "i2_s")
    assert os.listdir(tmp_path) == ["in.gguf"]


@pytest.mark.parametrize("mixture", ["i2_s", "tq2_0"])
def test_absmean(tmp_path, mixture):
    values = ternary_weights()
    x = np.random.default_rng(4).standard_normal((256, 256), dtype=np.float32)
    values["blk.1.attn_v.weight"] = x
    write(tmp_path / "in.gguf", values)
    run(tmp_path / "in.gguf", tmp_path / "out.gguf", mixture, ternarize=True)
    mean = np.float32(abs(x).mean(dtype=np.float64))
    codes = np.clip(np.rint(x / mean), -1, 1)
    written = contents(tmp_path / "out.gguf")
    if mixture == "i2_s":
        assert written["blk.1.attn_v.weight"] == ("I2_S", i2_s(codes, mean))
        assert written["blk.0.attn_v.weight"] == ("I2_S", i2_s(values["blk.0.attn_v.weight"], 0.37))  # it was ternary
    else:
        back = decoded(written["blk.1.attn_v.weight"][1], "TQ2_0")
        assert np.array_equal(back, codes.ravel() * mean.astype(np.float16).astype(np.float32))


def test_absmean_of_almost_nothing(tmp_path):
    tiny = np.linspace(-1e-6, 3e-6, 65536, dtype=np.float32).reshape(256, 256)
    write(tmp_path / "in.gguf", ternary_weights() | {"blk.0.attn_v.weight": tiny})
    run(tmp_path / "in.gguf", tmp_path / "out.gguf", "i2_s", ternarize=True)
    assert contents(tmp_path / "out.gguf")["blk.0.attn_v.weight"][1] == i2_s(np.zeros(65536), 1e-5)


# ---- what must not happen to files ----


@pytest.mark.parametrize(("mixture", "value"), [("q4_0", np.nan), ("q6_k", np.inf), ("f16", 70000), ("bf16", -np.inf)])
def test_values_that_a_type_cannot_hold(tmp_path, mixture, value):
    values = weights()
    values["blk.1.attn_v.weight"][200, 100] = value
    write(tmp_path / "in.gguf", values)
    with pytest.raises(LcpuError, match=r"in\.gguf: tensor 'blk\.1\.attn_v\.weight' has values that are not"):
        run(tmp_path / "in.gguf", tmp_path / "out.gguf", mixture)
    assert os.listdir(tmp_path) == ["in.gguf"]


def test_an_existing_file_is_left_alone(tmp_path, model):
    out = tmp_path / "out.gguf"
    out.write_text("precious")
    with pytest.raises(LcpuError, match=r"out\.gguf: is there already; --force"):
        run(model, out, "q8_0")
    assert out.read_text() == "precious"
    run(model, out, "q8_0", force=True)
    assert contents(out)["output.weight"][0] == "Q8_0"


def test_the_input_may_be_replaced(tmp_path, model):
    path = tmp_path / "a.gguf"
    path.write_bytes(model.read_bytes())
    run(path, path, "q8_0", force=True)
    assert contents(path)["output.weight"] == ("Q8_0", encoded(weights()["output.weight"], "Q8_0"))


@pytest.mark.parametrize(("name", "message"), [("", "is not a file"), ("absent/out.gguf", "no such folder")])
def test_places_that_cannot_be_written(tmp_path, model, name, message):
    with pytest.raises(LcpuError, match=message):
        run(model, tmp_path / name, "q8_0", force=True)


def test_a_full_disk_is_noticed_before(tmp_path, model, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(LcpuError, match=r"out\.gguf: needs 0\.00 GiB, but the disk has 0\.00 GiB left"):
        run(model, tmp_path / "out.gguf", "q8_0")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path, model, error):
    calls: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append(done)
        if done > total // 2:
            raise error

    out = tmp_path / "out.gguf"
    with pytest.raises(error):
        run(model, out, "q8_0", progress=progress)
    assert os.listdir(tmp_path) == []
    out.write_text("old")
    with pytest.raises(error):
        run(model, out, "q8_0", progress=progress, force=True)
    assert out.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.gguf"]


def test_progress_counts_bytes_to_the_end(tmp_path, model):
    seen: list[tuple[str, int, int]] = []
    run(model, tmp_path / "out.gguf", "q8_0", progress=lambda *state: seen.append(state))
    total = sum(x.nbytes for x in weights().values())
    quantizing = [done for stage, done, _ in seen if stage == "quantizing"]
    assert quantizing == sorted(quantizing)
    assert quantizing[-1] == total
    assert {size for stage, _, size in seen if stage == "quantizing"} == {total}


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from lcpu.cli.main import exit_code
sys.exit(exit_code(["quantize", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_disk_that_fills_up(tmp_path, model):
    run(model, tmp_path / "warm.gguf", "q8_0")  # kernels are compiled, so that only the model needs room
    (tmp_path / "warm.gguf").unlink()
    command = [sys.executable, "-c", LIMITED, str(model), str(tmp_path / "out.gguf"), "f16"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].endswith("out.gguf: cannot be written: File too large")
    assert os.listdir(tmp_path) == []


def test_memory_is_bounded_by_the_largest_tensor(tmp_path, model, monkeypatch):
    allocated: list[int] = []
    zeros: Callable[..., np.ndarray] = module.zeros

    def counted(shape: tuple[int, ...], dtype: object) -> np.ndarray:
        array = zeros(shape, dtype)
        allocated.append(array.nbytes)
        return array

    monkeypatch.setattr(module, "zeros", counted)
    results = run(model, tmp_path / "out.gguf", "bf16", threads=1)
    largest = max(result.new_bytes for result in results if result.new_type != result.old_type)
    assert sum(allocated) == largest + 2 * 4 * PIECE
