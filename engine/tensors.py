"""The tensors of a file as an architecture names them: checked, and cut out of fused ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS, Format
from ..kernels.matmul import whole_groups
from ..kernels.simd import LANES
from .gguf_file import GGUFFile
from .gguf_types import TENSOR_TYPES

_LOG = logging.getLogger("lcpu")


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

        Names are without ".weight" and ".bias"; widths are numbers of rows.
        """
        total = sum(width for _, width in outputs)
        for kind in (".weight", ".bias", ".scale"):
            first = 0
            for name, width in outputs:
                if fused + kind in self._file.tensors and name + kind not in self._file.tensors:
                    self._parts[name + kind] = Part(fused + kind, first, total)
                first += width

    def part(self, name: str, rows: int) -> Part:
        """Where the `rows` rows of a tensor are."""
        return self._parts.get(name) or Part(name, 0, rows)

    def check(self, name: str, *shape: int) -> Format:
        """The block format of a tensor of the file, which must have this shape. Raises LcpuError."""
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

    def refuse_scale(self, name: str) -> None:
        """Raises LcpuError where a matrix, named without ".weight", has a scale in a tensor of its own."""
        if self.has(f"{name}.scale"):
            raise LcpuError(f"{self._file.path}: tensor '{name}.scale' multiplies a matrix, which lcpu does not do")

    def vector(self, name: str, width: int) -> np.ndarray:
        """A tensor of one dimension as float32, padded with zeros to whole vectors. Raises LcpuError."""
        return self.vectors(name, width)[0]

    def vectors(self, name: str, width: int, experts: int = 0) -> np.ndarray:
        """A vector of each expert, or one: float32 [experts or 1][width padded to whole vectors]. Raises LcpuError."""
        part = self.part(name, width)
        format = self.check(part.tensor, *([experts] if experts else []), part.rows)
        if format.name not in ("f32", "f16"):
            raise LcpuError(f"{self._file.path}: tensor '{part.tensor}' is {format.name.upper()}, "
                            "but norms and biases must be F32 or F16")
        values = self._file.data(part.tensor).view({"f32": np.float32, "f16": np.float16}[format.name])
        out = np.zeros((experts or 1, padded(width)), np.float32)
        out[:, :width] = values.reshape(len(out), part.rows)[:, part.first : part.first + width]
        return out


def padded(width: int) -> int:
    """How many values a row of activations takes: whole groups of vectors."""
    return whole_groups(width) * LANES


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the dimensions of 1 in front, which are the last ones in a file and mean nothing."""
    first = next((i for i, size in enumerate(shape) if size > 1), len(shape))
    return shape[first:]


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
