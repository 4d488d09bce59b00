"""Read and write Hessians: for each matrix, sums of products by pairs of columns of what it is multiplied with.

A GGUF file with general.type "hessian". Matrices that are multiplied with the same values share a tensor
NAME.hessian, where NAME is the first of them: float32 [k * (k + 1) / 2], the lower triangle, row after row.
hessian.matrices has the names of all matrices, hessian.sums for each of them the number of its tensor, in the file's
order, and hessian.tokens how many rows were added up. As in importance matrices, imatrix.datasets has the names of the
texts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..engine.gguf_file import GGUFFile, TensorInfo
from ..engine.gguf_metadata import quoted
from ..engine.input_products import Products
from ..kernels.errors import LcpuError
from .error_feedback import Feedback, feedback_of, shrinkage
from .gguf_writer import TensorToWrite, write_gguf
from .imatrix import ImportanceMatrix

_SUFFIX = ".hessian"
_F32 = 0  # its type id
_KEPT = 3  # how many factors are in memory: matrices that share one are near each other in files


def nbytes(widths: Iterable[int]) -> int:
    """What the sums of inputs of such widths take in a file."""
    return sum(2 * k * (k + 1) for k in widths)


def write_hessian(path: Path, inputs: Sequence[tuple[tuple[str, ...], int]], products: Iterable[Products],
                  datasets: Sequence[str], tokens: int) -> None:
    """Write a file of sums as they are measured; it appears under its name only when it is whole.

    inputs: the names of the matrices, and the width, of each of the `products`. Raises LcpuError if the file cannot be
    written.
    """
    matrices = [(name, number) for number, (names, _) in enumerate(inputs) for name in names]
    metadata = {"general.type": "hessian", "imatrix.datasets": list(datasets), "hessian.tokens": np.uint32(tokens),
                "hessian.matrices": [name for name, _ in matrices],
                "hessian.sums": np.array([number for _, number in matrices], np.int32)}
    measured = iter(products)
    tensors = [TensorToWrite(names[0] + _SUFFIX, (k * (k + 1) // 2,), _F32, lambda: _packed(next(measured).sums))
               for names, k in inputs]
    write_gguf(path, metadata, tensors)


def _packed(sums: np.ndarray) -> np.ndarray:
    out, at = np.empty(len(sums) * (len(sums) + 1) // 2, "<f4"), 0
    for i, row in enumerate(sums):
        out[at : at + i + 1] = row[: i + 1]
        at += i + 1
    return out


def _width(values: np.ndarray) -> int:
    """Of a square whose lower triangle has so many values."""
    return math.isqrt(2 * len(values))


class Hessians:
    """The sums of a file, which is mapped: each is read when its matrix is due. A context manager."""

    def __init__(self, path: Path) -> None:
        """Raises LcpuError, naming the file, unless it is one of this kind."""
        self.path = path
        self._file = GGUFFile.open(path)
        self._kept: OrderedDict[str, Feedback] = OrderedDict()
        try:
            self.tensors = self._read_names()
        except BaseException:
            self._file.close()
            raise

    def _read_names(self) -> Mapping[str, str]:
        """The tensor of each matrix, by name."""
        metadata = self._file.metadata
        kind, names, sums = (metadata.get(key) for key in ("general.type", "hessian.matrices", "hessian.sums"))
        if kind != "hessian":
            what = "an importance matrix" if kind == "imatrix" else "another GGUF file"
            raise LcpuError(f"{self.path}: is not a Hessian but {what}: make one with `lcpu imatrix --hessian`")
        stored = [name for name, info in self._file.tensors.items() if name.endswith(_SUFFIX)
                  and info.type_name == "F32" and len(info.shape) == 1]
        if not (isinstance(names, list) and isinstance(sums, np.ndarray) and names and len(names) == len(sums)
                and sums.dtype.kind in "iu" and sums.min() >= 0 and sums.max() < len(stored)):
            raise LcpuError(f"{self.path}: does not say which matrices it is of: the file is damaged; make it again")
        tokens = metadata.get("hessian.tokens")
        self._tokens = tokens if isinstance(tokens, int) else 0
        return {name: stored[number] for name, number in zip(names, sums, strict=True)}

    def check(self, infos: Iterable[TensorInfo]) -> None:
        """Raises LcpuError if it is not of these tensors."""
        found = [info for info in infos if info.name in self.tensors]
        for info in found:
            k, values = info.shape[-1], self._file.tensors[self.tensors[info.name]].shape[0]
            if values != k * (k + 1) // 2:
                raise LcpuError(f"{self.path}: tensor {quoted(info.name)} has rows of {k} values, but the sums are not "
                                "of so many: take the Hessian of this model")
        if not found:
            raise LcpuError(f"{self.path}: has nothing for any tensor of this model: take the Hessian of this model")

    def feedback(self, name: str) -> Feedback:
        """Of a matrix that is in `tensors`. Raises LcpuError for sums of no products."""
        tensor = self.tensors[name]
        if tensor not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            try:
                self._kept[tensor] = self._feedback(tensor)
            except np.linalg.LinAlgError:
                raise LcpuError(f"{self.path}: tensor {quoted(tensor)} has values that are no sums of products: the "
                                "file is damaged; make it again") from None
            self._file.release(tensor)
        self._kept.move_to_end(tensor)
        return self._kept[tensor]

    def _feedback(self, tensor: str) -> Feedback:
        sums = self._unpacked(tensor)
        return feedback_of(sums, shrinkage=shrinkage(self._tokens, len(sums)))

    def _unpacked(self, tensor: str) -> np.ndarray:
        values, at = self._file.data(tensor).view("<f4"), 0
        out = np.zeros((_width(values), _width(values)), np.float32)
        for i, row in enumerate(out):
            row[: i + 1] = values[at : at + i + 1]
            at += i + 1
        return out

    def importance(self) -> ImportanceMatrix:
        """The sums of squares among them: an importance matrix for types that have no grid."""
        squares: dict[str, np.ndarray] = {}
        by_tensor: dict[str, np.ndarray] = {}
        for name, tensor in self.tensors.items():
            if tensor not in by_tensor:
                values = self._file.data(tensor).view("<f4")
                ends = np.cumsum(np.arange(1, _width(values) + 1)) - 1
                by_tensor[tensor] = np.maximum(values[ends], 0)
            squares[name] = by_tensor[tensor]
        datasets = self._file.metadata.get("imatrix.datasets", [])
        return ImportanceMatrix(self.path, squares, tuple(datasets) if isinstance(datasets, list) else ())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Hessians:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
