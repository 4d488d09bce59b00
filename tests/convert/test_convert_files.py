"""Reading safetensors and PyTorch files: what is in them, what is wrong with them, and that nothing in them runs."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.safetensors_file import open_safetensors
from lcpu.convert.torch_file import open_torch
from lcpu.kernels.errors import LcpuError

from .checkpoints import CONFIG, write_safetensors, write_torch, write_torch_archive

TENSORS = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f16": np.arange(4, dtype=np.float16),
    "bf16": np.arange(8, dtype=np.uint16).reshape(2, 2, 2),
    "u8": np.arange(5, dtype=np.uint8),
    "i64": np.array(7, dtype=np.int64),
}


@pytest.mark.parametrize(("write", "read"), [(write_safetensors, open_safetensors), (write_torch, open_torch)])
def test_tensors_come_back(tmp_path, write, read):
    write(tmp_path / "file", TENSORS)
    file, tensors = read(tmp_path / "file")
    assert list(tensors) == list(TENSORS)
    for name, array in TENSORS.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].array().dtype == array.dtype
        assert np.array_equal(tensors[name].array(), array), name
        assert not tensors[name].array().flags.writeable
    assert [tensor.dtype for tensor in tensors.values()] == ["F32", "F16", "BF16", "U8", "I64"]
    file.close()


def test_a_transposed_tensor_of_pytorch(tmp_path):
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_torch(tmp_path / "a.bin", {"w": weights.T})
    tensor = open_torch(tmp_path / "a.bin")[1]["w"]
    assert np.array_equal(tensor.array(), weights.T)
    tensor.release()


# ---- damaged safetensors ----


def safetensors_with(path: Path, **entry: object) -> Path:
    whole = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry
    write_safetensors(path, {"w": np.zeros(2, np.float32)}, w={k: v for k, v in whole.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F4"}, "tensor 'w' has the type 'F4'; lcpu reads F64, F32, F16, BF16, U8"),
        ({"dtype": 7}, "tensor 'w' has the type '7'"),
        ({"dtype": None}, "tensor 'w' is badly described: damaged"),
        ({"shape": 3}, "tensor 'w' is badly described: damaged"),
        ({"shape": [3]}, "tensor 'w' does not fit into the file"),
        ({"shape": [-2]}, "tensor 'w' does not fit into the file"),
        ({"shape": [2.0]}, "tensor 'w' does not fit into the file"),
        ({"shape": [True, 2]}, "tensor 'w' does not fit into the file"),
        ({"shape": [2**40, 2**40], "data_offsets": [0, 2**82]}, "tensor 'w' does not fit into the file"),
        ({"data_offsets": [8, 16]}, "tensor 'w' does not fit into the file"),
        ({"data_offsets": [8, 0]}, "tensor 'w' does not fit into the file"),
        ({"data_offsets": [-8, 0]}, "tensor 'w' does not fit into the file"),
        ({"data_offsets": [0]}, "tensor 'w' is badly described: damaged"),
    ],
)
def test_bad_descriptions(tmp_path, entry, message):
    with pytest.raises(LcpuError, match=f"a.safetensors: {message}") as caught:
        open_safetensors(safetensors_with(tmp_path / "a.safetensors", **entry))
    assert "\n" not in str(caught.value)


def test_tensors_that_overlap(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}
    write_safetensors(tmp_path / "a.safetensors", {"v": np.zeros(2, np.float32), "w": np.zeros(2, np.float32)}, w=entry)
    with pytest.raises(LcpuError, match=r"a\.safetensors: tensor 'w' overlaps another: damaged; download it again"):
        open_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read: "),
        (b"\x02\0\0", "is not a safetensors file, or not all of it"),
        (struct.pack("<Q", 100) + b"{}", "is not a safetensors file, or not all of it"),
        (struct.pack("<Q", 2**63) + b"{}", "is not a safetensors file, or not all of it"),
        (struct.pack("<Q", 2) + b"{]", "the header is not JSON"),
        (struct.pack("<Q", 2) + b"\xff\xff", "the header is not JSON"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "the header is not JSON"),
        (struct.pack("<Q", 2) + b"[]", "the header is not a JSON object"),
        (struct.pack("<Q", 9) + b'{"w": []}', "tensor 'w' is badly described"),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(LcpuError, match=f"a.safetensors: {message}"):
        open_safetensors(tmp_path / "a.safetensors")


def test_a_file_that_is_cut_off_is_told_by_its_header(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", TENSORS)
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:-1])
    with pytest.raises(LcpuError, match="tensor 'i64' does not fit into the file: it is not whole"):
        open_safetensors(tmp_path / "a.safetensors")


# ---- PyTorch files that are hostile or damaged ----


class Runs:
    """Pickles to a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_pickle_runs(tmp_path, protocol):
    trap = tmp_path / "executed"
    pickled = pickle.dumps({"w": Runs(trap)}, protocol)
    write_torch_archive(tmp_path / "a.bin", pickled, [])
    with pytest.raises(LcpuError, match=r"its pickle asks for \w+\.mkdir, which is not part of a tensor: refused"):
        open_torch(tmp_path / "a.bin")
    assert not trap.exists()
    pickle.loads(pickled)  # which would have
    assert trap.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "torch\nload", "torch._utils\n_rebuild_tensor_v2.__globals__", "torch.serialization\nload"],
)
def test_other_names_are_refused(tmp_path, name):
    write_torch_archive(tmp_path / "a.bin", b"\x80\x02c" + name.encode() + b"\n.", [])
    with pytest.raises(LcpuError, match=r"its pickle asks for .* refused"):
        open_torch(tmp_path / "a.bin")


def torch_tensor(storage: str = "'storage' FloatStorage '0' 4", offset: object = 0, shape: object = (2, 2),
                 strides: object = (2, 1)) -> bytes:
    """A pickle of {"w": a tensor}, whose parts may be wrong."""
    kind, dtype, key, size = storage.split()
    plain = lambda value: pickle.dumps(value, 2)[2:-1]  # noqa: E731
    return (
        b"\x80\x02}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n((" + plain(kind.strip("'"))
        + b"ctorch\n" + dtype.encode() + b"\n" + plain(key.strip("'")) + plain("cpu") + plain(int(size)) + b"tQ"
        + plain(offset) + plain(shape) + plain(strides) + b"\x89}tRs."
    )  # fmt: skip


def test_the_tensor_of_these_tests_is_good_when_left_alone(tmp_path):
    write_torch_archive(tmp_path / "a.bin", torch_tensor(), [np.arange(4, dtype=np.float32).tobytes()])
    assert open_torch(tmp_path / "a.bin")[1]["w"].array().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (torch_tensor(offset=1), r"is damaged \(a tensor larger than its storage\)"),
        (torch_tensor(offset=99, shape=(2, 0)), r"is damaged \(a tensor larger than its storage\)"),
        (torch_tensor(shape=(3, 2)), r"is damaged \(a tensor larger than its storage\)"),
        (torch_tensor(strides=(3, 1)), r"is damaged \(a tensor larger than its storage\)"),
        (torch_tensor(strides=(-2, 1)), r"is damaged \(a tensor of impossible shape\)"),
        (torch_tensor(shape=(2**63, 2)), r"is damaged \(a tensor of impossible shape\)"),
        (torch_tensor(shape=("2", "2")), r"is damaged"),
        (torch_tensor(shape=(2,)), r"is damaged \(a tensor that is none\)"),
        (torch_tensor("'storage' FloatStorage '9' 4"), r"is damaged \('9'\)"),
        (torch_tensor("'storage' FloatStorage '0' 5", shape=(5,), strides=(1,)), "the values of tensor 'w' are not"),
        (torch_tensor("'storage' DoubleStorage '0' 4"), "the values of tensor 'w' are not all there"),
        (torch_tensor("'module' FloatStorage '0' 4"), r"is damaged \(a storage that is none\)"),
        (torch_tensor()[:-1], "is damaged"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "is damaged"),  # an index that the unpickler in C makes room for
        (b"\x80\x02\x96\xff\xff\xff\xff\xff\0\0\0.", "is damaged"),  # an array of a terabyte
        (b"\x80\x02})" + b"2\x86" * 60 + b"Ns.", r"is damaged \(a tuple too large for a tensor\)"),
        (b"", "is damaged"),
        (pickle.dumps([1], 2), "holds list, not a dictionary of tensors"),
        (pickle.dumps({"epoch": 3}, 2), "has no tensors in its dictionary"),
    ],
)
def test_bad_pickles(tmp_path, pickled, message):
    write_torch_archive(tmp_path / "a.bin", pickled, [bytes(16)])
    with pytest.raises(LcpuError, match=f"a.bin: .*{message}") as caught:
        open_torch(tmp_path / "a.bin")
    assert "\n" not in str(caught.value)


def test_archives_that_cannot_be_mapped(tmp_path):
    write_torch_archive(tmp_path / "a.bin", torch_tensor(), [bytes(16)], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(LcpuError, match="is a compressed archive"):
        open_torch(tmp_path / "a.bin")
    write_torch_archive(tmp_path / "a.bin", torch_tensor(), [bytes(16)], byteorder=b"big")
    with pytest.raises(LcpuError, match="was saved on a big-endian machine"):
        open_torch(tmp_path / "a.bin")


def test_files_before_version_1_6(tmp_path):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    with pytest.raises(LcpuError, match=r"is not a PyTorch file of version 1\.6 or newer; save it again"):
        open_torch(tmp_path / "a.bin")


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(LcpuError, match="is damaged"):
        open_torch(tmp_path / "a.bin")


# ---- which files of a folder ----


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards(folder, ending):
    write, stem = (write_safetensors, "model") if ending == "safetensors" else (write_torch, "pytorch_model")
    names = [f"{stem}-00001-of-00002.{ending}", f"{stem}-00002-of-00002.{ending}"]
    for name, key in zip(names, ("a", "b"), strict=True):
        write(folder / name, {key: np.full(3, ord(key), np.float32)})
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    with open_checkpoint(folder) as checkpoint:
        assert {name: tensor.array()[0] for name, tensor in checkpoint.tensors.items()} == {"a": 97, "b": 98}
    (folder / names[1]).unlink()
    with pytest.raises(LcpuError, match=f"{names[1]}: no such file: the checkpoint is not whole"):
        open_checkpoint(folder)
    write(folder / names[1], {"a": np.zeros(3, np.float32)})
    with pytest.raises(LcpuError, match="tensor 'a' is in another file as well"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.bin", "readme.txt"])
def test_an_index_names_files_beside_it_only(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(LcpuError, match="names files that cannot be parts of it: refused"):
        open_checkpoint(folder)


def test_safetensors_come_first(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    write_safetensors(folder / "model.safetensors", {"w": np.zeros(1, np.float32)})
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.txt", "", "config.json: no such file: this is not a Hugging Face model"),
        ("adapter_config.json", "{}", "is a LoRA adapter, not a model: merge it into its model first"),
        ("model-q4_0.gguf", "", "has GGUF files, which need no conversion"),
        ("config.json", "{", "config.json: is not JSON"),
        ("config.json", "[]", "config.json: holds list, not an object"),
        ("config.json", "{}", "has no weights: neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_what_a_folder_may_lack(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(LcpuError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
