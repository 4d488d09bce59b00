"""The tensors of a file as an architecture names them: checked, and cut out of fused ones."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS, Format
from ..kernels.matmul import whole_groups
from ..kernels.simd import LANES
from .gguf_file import GGUFFile
from .gguf_types import TENSOR_TYPES

_LOG = logging.getLogger("lcpu")
_NUMBERS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True)
class Part:
    """Rows of a tensor, most often all of them: `first` is the first one, `rows` how many the tensor has."""

    tensor: str  # its name in the file
    first: int
    rows: int


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight [rows][k] in panels, or one for each expert, and the rows of tensors that it is packed from."""

    name: str
    parts: tuple[Part, ...]  # of tensors in the file: one, or one for each expert
    stored: Format  # in the file
    format: Format  # in the panels
    rows: int
    k: int
    panels: np.ndarray = field(repr=False)  # uint8 [experts * panels][blocks * panel block bytes]
    scales: np.ndarray | None = None  # float32 [parts]: what multiplies each, from tensors of their own

    @property
    def blocks(self) -> int:
        return self.k // self.format.block


def role(name: str) -> str:
    """What a tensor is in its layer: "ffn_up" for "blk.0.ffn_up.weight"."""
    return name.removesuffix(".weight").rsplit(".", 1)[-1]


class Tensors:
    """Looks tensors up by the names that an architecture has for them."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self._noted = False
        self._parts: dict[str, Part] = {}  # of fused tensors, by the names of those that they stand for

    def has(self, name: str) -> bool:
        return name in self._file.tensors or name in self._parts

    def split(self, fused: str, outputs: list[tuple[str, int]]) -> None:
        """Where the file has the tensors `fused` instead of the `outputs`, take these from its rows, in order.

        Names are without ".weight" and ".bias"; widths are numbers of rows. One of the outputs may be named like
        `fused`: then it is a part of that.
        """
        total = sum(width for _, width in outputs)
        for kind in (".weight", ".bias", ".scale"):
            first = 0
            for name, width in outputs:
                if fused + kind in self._file.tensors and (name == fused or name + kind not in self._file.tensors):
                    self._parts[name + kind] = Part(fused + kind, first, total)
                first += width

    def part(self, name: str, rows: int) -> Part:
        """Where the `rows` rows of a tensor are."""
        return self._parts.get(name) or Part(name, 0, rows)

    def _check_shape(self, name: str, *shape: int) -> None:
        """Raises LcpuError unless the file has a tensor of this shape."""
        if name not in self._file.tensors:
            raise LcpuError(f"{self._file.path}: tensor '{name}' is missing: damaged; download the file again")
        info = self._file.tensors[name]
        if _without_ones(info.shape) != _without_ones(shape):
            raise LcpuError(f"{self._file.path}: tensor '{name}' has the shape {_shown(info.shape)}, "
                            f"but the hyperparameters say {_shown(shape)}: damaged; download the file again")
        if info.shape != shape and not self._noted:
            self._noted = True  # one note is enough: such files are so throughout
            _LOG.info("%s: tensors have dimensions of 1 more or less than expected, which means nothing: '%s' has the "
                      "shape %s and is read as %s", self._file.path, name, _shown(info.shape), _shown(shape))

    def check(self, name: str, *shape: int) -> Format:
        """The block format of a tensor of the file, which must have this shape. Raises LcpuError."""
        self._check_shape(name, *shape)
        info = self._file.tensors[name]
        if info.type_id not in FORMATS:
            known = ", ".join(f.name.upper() for f in FORMATS.values())
            cause = f"which lcpu cannot compute on; it knows {known}"
            if successor := TENSOR_TYPES[info.type_id].successor:
                cause = f"a type that llama.cpp has dropped: get a {successor} file of this model instead"
            raise LcpuError(f"{self._file.path}: tensor '{name}' is {info.type_name}, {cause}")
        return FORMATS[info.type_id]

    def matrix(self, name: str, rows: int, k: int, experts: int = 0) -> tuple[tuple[Part, ...], Format]:
        """Where a matrix [rows][k] is, or the matrices of all experts, and their block format. Raises LcpuError.

        Experts are stacked in one tensor, "blk.0.ffn_up_exps.weight"; in older files each has its own,
        "blk.0.ffn_up.0.weight".
        """
        part = self.part(name, rows)
        if not experts:
            return (part,), self.check(part.tensor, part.rows, k)
        single = name.replace("_exps.", ".{}.")
        if not self.has(name) and self.has(single.format(0)):
            parts = tuple(Part(single.format(expert), 0, rows) for expert in range(experts))
            formats = [self.check(each.tensor, rows, k) for each in parts]
            other = next((i for i in range(experts) if formats[i] is not formats[0]), None)
            if other is not None:
                raise LcpuError(f"{self._file.path}: tensor '{parts[other].tensor}' is {formats[other].name.upper()}, "
                                f"but '{parts[0].tensor}' is {formats[0].name.upper()}: all experts must have one "
                                "type; convert the model again")
            return parts, formats[0]
        stored = self.check(part.tensor, experts, part.rows, k)
        return tuple(Part(part.tensor, part.first + expert * part.rows, experts * part.rows)
                     for expert in range(experts)), stored

    def can_scale(self, name: str, rows: int, k: int, experts: int) -> bool:
        """Whether panels of a matrix's type have a place for its scale."""
        return bool(self.matrix(name, rows, k, experts)[1].panel_header_bytes)

    def scales(self, parts: tuple[Part, ...], format: Format) -> np.ndarray | None:
        """What multiplies each part of a matrix: float32 [parts]. None where the file has no such tensor.

        "blk.0.attn_q.scale" has one number for "blk.0.attn_q.weight", or one for each expert. Raises LcpuError where
        panels of `format` have no place for it.
        """
        out = np.ones(len(parts), np.float32)
        names = [f"{part.tensor.removesuffix('.weight')}.scale" for part in parts]
        for i, name in enumerate(names):
            if name not in self._file.tensors:
                continue
            if not format.panel_header_bytes:
                raise LcpuError(f"{self._file.path}: tensor '{name}' multiplies a matrix of type "
                                f"{format.name.upper()}, which lcpu does not do")
            count = 1 if math.prod(self._file.tensors[name].shape) == 1 else len(parts)
            self._check_shape(name, count)
            out[i] = self._numbers(name)[i if count > 1 else 0]
        return out if any(name in self._file.tensors for name in names) else None

    def vector(self, name: str, width: int) -> np.ndarray:
        """A tensor of one dimension as float32, padded with zeros to whole vectors. Raises LcpuError."""
        return self.vectors(name, width)[0]

    def flat(self, name: str, *shape: int) -> np.ndarray:
        """All numbers of a tensor of this shape, float32. Raises LcpuError."""
        self._check_shape(name, *shape)
        return self._numbers(name).reshape(-1)

    def vectors(self, name: str, width: int, experts: int = 0) -> np.ndarray:
        """A vector of each expert, or one: float32 [experts or 1][width padded to whole vectors]. Raises LcpuError."""
        part = self.part(name, width)
        self._check_shape(part.tensor, *([experts] if experts else []), part.rows)
        values = self._numbers(part.tensor)
        out = np.zeros((experts or 1, padded(width)), np.float32)
        out[:, :width] = values.reshape(len(out), part.rows)[:, part.first : part.first + width]
        return out

    def _numbers(self, name: str) -> np.ndarray:
        """All numbers of a tensor as float32. Raises LcpuError for a type of blocks."""
        kind, data = self._file.tensors[name].type_name, self._file.data(name)
        if kind == "BF16":
            return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        if kind not in _NUMBERS:
            raise LcpuError(f"{self._file.path}: tensor '{name}' is {kind}, but norms, biases and scales must be "
                            "numbers: F32, F16, BF16, F64 or integers")
        return data.view(_NUMBERS[kind]).astype(np.float32)


def has_tail(format: Format) -> bool:
    """Whether the blocks of a format have no scale: it is behind the last one of a tensor."""
    return TENSOR_TYPES[format.type_id].tail_bytes > 0


def padded(width: int) -> int:
    """How many values a row of activations takes: whole groups of vectors."""
    return whole_groups(width) * LANES


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the dimensions of 1 in front, which are the last ones in a file and mean nothing."""
    first = next((i for i, size in enumerate(shape) if size > 1), len(shape))
    return shape[first:]


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
