"""Read and write importance matrices: for each value of a row of weights, the mean square of what it meets.

Two forms, both llama.cpp's (tools/imatrix). A GGUF file with general.type "imatrix" has two float32 tensors for each
matrix NAME of a model: NAME.in_sum2, sums of squares [experts, row length], and NAME.counts, how many squares were
added up for each expert. The older form has int32 and float32 numbers:

    count of entries, then for each: length of the name, the name, calls, count of values, mean squares * calls
    and at the end, or not: count of chunks, length of the name of the text, the name
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engine.gguf_file import GGUFFile, TensorInfo
from ..engine.gguf_metadata import Value, quoted
from ..engine.gguf_types import TENSOR_TYPES
from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS
from .gguf_writer import TensorToWrite, write_gguf
from .type_rules import Mixture

if TYPE_CHECKING:
    from ..engine.input_squares import Squares

_SUMS, _COUNTS = ".in_sum2", ".counts"
_F32 = 0  # its type id
_LONGEST = 127  # bytes of a text in the metadata that llama-quantize writes
# Of other tensors, llama.cpp makes these types only with an importance matrix; and Q2_K in a file of type Q2_K_S.
_DEMANDING = ("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
_NOT_IN_LAYERS = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
_Q2_K_S = 21


@dataclass(frozen=True)
class ImportanceMatrix:
    """The mean squares of a file, by the names of the matrices."""

    path: Path
    squares: Mapping[str, np.ndarray]  # float32 [experts * row length]
    datasets: tuple[str, ...] = ()  # the names of the texts they were measured on
    chunks: int = 0  # how many parts of them; 0: not known

    def of(self, info: TensorInfo) -> np.ndarray | None:
        """The weights of a tensor's rows, float32 [matrices, row length], or None if it has none.

        They are positive, and about 1 in the mean of a row. Raises LcpuError if their number does not fit the tensor.
        """
        squares = self.squares.get(info.name)
        if squares is None:
            return None
        matrices = info.shape[0] if len(info.shape) > 2 else 1
        if squares.size != matrices * info.shape[-1]:
            if info.name in _NOT_IN_LAYERS[:2]:  # as llama.cpp does
                return None
            raise LcpuError(f"{self.path}: has {squares.size} values for tensor {quoted(info.name)}, which needs "
                            f"{matrices * info.shape[-1]}: take the importance matrix of this model")
        rows = squares.reshape(matrices, -1).astype(np.float64)
        means = rows.mean(axis=1, keepdims=True)
        rows = np.where(means > 0, rows / np.where(means > 0, means, 1), 1.0)
        return np.maximum(rows, 1e-6).astype(np.float32)

    def metadata(self) -> dict[str, object]:
        """What llama-quantize writes to tell of it."""
        keys: dict[str, object] = {"quantize.imatrix.file": _shortened(str(self.path))}
        if self.datasets:
            keys["quantize.imatrix.dataset"] = _shortened(self.datasets[0])
        keys["quantize.imatrix.entries_count"] = np.uint32(len(self.squares))
        if self.chunks > 0:
            keys["quantize.imatrix.chunks_count"] = np.uint32(self.chunks)
        return keys


def check_demands(types: Mapping[str, int], tensors: Mapping[str, TensorInfo], mixture: Mixture,
                  matrix: ImportanceMatrix | None, way_out: str = "give one with --imatrix FILE") -> None:
    """Raises LcpuError if a tensor is to get a type that is no good without an importance matrix, and has none.

    way_out: for the message, what to do where there is no matrix at all.
    """
    for name, type_id in types.items():
        kind = TENSOR_TYPES[type_id].name
        demanding = kind in _DEMANDING or (kind == "Q2_K" and mixture.file_type == _Q2_K_S)
        if type_id == tensors[name].type_id or not demanding or name in _NOT_IN_LAYERS:
            continue
        if matrix is None:
            raise LcpuError(f"tensor {quoted(name)} would be {kind}, which needs an importance matrix: {way_out}, "
                            "or take a larger type")
        if matrix.of(tensors[name]) is None:
            raise LcpuError(f"{matrix.path}: has nothing for tensor {quoted(name)}, which would be {kind}: take the "
                            "importance matrix of this model, or a larger type")


def without_weights(types: Mapping[str, int], tensors: Mapping[str, TensorInfo], matrix: ImportanceMatrix) -> list[str]:
    """Names of the tensors that could be quantized with weights, and of which the matrix has none.

    Embedding and output layer are left out: llama-imatrix does not measure them by itself.
    """
    return [name for name, type_id in types.items()
            if type_id != tensors[name].type_id and FORMATS[type_id].weighted_encoder is not None
            and name not in _NOT_IN_LAYERS and matrix.of(tensors[name]) is None]


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read a file of either form. Raises LcpuError, naming it, unless it is a whole importance matrix."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            data = b"" if start == b"GGUF" else start + file.read()
    except OSError as error:
        raise LcpuError(f"{path}: cannot be read: {error.strerror or error}; check its path and permissions") from None
    except ValueError as error:  # a zero byte in the path
        raise LcpuError(f"{path!r}: cannot be read: {error}; check its path") from None
    matrix = _read_gguf(path) if start == b"GGUF" else _read_legacy(path, data)
    for name, squares in matrix.squares.items():
        if not (np.isfinite(squares).all() and (squares >= 0).all()):
            raise LcpuError(f"{path}: tensor {quoted(name)} has values that are no mean squares: the file is damaged; "
                            "make it again")
    return matrix


def write_imatrix(path: Path, squares: Mapping[str, Squares], datasets: Sequence[str], chunks: int,
                  chunk_size: int) -> None:
    """Write a GGUF file of this form, as llama-imatrix does; it appears under its name only when it is whole.

    squares: by the names of tensors. datasets: names of texts. chunks: how many parts of them, of chunk_size tokens.
    Raises LcpuError if the file cannot be written.
    """
    metadata = {"general.type": "imatrix", "imatrix.datasets": list(datasets),
                "imatrix.chunk_count": np.uint32(chunks), "imatrix.chunk_size": np.uint32(chunk_size)}
    tensors = []
    for name, each in sorted(squares.items()):
        for suffix, values in ((_SUMS, each.sums), (_COUNTS, each.counts.reshape(-1, 1))):
            tensors.append(TensorToWrite(name + suffix, values.shape, _F32, values.astype("<f4")))
    write_gguf(path, metadata, tensors)


# ---- GGUF ----


def _read_gguf(path: Path) -> ImportanceMatrix:
    with GGUFFile.open(path) as file:
        kind = file.metadata.get("general.type")
        if kind != "imatrix":
            raise LcpuError(f"{path}: is not an importance matrix but a GGUF file of type {kind!r}"
                            if kind is not None else f"{path}: is not an importance matrix but another GGUF file")
        names = [name.removesuffix(_SUMS) for name in file.tensors if name.endswith(_SUMS)]
        squares = {name: _mean_squares(file, name) for name in names}
        if not squares:
            raise LcpuError(f"{path}: has no importance of any tensor: make it again")
        datasets = file.metadata.get("imatrix.datasets", [])
        return ImportanceMatrix(path, squares, tuple(datasets) if isinstance(datasets, list) else (),
                                _count(file.metadata.get("imatrix.chunk_count", 0)))


def _count(value: Value) -> int:
    return value if isinstance(value, int) else 0


def _mean_squares(file: GGUFFile, name: str) -> np.ndarray:
    """float32 [experts * row length]; those of an expert that no token went to are 1."""
    sums, counts = _floats(file, name + _SUMS), _floats(file, name + _COUNTS)
    if sums.size % counts.size:
        raise LcpuError(f"{file.path}: has {sums.size} sums and {counts.size} counts of tensor {quoted(name)}: the "
                        "file is damaged; make it again")
    sums, counts = sums.reshape(counts.size, -1), counts.reshape(-1, 1)
    return np.where(counts > 0, sums / np.where(counts > 0, counts, 1), 1).astype(np.float32).ravel()


def _floats(file: GGUFFile, name: str) -> np.ndarray:
    data = file.data(name)
    if file.tensors[name].type_name != "F32":
        raise LcpuError(f"{file.path}: tensor {quoted(name)} is {file.tensors[name].type_name}, not F32: make the "
                        "importance matrix again")
    return data.view("<f4").astype(np.float64)


# ---- the older form ----


class _Legacy:
    """Reads its numbers from front to back."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def error(self) -> LcpuError:
        return LcpuError(f"{self.path}: is not an importance matrix, or not a whole one: make it with llama-imatrix")

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + max(0, count)]
        if len(part) != count:
            raise self.error()
        self.at += count
        return part

    def int32(self) -> int:
        return struct.unpack("<i", self.take(4))[0]

    def text(self) -> str:
        return self.take(self.int32()).decode("utf-8", "surrogateescape")


def _read_legacy(path: Path, data: bytes) -> ImportanceMatrix:
    reader, squares = _Legacy(path, data), {}
    for _ in range(_at_least_one(reader)):
        name, calls = reader.text(), reader.int32()
        values = np.frombuffer(reader.take(4 * _at_least_one(reader)), "<f4")
        squares[name] = (values / np.float32(calls)) if calls > 0 else values.copy()
    if reader.at == len(data):
        return ImportanceMatrix(path, squares)
    chunks = reader.int32()
    dataset = reader.text() if reader.at < len(data) else ""
    return ImportanceMatrix(path, squares, (dataset,) if dataset else (), max(0, chunks))


def _at_least_one(reader: _Legacy) -> int:
    count = reader.int32()
    if count < 1:
        raise reader.error()
    return count


def _shortened(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:_LONGEST].decode("utf-8", "ignore")
