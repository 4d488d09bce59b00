"""Read GGUF model files: memory-mapped, lazily, and checked in full before any use.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3, little-endian.

    header        "GGUF", uint32 version, uint64 tensor count, uint64 metadata count
    metadata      count x (name, uint32 value type, value)
    tensor infos  count x (name, uint32 dimensions, uint64 per dimension (row length first), uint32 type, uint64 offset)
    tensor data   starts at the next multiple of general.alignment; offsets count from here
"""

import hashlib
import math
import mmap
import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from ..kernels.errors import LcpuError
from .gguf_metadata import Cursor, Metadata, Value, quoted, read_metadata
from .gguf_types import TENSOR_TYPES, UINT32

# What people open by mistake, by its first bytes.
_OTHER_FORMATS = {
    b"FUGG": "a big-endian GGUF file: convert it to little-endian",
    b"tjgg": "an old GGML file (ggjt), from before GGUF: get the model as GGUF",
    b"fmgg": "an old GGML file (ggmf), from before GGUF: get the model as GGUF",
    b"algg": "an old LoRA adapter (ggla): get the merged model as GGUF",
    b"lmgg": "an old GGML file, from before GGUF: get the model as GGUF",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint: convert its folder with `lcpu convert`",
    b"\x80\x02": "a Python pickle, perhaps a PyTorch checkpoint: convert its folder with `lcpu convert`",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<": "a web page, not a model: download the model itself",
}

_LEAST_KEY_VALUE = 8 + 1 + 4 + 1  # bytes: the length of the key, the key, the value's type, the value
_LEAST_TENSOR_INFO = 8 + 1 + 4 + 8 + 4 + 8
_SAMPLE = 64  # bytes at the beginning, in the middle and at the end of a tensor


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is and how it is stored."""

    name: str
    shape: tuple[int, ...]  # NumPy order: the row length last
    type_id: int  # a key of TENSOR_TYPES
    nbytes: int
    offset: int  # of the first byte, in its file
    shard: int  # which of the split files, from 0

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.type_id].name


@dataclass(frozen=True)
class _Shard:
    """One file: all of a model, or a part of a split one."""

    path: Path
    buffer: mmap.mmap
    version: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    split_number: int  # from 0
    split_count: int
    split_tensors: int  # in all files of the model


class GGUFFile:
    """An open GGUF model: one file, or all the files of a split one.

    A context manager. Use `GGUFFile.open`.
    """

    def __init__(self, shards: list[_Shard]):
        self._shards = shards
        self.path: Path = shards[0].path
        self.paths = tuple(shard.path for shard in shards)  # TensorInfo.shard counts in them
        self.version: int = shards[0].version
        self.metadata: Mapping[str, Value] = shards[0].metadata
        self.tensors: dict[str, TensorInfo] = {}
        for shard in shards:
            for name, info in shard.tensors.items():
                if name in self.tensors:
                    first = shards[self.tensors[name].shard].path
                    raise LcpuError(f"{shard.path}: tensor {quoted(name)} is also in {first}: damaged; download both "
                                    "again")
                self.tensors[name] = info

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "GGUFFile":
        """Open a model. Of a split one, any file will do; the others must be beside it.

        Raises LcpuError, naming the file and what is wrong with it, unless everything but the tensors' values is sound.
        """
        with ExitStack() as on_error:  # closes what was opened
            given = _open_shard(Path(path), on_error)
            file = cls(_with_siblings(given, on_error) if given.split_count > 1 else [given])
            on_error.pop_all()
            return file

    def data(self, name: str) -> np.ndarray:
        """The bytes of a tensor: uint8 [nbytes], a read-only view of the file. Raises LcpuError if there is none."""
        info = self._tensor(name)
        return np.frombuffer(self._shards[info.shard].buffer, np.uint8, info.nbytes, info.offset)

    def fingerprint(self) -> str:
        """What tells this model from others: a digest of all that stands before the tensors, and of samples of each."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self._shards:
            digest.update(shard.buffer[: min((info.offset for info in shard.tensors.values()), default=0)])
        for name, info in self.tensors.items():
            data = self.data(name)
            for start in (0, info.nbytes // 2, max(0, info.nbytes - _SAMPLE)):
                digest.update(data[start : start + _SAMPLE].data)
        return digest.hexdigest()

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back to the system; touching them again reads them again."""
        info = self._tensor(name)
        page = mmap.PAGESIZE
        start = -(-info.offset // page) * page  # only pages that hold nothing else
        end = (info.offset + info.nbytes) // page * page
        if end > start and hasattr(mmap, "MADV_DONTNEED"):
            self._shards[info.shard].buffer.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Unmap the files. Metadata and tensors cannot be read any more, but arrays from `data` stay good."""
        for shard in self._shards:
            with suppress(BufferError):  # arrays still look into it: it is unmapped when the last of them goes
                shard.buffer.close()

    def __enter__(self) -> "GGUFFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _tensor(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError:
            raise LcpuError(f"{self.path}: tensor {quoted(name)} is missing: the file is not whole; download it "
                            "again") from None


def _open_shard(path: Path, on_error: ExitStack) -> _Shard:
    cursor = Cursor(path, on_error.enter_context(_map_file(path)))
    _check_magic(cursor)
    version = _read_version(cursor)
    tensor_count = cursor.count("the tensor count", _LEAST_TENSOR_INFO)
    metadata_count = cursor.count("the metadata count", _LEAST_KEY_VALUE)
    metadata = read_metadata(cursor, metadata_count)
    split_number = _split_number(cursor, metadata, "split.no", default=0)
    split_count = _split_number(cursor, metadata, "split.count", default=1)
    if split_number >= max(split_count, 1):
        raise cursor.error(f"is file {split_number + 1} of {split_count} of its model: damaged")
    infos = _read_tensor_infos(cursor, tensor_count, split_number)
    tensors = _place(cursor, infos, _alignment(cursor, metadata))
    split_tensors = _split_number(cursor, metadata, "split.tensors.count", default=len(tensors))
    return _Shard(path, cursor.buffer, version, metadata, tensors, split_number, split_count, split_tensors)


def _map_file(path: Path) -> mmap.mmap:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise LcpuError(f"{path}: is a folder: name the GGUF file in it")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise LcpuError(f"{path}: is not a regular file: save the model to a file first")
        if status.st_size == 0:
            raise LcpuError(f"{path}: is empty: download or copy it again")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise LcpuError(f"{path}: no such file: check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path, or emptied since
        reason = getattr(error, "strerror", None) or str(error)
        raise LcpuError(f"{path}: cannot be read: {reason}; check its path and permissions") from None


def _check_magic(cursor: Cursor) -> None:
    start = cursor.buffer[:32]
    if start.startswith(b"GGUF"):
        cursor.skip(4, "the magic")
        return
    for magic, what in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise cursor.error(f"is not a GGUF file but {what}")
    if start[8:9] == b"{":
        raise cursor.error("is not a GGUF file but looks like safetensors: convert it with `lcpu convert`")
    raise cursor.error(f"is not a GGUF file: it starts with {start[:4]!r}, not b'GGUF'; check the path")


def _read_version(cursor: Cursor) -> int:
    version = cursor.uint32("the version")
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0 and version:
        raise cursor.error("is a big-endian GGUF file: convert it to little-endian")
    if version == 1:
        raise cursor.error("is GGUF version 1, which is too old: get the model as version 3")
    raise cursor.error(f"is GGUF version {version}; lcpu reads versions 2 and 3; take the model in one of these")


def _alignment(cursor: Cursor, metadata: Metadata) -> int:
    field = metadata.fields.get("general.alignment")
    if field is None:
        return 32
    if field.type_id != UINT32 or field.length is not None:
        raise cursor.error("key 'general.alignment' is not a uint32: damaged")
    alignment = cast(int, metadata["general.alignment"])
    if alignment < 8 or alignment & (alignment - 1):
        raise cursor.error(f"key 'general.alignment' is {alignment}, not a power of two of at least 8: damaged")
    return alignment


def _read_tensor_infos(cursor: Cursor, count: int, shard: int) -> dict[str, TensorInfo]:
    """The tensors in file order; their offsets are still relative to the start of the data."""
    tensors: dict[str, TensorInfo] = {}
    for number in range(1, count + 1):
        name = cursor.name(f"the name of tensor {number}")
        what = f"tensor {quoted(name)}"
        if name in tensors:
            raise cursor.error(f"{what} is there twice: damaged")
        shape = _read_shape(cursor, what)
        type_id = cursor.uint32(f"the type of {what}")
        offset = cursor.uint64(f"the offset of {what}")
        if type_id not in TENSOR_TYPES:
            raise cursor.error(f"{what} has the unknown type {type_id}: damaged, or made by a newer program; take "
                               "another file of this model")
        tensor_type = TENSOR_TYPES[type_id]
        if shape[-1] % tensor_type.block_values:
            multiple = f"a multiple of the {tensor_type.block_values} values of a {tensor_type.name} block"
            raise cursor.error(f"{what} has rows of {shape[-1]} values, not {multiple}: damaged")
        tensors[name] = TensorInfo(name, shape, type_id, tensor_type.nbytes(shape), offset, shard)
    return tensors


def _read_shape(cursor: Cursor, what: str) -> tuple[int, ...]:
    """One to four dimensions. None may be zero: ggml lets such a tensor be, but no model has a use for one."""
    dimensions = cursor.uint32(f"the shape of {what}")
    if not 1 <= dimensions <= 4:
        raise cursor.error(f"{what} has {dimensions} dimensions, not 1 to 4: damaged")
    shape = tuple(cursor.uint64(f"the shape of {what}") for _ in range(dimensions))[::-1]
    if not 0 < math.prod(shape) < 2**63:
        raise cursor.error(f"{what} has the shape {shape}, which is empty or too large: damaged")
    return shape


def _place(cursor: Cursor, tensors: dict[str, TensorInfo], alignment: int) -> dict[str, TensorInfo]:
    """The tensors with offsets from the start of the file; each must lie in it, aligned, apart from the others."""
    data_start = -(-cursor.offset // alignment) * alignment
    placed = {name: replace(info, offset=data_start + info.offset) for name, info in tensors.items()}
    previous, previous_end = "", data_start
    for info in sorted(placed.values(), key=lambda info: info.offset):
        what, end = f"tensor {quoted(info.name)}", info.offset + info.nbytes
        if (info.offset - data_start) % alignment:
            raise cursor.error(f"{what} is not aligned to {alignment} bytes: damaged")
        if info.offset < previous_end:
            raise cursor.error(f"{what} overlaps tensor {quoted(previous)}: damaged")
        if end > cursor.size:
            raise cursor.error(f"{what} ends at byte {end} but the file has {cursor.size}: truncated or damaged")
        previous, previous_end = info.name, end
    return placed


def _split_number(cursor: Cursor, metadata: Metadata, key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise cursor.error(f"key {quoted(key)} is not a count: damaged")
    return value


def _with_siblings(given: _Shard, on_error: ExitStack) -> list[_Shard]:
    """All the files of a split model, in order, from any one of them."""
    count = given.split_count
    shards = []
    for index, path in enumerate(_named_siblings(given) or _described_siblings(given)):
        shard = given if index == given.split_number else _open_shard(path, on_error)
        if (shard.split_number, shard.split_count) != (index, count):
            raise LcpuError(f"{path}: is not file {index + 1} of {count} of its model: get files of one version")
        shards.append(shard)
    tensors = sum(len(shard.tensors) for shard in shards)
    if tensors != shards[0].split_tensors:
        raise LcpuError(f"{shards[0].path}: the files have {tensors} tensors, not {shards[0].split_tensors}: damaged; "
                        "download them again")
    return shards


def _named_siblings(given: _Shard) -> list[Path]:
    """The files of a split model by llama.cpp's names, NAME-00001-of-00003.gguf; none if it has other names."""
    count, path = given.split_count, given.path
    ending = f"-{given.split_number + 1:05}-of-{count:05}.gguf"
    if not path.name.endswith(ending):
        return []
    prefix = path.name.removesuffix(ending)
    paths = [path.with_name(f"{prefix}-{index + 1:05}-of-{count:05}.gguf") for index in range(count)]
    for sibling in paths:
        if not sibling.exists():
            raise LcpuError(f"{sibling}: no such file, and the model needs it: put all {count} files in one folder")
    return paths


def _described_siblings(given: _Shard) -> list[Path]:
    """The files of a split model with other names: what is in the folder tells by its metadata which part it is."""
    found: dict[int, list[Path]] = {given.split_number: [given.path]}
    for path in sorted(given.path.parent.iterdir()):
        if path.suffix != given.path.suffix or path.name == given.path.name:
            continue
        with suppress(LcpuError), ExitStack() as opened:  # other files may be anything
            shard = _open_shard(path, opened)
            same_model = (shard.split_count, shard.split_tensors) == (given.split_count, given.split_tensors)
            if same_model and shard.split_number != given.split_number:
                found.setdefault(shard.split_number, []).append(path)
    what = f"{given.path}: is file {given.split_number + 1} of {given.split_count} of a model"
    for index in range(given.split_count):
        paths = found.get(index, [])
        if not paths:
            raise LcpuError(f"{what}, and file {index + 1} is not beside it: put all {given.split_count} files in one "
                            "folder")
        if len(paths) > 1:
            raise LcpuError(f"{what}, and {paths[0].name} and {paths[1].name} could both be file {index + 1}: put the "
                            "files of each model in a folder of its own")
    return [found[index][0] for index in range(given.split_count)]
