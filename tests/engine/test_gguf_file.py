"""Reading sound GGUF files: what is in them, split files, and the `gguf` package as the judge."""

import mmap
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.kernels.errors import LcpuError

SHARED_FILES = [
    *(f"models/stories260K-{kind}.gguf" for kind in ("f32", "f16", "q8_0", "q4_0")),
    "vocabs/ggml-vocab-llama-spm.gguf",
]


def test_tensor_types_are_those_of_gguf() -> None:
    ours = {type_id: (kind.block_values, kind.block_bytes) for type_id, kind in TENSOR_TYPES.items()
            if not kind.successor}
    theirs = {int(type_id): sizes for type_id, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {type_id: ours[type_id] for type_id in theirs} == theirs
    assert {kind: TENSOR_TYPES[kind].name for kind in theirs} == {
        int(kind): kind.name for kind in gguf.GGML_QUANT_SIZES
    }
    assert ours.keys() - theirs.keys() <= {36, 42}  # I2_S is bitnet.cpp's, Q2_0 newer than some versions of gguf


def test_tiny_model(tiny_gguf: Path) -> None:
    reference = gguf.GGUFReader(tiny_gguf)
    with GGUFFile.open(tiny_gguf) as file:
        assert file.path == tiny_gguf
        assert file.version == 3
        assert_same(file, reference)
        assert file.metadata["general.architecture"] == "llama"
        assert file.tensors["blk.0.ffn_down.weight"].shape == (32, 64)


@pytest.mark.parametrize("name", SHARED_FILES)
def test_shared_file(shared: Path, name: str) -> None:
    reference = gguf.GGUFReader(shared / name)
    with GGUFFile.open(shared / name) as file:
        assert_same(file, reference)


def test_shared_ternary_file(shared: Path) -> None:
    """The gguf package refuses I2_S, so look at the bytes: codes 0 to 2, then a scale."""
    with GGUFFile.open(shared / "models/bitnet-tiny-i2_s.gguf") as file:
        ternary = [info for info in file.tensors.values() if info.type_name == "I2_S"]
        assert len(ternary) == 3 * 7
        assert file.tensors["blk.0.ffn_down.weight"].shape == (256, 640)
        for info in ternary:
            data = file.data(info.name)
            values = info.shape[0] * info.shape[1]
            assert len(data) == values // 4 + 32
            codes = data[: values // 4]
            assert not np.any(codes & codes >> 1 & 0b01010101)
            assert 1e-3 < data[values // 4 :][:4].view(np.float32)[0] < 10


def assert_same(file: GGUFFile, reference: gguf.GGUFReader) -> None:
    fields = {name: field for name, field in reference.fields.items() if not name.startswith("GGUF.")}
    assert list(file.metadata) == list(fields)
    for name, field in fields.items():
        value = file.metadata[name]
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == field.contents(), name
    assert list(file.tensors) == [tensor.name for tensor in reference.tensors]
    for tensor in reference.tensors:
        info = file.tensors[tensor.name]
        assert info.shape == tuple(int(size) for size in tensor.shape[::-1])
        assert info.offset == tensor.data_offset
        assert info.type_id == tensor.tensor_type
        assert np.array_equal(file.data(tensor.name), tensor.data.view(np.uint8).ravel())


def test_every_type_of_value(tmp_path: Path) -> None:
    values: dict[str, object] = {
        "text": "snow ☃",
        "not utf-8": "\udcff",
        "yes": True,
        "no": False,
        **{
            np.dtype(kind).name: np.dtype(kind).type(3)
            for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4")
        },
        "float64": np.float64(0.1),
        "texts": ["", "a", "é\n"],
        "bools": np.array([True, False]),
        "none": np.zeros(0, np.float32),
        **{
            f"{kind}s": np.arange(3, dtype=kind)
            for kind in ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f8")
        },
    }
    write_gguf(tmp_path / "values.gguf", values, [])
    with GGUFFile.open(tmp_path / "values.gguf") as file:
        assert list(file.metadata) == list(values)
        for key, value in values.items():
            read = file.metadata[key]
            if isinstance(value, np.ndarray):
                assert isinstance(read, np.ndarray)
                assert read.dtype == value.dtype
                assert read.flags.owndata
            elif isinstance(value, np.generic):
                assert type(read) is type(value.item())
            assert np.array_equal(read, value), key  # type: ignore[arg-type]
        assert "texts" in file.metadata
        assert "missing" not in file.metadata
        assert file.metadata.get("missing") is None


def test_data_is_read_only_and_outlives_close(tiny_gguf: Path) -> None:
    file = GGUFFile.open(tiny_gguf)
    data = file.data("output_norm.weight")
    before = data.copy()
    assert data.dtype == np.uint8
    assert data.shape == (file.tensors["output_norm.weight"].nbytes,)
    assert not data.flags.writeable
    file.close()
    assert np.array_equal(data, before)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of an 8 MiB tensor and one of a byte."""
    values = np.random.default_rng(1).integers(0, 256, 8 << 20, dtype=np.uint8)
    write_gguf(
        tmp_path / "large.gguf", {}, [TensorToWrite("a", (8 << 20,), 24, values), TensorToWrite("b", (1,), 24, b"x")]
    )
    return tmp_path / "large.gguf"


@pytest.mark.parametrize("advice", [True, False])
def test_release_keeps_the_bytes(large: Path, advice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not advice:
        monkeypatch.delattr(mmap, "MADV_DONTNEED", raising=False)  # a system that has none
    with GGUFFile.open(large) as file:
        for name in ("a", "b"):
            before = file.data(name).copy()
            file.release(name)
            assert np.array_equal(file.data(name), before)


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident pages in /proc")
def test_release_gives_memory_back(large: Path) -> None:
    def resident_file_bytes() -> int:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["RssFile"].split()[0]) * 1024

    with GGUFFile.open(large) as file:
        before = resident_file_bytes()
        assert file.data("a").max() == 255
        touched = resident_file_bytes()
        file.release("a")
        assert touched - before > 6 << 20
        assert touched - resident_file_bytes() > 6 << 20


def test_missing_tensor_is_named(tiny_gguf: Path) -> None:
    with GGUFFile.open(tiny_gguf) as file, pytest.raises(LcpuError, match=r"tiny.gguf: tensor 'absent' is missing"):
        file.data("absent")


def test_version_2(tiny_gguf: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_gguf.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    (tmp_path / "v2.gguf").write_bytes(data)
    with GGUFFile.open(tmp_path / "v2.gguf") as file, GGUFFile.open(tiny_gguf) as same:
        assert file.version == 2
        assert file.tensors == same.tensors


def test_large_alignment(write_tiny: Callable[..., Path]) -> None:
    path = write_tiny(**{"general.alignment": 4096})
    with GGUFFile.open(path) as file:
        assert all(info.offset % 4096 == 0 for info in file.tensors.values())
        assert_same(file, gguf.GGUFReader(path))


def test_a_large_vocabulary_is_read_fast(shared: Path) -> None:
    path = shared / "vocabs/ggml-vocab-qwen2.gguf"
    opened, read = [], []
    for _ in range(3):
        start = time.process_time()
        with GGUFFile.open(path) as file:
            opened.append(time.process_time() - start)
            start = time.process_time()
            assert len(file.metadata["tokenizer.ggml.tokens"]) == 151936  # type: ignore[arg-type]
            read.append(time.process_time() - start)
    assert min(opened) < 0.5
    assert min(read) < 0.8


def split_model(folder: Path, count: int = 3, changes: dict[int, dict[str, object]] | None = None) -> list[Path]:
    """A model of `count` tensors in as many files. `changes` replace the metadata of the file of that index."""
    paths = [folder / f"model-{index + 1:05}-of-{count:05}.gguf" for index in range(count)]
    for index, path in enumerate(paths):
        metadata = {"general.name": f"file {index}", "split.no": np.uint16(index), "split.count": np.uint16(count)}
        metadata |= {"split.tensors.count": np.int32(count)} | (changes or {}).get(index, {})
        write_gguf(path, metadata, [TensorToWrite(f"tensor.{index}", (4,), 0, np.full(4, index, np.float32))])
    return paths


@pytest.mark.parametrize("given", [0, 1, 2])
def test_split_files_open_from_any(tmp_path: Path, given: int) -> None:
    paths = split_model(tmp_path)
    with GGUFFile.open(paths[given]) as file:
        assert file.path == paths[0]
        assert file.metadata["general.name"] == "file 0"
        assert list(file.tensors) == ["tensor.0", "tensor.1", "tensor.2"]
        for index in range(3):
            assert file.data(f"tensor.{index}").view(np.float32).tolist() == [index] * 4
            file.release(f"tensor.{index}")


def test_missing_split_file_is_named(tmp_path: Path) -> None:
    paths = split_model(tmp_path)
    paths[1].unlink()
    with pytest.raises(LcpuError, match=r"model-00002-of-00003\.gguf: no such file, and the model needs it"):
        GGUFFile.open(paths[0])


def renamed(paths: list[Path], names: str) -> list[Path]:
    return [path.rename(path.with_name(name)) for path, name in zip(paths, names.split(), strict=True)]


@pytest.mark.parametrize("given", [0, 1, 2])
def test_renamed_split_files_are_found_by_their_metadata(tmp_path: Path, given: int) -> None:
    paths = renamed(split_model(tmp_path), "z.gguf b.gguf a.gguf")
    (tmp_path / "junk.gguf").write_bytes(b"<html>")
    write_gguf(tmp_path / "whole.gguf", {}, [TensorToWrite("w", (4,), 0, bytes(16))])
    (tmp_path / "more").mkdir()
    other = split_model(tmp_path / "more", changes={index: {"split.tensors.count": np.int32(9)} for index in range(3)})
    for index, path in enumerate(other):
        path.rename(tmp_path / f"other{index}.gguf")
    with GGUFFile.open(paths[given]) as file:
        assert file.paths == tuple(paths)
        assert file.data("tensor.2").view(np.float32).tolist() == [2] * 4


def test_renamed_split_files_that_are_not_all_there(tmp_path: Path) -> None:
    paths = renamed(split_model(tmp_path), "a.gguf b.gguf c.gguf")
    paths[1].unlink()
    with pytest.raises(LcpuError, match=r"a\.gguf: is file 1 of 3 of a model, and file 2 is not beside it: put all 3"):
        GGUFFile.open(paths[0])


def test_renamed_split_files_of_two_models(tmp_path: Path) -> None:
    paths = renamed(split_model(tmp_path), "a.gguf b.gguf c.gguf")
    (tmp_path / "d.gguf").write_bytes(paths[2].read_bytes())
    with pytest.raises(LcpuError, match=r"c\.gguf and d\.gguf could both be file 3: put the files of each model in a"):
        GGUFFile.open(paths[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: {"split.no": np.uint16(2)}}, "00002-of-00003.gguf: is not file 2 of 3 of its model"),
        ({1: {"split.count": np.uint16(4)}}, "00002-of-00003.gguf: is not file 2 of 3 of its model"),
        ({0: {"split.tensors.count": np.int32(5)}}, "the files have 3 tensors, not 5"),
        ({0: {"split.count": "three"}}, "key 'split.count' is not a count"),
        ({0: {"split.no": np.uint16(3)}}, "is file 4 of 3 of its model: damaged"),
        ({0: {"split.no": np.uint16(1), "split.count": np.uint16(1)}}, "is file 2 of 1 of its model: damaged"),
        ({0: {"split.no": np.int32(-1)}}, "key 'split.no' is not a count"),
    ],
)
def test_wrong_split_keys(tmp_path: Path, changes: dict[int, dict[str, object]], message: str) -> None:
    with pytest.raises(LcpuError, match=message):
        GGUFFile.open(split_model(tmp_path, changes=changes)[0])


def test_tensor_in_two_split_files(tmp_path: Path) -> None:
    paths = split_model(tmp_path, count=2)
    metadata = {"split.no": np.uint16(1), "split.count": np.uint16(2)}
    write_gguf(paths[1], metadata, [TensorToWrite("tensor.0", (4,), 0, bytes(16))])
    with pytest.raises(LcpuError, match=r"00002.gguf: tensor 'tensor.0' is also in .*00001-of-00002.gguf"):
        GGUFFile.open(paths[0])
