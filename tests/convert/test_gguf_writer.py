"""Writing GGUF files: the `gguf` package reads them, they appear whole or not at all, tensors pass one by one."""

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile
from lcpu.kernels.errors import LcpuError

Q4_0, I8 = 2, 24

METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "flag": True,
    "count": 7,
    "negative": -7,
    "large": 2**40,
    "negative and large": -(2**40),
    "real": 0.5,
    "exact": np.uint16(9),
    "double": np.float64(0.1),
    "texts": ["a", "", "☃"],
    "ints": [1, -2],
    "large ints": [2**40],
    "reals": [0.5, 1.5],
    "flags": [True, False],
    "array": np.arange(3, dtype=np.uint8),
    "big-endian array": np.arange(3, dtype=">i2"),
}
TYPES = {
    "flag": "BOOL",
    "count": "UINT32",
    "negative": "INT32",
    "large": "UINT64",
    "negative and large": "INT64",
    "real": "FLOAT32",
    "exact": "UINT16",
    "double": "FLOAT64",
    "texts": "STRING",
    "ints": "INT32",
    "large ints": "INT64",
    "reals": "FLOAT32",
    "flags": "BOOL",
    "array": "UINT8",
    "big-endian array": "INT16",
}


def test_gguf_reads_it(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    q4_0 = gguf.quants.quantize(np.ones((5, 64), np.float32), gguf.GGMLQuantizationType.Q4_0)
    tensors = [
        TensorToWrite("f32", (2, 3), 0, weights),
        TensorToWrite("q4_0", (5, 64), Q4_0, lambda: q4_0),
        TensorToWrite("transposed", (3, 2), 0, weights.T),
    ]
    write_gguf(tmp_path / "a.gguf", METADATA, tensors)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    for key, value in METADATA.items():
        field = reader.fields[key]
        assert field.contents() == (value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value), key
        if key in TYPES:
            assert field.types[-1].name == TYPES[key]
    assert [tensor.name for tensor in reader.tensors] == ["f32", "q4_0", "transposed"]
    assert np.array_equal(reader.tensors[0].data, weights)
    assert np.array_equal(reader.tensors[1].data, q4_0)
    assert np.array_equal(reader.tensors[2].data, weights.T)


def test_what_is_read_can_be_written_again(tiny_gguf: Path, tmp_path: Path) -> None:
    with GGUFFile.open(tiny_gguf) as file:
        tensors = [TensorToWrite(t.name, t.shape, t.type_id, file.data(t.name)) for t in file.tensors.values()]
        write_gguf(tmp_path / "again.gguf", file.metadata, tensors)
    del tensors
    assert (tmp_path / "again.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_an_empty_list_is_one_of_strings(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", {"none": []}, [])
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        assert file.metadata["none"] == []


def test_ternary(tmp_path: Path) -> None:
    data = np.arange(64 + 32, dtype=np.uint8)
    write_gguf(tmp_path / "a.gguf", {}, [TensorToWrite("w", (2, 128), 36, data)])
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        assert np.array_equal(file.data("w"), data)


def test_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    size = 4 << 20
    tensors = [TensorToWrite(f"t{index}", (size,), I8, lambda: np.zeros(size, np.uint8)) for index in range(5)]
    tracemalloc.start()
    try:
        write_gguf(tmp_path / "a.gguf", {}, tensors)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.gguf").stat().st_size > 5 * size
    assert peak < 1.5 * size


def broken() -> bytes:
    raise KeyError("no such weight")


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (TensorToWrite("b", (4,), I8, broken), KeyError, "no such weight"),
        (TensorToWrite("b", (4,), I8, bytes(5)), ValueError, "tensor 'b': 5 bytes given, 4 expected"),
        (TensorToWrite("b", (4,), Q4_0, bytes(18)), ValueError, "tensor 'b': rows of 4 values are not whole blocks"),
        (TensorToWrite("b", (), I8, b"x"), ValueError, r"tensor 'b': the shape \(\) is not 1 to 4 numbers"),
        (TensorToWrite("b", (4, 0), I8, b""), ValueError, r"tensor 'b': the shape \(4, 0\) is not 1 to 4 numbers"),
        (TensorToWrite("a", (4,), I8, bytes(4)), ValueError, "two tensors have the same name"),
    ],
)
def test_a_failure_leaves_no_file_and_keeps_the_old_one(
    tmp_path: Path, tensor: TensorToWrite, error: type[Exception], message: str
) -> None:
    first = TensorToWrite("a", (4,), I8, bytes(4))
    with pytest.raises(error, match=message):
        write_gguf(tmp_path / "new.gguf", {}, [first, tensor])
    assert list(tmp_path.iterdir()) == []
    write_gguf(tmp_path / "old.gguf", {}, [first])
    before = (tmp_path / "old.gguf").read_bytes()
    with pytest.raises(error, match=message):
        write_gguf(tmp_path / "old.gguf", {}, [first, tensor])
    assert list(tmp_path.iterdir()) == [tmp_path / "old.gguf"]
    assert (tmp_path / "old.gguf").read_bytes() == before


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        ({}, TypeError),
        ([1, "a"], TypeError),
        ([1, 2.5], TypeError),
        ([[1]], TypeError),
        (b"raw", TypeError),
        (1j, TypeError),
        (np.zeros((2, 2)), TypeError),
        (np.zeros(2, np.float16), TypeError),
        (np.array(["a"]), TypeError),
        (2**64, ValueError),
        ([2**63], ValueError),
        ("\ud800", ValueError),
    ],
)
def test_values_that_gguf_cannot_hold(tmp_path: Path, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="key 'bad': "):
        write_gguf(tmp_path / "a.gguf", {"bad": value}, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alignment", [0, 4, 48, "32"])
def test_bad_alignment(tmp_path: Path, alignment: object) -> None:
    with pytest.raises(ValueError, match=f"general.alignment is {alignment}"):
        write_gguf(tmp_path / "a.gguf", {"general.alignment": alignment}, [])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LcpuError, match=r"absent/a\.gguf: cannot be written: No such file") as caught:
        write_gguf(tmp_path / "absent" / "a.gguf", {}, [])
    assert "\n" not in str(caught.value)
