"""Damaged GGUF files: each kind of damage has its own one-line error, and nothing else ever happens."""

import os
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile
from lcpu.kernels.errors import LcpuError

UINT32, STRING, ARRAY, UINT8 = 4, 8, 9, 0
F32, Q4_0 = 0, 2


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str | bytes, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def info(name: str | bytes, dimensions: tuple[int, ...], type_id: int = F32, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + sizes + struct.pack("<IQ", type_id, offset)


def gguf(pairs: tuple[bytes, ...] = (), infos: tuple[bytes, ...] = (), data: int = 0, alignment: int = 32) -> bytes:
    """A file of these parts, with `data` zero bytes of tensor data; nothing is checked."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment + data)


NAME = pair("general.name", STRING, text("x"))
ONE = struct.pack("<I", 1)
HUGE = struct.pack("<Q", 2**63)
TENSOR = info("t", (4,))


def alignment(type_id: int, value: bytes) -> bytes:
    return gguf((pair("general.alignment", type_id, value),), (TENSOR,), 32)


MALFORMED: dict[str, tuple[bytes, str]] = {
    # The header.
    "empty": (b"", "is empty"),
    "other magic": (b"ELF!" + bytes(60), "is not a GGUF file: it starts with b'ELF!'"),
    "half a magic": (b"GG", "is not a GGUF file"),
    "swapped magic": (b"FUGG" + bytes(60), "big-endian"),
    "safetensors": (struct.pack("<Q", 100) + b'{"__metadata__":{}}' + bytes(60), "looks like safetensors"),
    "zip": (b"PK\x03\x04" + bytes(60), "a PyTorch checkpoint"),
    "pickle": (b"\x80\x02" + bytes(60), "a PyTorch checkpoint"),
    "ggjt": (struct.pack("<I", 0x67676A74) + bytes(60), r"an old GGML file \(ggjt\)"),
    "ggml": (struct.pack("<I", 0x67676D6C) + bytes(60), "an old GGML file"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html>", "a web page"),
    "version 0": (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "is GGUF version 0; lcpu reads versions 2 and 3"),
    "version 1": (b"GGUF" + struct.pack("<III", 1, 0, 0), "version 1, which is too old"),
    "version 4": (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "is GGUF version 4; lcpu reads versions 2 and 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "short header": (gguf()[:20], "the metadata count needs 8 bytes but the file has 4 left"),
    "tensor count": (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), f"the tensor count is {2**63}, more than"),
    "metadata count": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**64 - 1), "the metadata count is .*, more than"),
    "count of more than there is": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + NAME,
        "the metadata count is 3, more than",
    ),
    # Metadata.
    "empty key": (gguf((pair("", UINT32, ONE),)), "name of metadata key 1 is 0 bytes long"),
    "huge key": (gguf((HUGE + bytes(64),)), f"name of metadata key 1 is {2**63} bytes long"),
    "key past the end": (gguf((NAME, struct.pack("<Q", 999) + bytes(64))), "metadata key 2 needs 999 bytes"),
    "key not UTF-8": (gguf((pair(b"\xff\xfe", UINT32, ONE),)), "name of metadata key 1 is not UTF-8"),
    "two equal keys": (gguf((NAME, NAME)), "key 'general.name' is there twice"),
    "unknown value type": (gguf((pair("k", 13, ONE),)), "key 'k' has the unknown value type 13"),
    "unknown element type": (gguf((pair("k", ARRAY, struct.pack("<IQ", 99, 0)),)), "'k' has the unknown value type 99"),
    "nested array": (gguf((pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(16)),)), "'k' is an array of arrays"),
    "huge string": (gguf((pair("k", STRING, HUGE),)), "key 'k' goes past the end"),
    "largest string": (gguf((pair("k", STRING, b"\xff" * 8),)), "key 'k' goes past the end"),
    "huge array": (
        gguf((pair("k", ARRAY, struct.pack("<I", UINT8) + HUGE),)),
        "the length of key 'k' is .*, more than",
    ),
    "huge string array": (
        gguf((pair("k", ARRAY, struct.pack("<I", STRING) + HUGE),)),
        "the length of key 'k' is .*, more",
    ),
    "string in array": (
        gguf((pair("k", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + HUGE), NAME)),
        "key 'k' goes past the end",
    ),
    "short number": (gguf((pair("name", 10, b""),))[:40], "key 'name' needs 8 bytes but the file has 0 left"),
    # Alignment.
    "alignment 0": (alignment(UINT32, struct.pack("<I", 0)), "key 'general.alignment' is 0, not a power of two"),
    "alignment 4": (alignment(UINT32, struct.pack("<I", 4)), "key 'general.alignment' is 4, not a power of two"),
    "alignment 48": (alignment(UINT32, struct.pack("<I", 48)), "key 'general.alignment' is 48, not a power of two"),
    "alignment of uint64": (alignment(10, struct.pack("<Q", 32)), "key 'general.alignment' is not a uint32"),
    "alignment of array": (alignment(ARRAY, struct.pack("<IQI", UINT32, 1, 32)), "'general.alignment' is not a uint32"),
    # Tensor infos.
    "short tensor info": (gguf((), (info("tensor", (4,)),))[:60], "the offset of tensor 'tensor' needs 8 bytes"),
    "empty tensor name": (gguf((), (info("", (4,)),), 64), "name of tensor 1 is 0 bytes long"),
    "tensor name not UTF-8": (gguf((), (info(b"\xc3", (4,)),), 64), "name of tensor 1 is not UTF-8"),
    "two equal tensors": (gguf((), (TENSOR, info("t", (4,), offset=32)), 64), "tensor 't' is there twice"),
    "no dimension": (gguf((), (info("t", ()),), 64), "tensor 't' has 0 dimensions"),
    "five dimensions": (gguf((), (info("t", (1, 1, 1, 1, 1)),), 64), "tensor 't' has 5 dimensions"),
    "zero dimension": (gguf((), (info("t", (4, 0)),), 64), r"tensor 't' has the shape \(0, 4\), which is empty"),
    "huge dimension": (gguf((), (info("t", (2**63,)),), 64), "tensor 't' has the shape .* too large"),
    "huge product": (gguf((), (info("t", (2**32, 2**31)),), 64), "tensor 't' has the shape .* too large"),
    "overflowing product": (gguf((), (info("t", (2**32, 2**32)),), 64), "tensor 't' has the shape .* too large"),
    "unknown tensor type": (gguf((), (info("t", (4,), 99),), 64), "tensor 't' has the unknown type 99"),
    "row of half a block": (gguf((), (info("t", (48, 2), Q4_0),), 64), "rows of 48 values, not a multiple of the 32"),
    "I2_S row of half a group": (
        gguf((), (info("t", (64, 2), 36),), 64),
        "tensor 't' has rows of 64 values, not a multiple of the 128",
    ),
    # Tensor data.
    "misaligned": (gguf((), (info("t", (4,), offset=8),), 64), "tensor 't' is not aligned to 32 bytes"),
    "overlap": (gguf((), (info("a", (16,)), info("b", (4,), offset=32)), 96), "tensor 'b' overlaps tensor 'a'"),
    "same place": (gguf((), (TENSOR, info("u", (4,))), 96), "tensor 'u' overlaps tensor 't'"),
    "past the end": (gguf((), (info("t", (16,)),), 63), "tensor 't' ends at byte 128 but the file has 127"),
    "huge offset": (gguf((), (info("t", (4,), offset=2**64 - 32),), 64), "tensor 't' ends at byte"),
    "data missing": (gguf((), (TENSOR,)), "tensor 't' ends at byte 80 but the file has 64"),
}


@pytest.mark.parametrize(("data", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(LcpuError, match=message) as caught:
        GGUFFile.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_parts_make_a_sound_file(tmp_path: Path) -> None:
    """What the malformed files are varied from: else they could be refused for another reason."""
    path = tmp_path / "good.gguf"
    path.write_bytes(gguf((NAME,), (TENSOR, info("u", (32, 2), Q4_0, 32), info("v", (128,), 36, 96)), 160))
    with GGUFFile.open(path) as file:
        assert {name: tensor.nbytes for name, tensor in file.tensors.items()} == {"t": 16, "u": 36, "v": 64}


def test_names_cannot_break_the_line_or_flood_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(gguf((pair("k\n" * 30000, 99, ONE),)))
    with pytest.raises(LcpuError) as caught:
        GGUFFile.open(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_not_a_readable_file(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "absent.gguf", "absent.gguf: no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "nul\0.gguf", "cannot be read"),
        (tmp_path / "x" / ("n" * 300), "no such file|cannot be read"),
    ]:
        with pytest.raises(LcpuError, match=message):
            GGUFFile.open(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(LcpuError, match=r"pipe\.gguf: is not a regular file"):
        GGUFFile.open(tmp_path / "pipe.gguf")


def test_no_permission(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a chmod would not stop root
    with pytest.raises(LcpuError, match=r"tiny\.gguf: cannot be read: Permission denied"):
        GGUFFile.open(tiny_gguf)


def use(path: Path) -> str:
    """Open a file and read all that it has; the error's line, or "" if it is sound."""
    try:
        with GGUFFile.open(path) as file:
            dict(file.metadata)
            for name, tensor in file.tensors.items():
                assert file.data(name).nbytes == tensor.nbytes
    except LcpuError as error:
        return str(error)
    return ""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A small file with every kind of value and tensors of several types."""
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "split.no": np.uint16(0),
        "split.count": np.uint16(1),
        "number": -1,
        "real": 0.5,
        "yes": True,
        "texts": ["a", "bc", "☃"],
        "numbers": [1, 2, 3],
        "reals": np.zeros(3),
        "bools": [True, False],
    }
    types = {"f32": (F32, (2, 4)), "q4_0": (Q4_0, (3, 64)), "i2_s": (36, (2, 128)), "q6_k": (14, (256,))}
    tensors = [TensorToWrite(name, shape, kind, b"") for name, (kind, shape) in types.items()]
    path = tmp_path / "sound.gguf"
    write_gguf(path, metadata, [replace(tensor, data=b"\1" * tensor.nbytes) for tensor in tensors])
    return path


def header_size(path: Path) -> int:
    with GGUFFile.open(path) as file:
        return min(tensor.offset for tensor in file.tensors.values())


def test_cut_anywhere(sound: Path, tmp_path: Path) -> None:
    data = sound.read_bytes().rstrip(b"\0")  # the padding after the last tensor is not missed
    for size in range(len(data)):
        path = tmp_path / "cut.gguf"
        path.write_bytes(data[:size])
        assert use(path), f"cut to {size} bytes"


def test_any_damage_is_an_error_or_harmless(sound: Path) -> None:
    """Thousands of changes of 1 to 8 bytes in the header: a sound file or one clean line, fast, in little memory."""
    data, header = sound.read_bytes(), header_size(sound)
    choose = random.Random(20)
    extremes = [bytes(8), b"\xff" * 8, HUGE, struct.pack("<Q", 2**63 - 1), struct.pack("<Q", 2**31), b"\1" + bytes(7)]
    errors = 0
    start = time.process_time()
    with sound.open("r+b", buffering=0) as file, peak_memory() as peak:
        for _ in range(5000):
            at = choose.randrange(header)
            count = choose.choice((1, 1, 2, 4, 8))
            file.seek(at)
            file.write(choose.choice(extremes)[:count] if choose.random() < 0.5 else choose.randbytes(count))
            line = use(sound)
            assert "\n" not in line
            errors += bool(line)
            file.seek(at)
            file.write(data[at : at + count])
    assert use(sound) == ""
    assert 500 < errors < 5000
    assert peak() < 1 << 20
    assert time.process_time() - start < 60


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yields a function that gives, after the block, the most bytes that Python and NumPy held within it."""
    tracemalloc.start()
    peak = 0
    try:
        yield lambda: peak
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
