"""What a model's matrices are multiplied with: the sums of its squares, added up while the model runs.

Only a program that is built for it has these instructions. They come right before the products of the same input and
need no barrier of their own: threads that have none of their work go on to the products.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.program import Program
from ..kernels.squares import add_expert_squares, add_squares
from .rows import Rows
from .tensors import Matrix, padded

# Of the matrices in layers, and of the output layer, which may be the embedding: where rows are looked up, nothing is
# multiplied.
_MEASURED = ("blk.", "output.weight", "token_embd.weight")

Buffer = Callable[[str, int, int], np.ndarray]  # name, bytes of a row, rows: `Builder.buffer`


@dataclass(frozen=True)
class Squares:
    """Of one tensor: float64 [matrices][k], sums of squares by column, and int64 [matrices], rows that were added."""

    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class _Input:
    """A value that is measured once for all matrices that it is multiplied with."""

    sums: np.ndarray  # float32 [matrices][2][width in whole vectors]
    counts: np.ndarray  # int64 [matrices]
    width: int
    matrices: list[Matrix]
    at: int  # the number of the instruction that adds them up
    array: np.ndarray  # x's


@dataclass(frozen=True)
class Point:
    """A place in the program where an input that all tokens have is complete."""

    at: int  # the number of the next instruction
    tensors: tuple[str, ...]  # what it is multiplied with
    width: int
    array: np.ndarray  # float32 [capacity][width padded]
    count: int  # address of the number of rows

    @property
    def nbytes(self) -> int:
        return 4 * self.width**2

    @property
    def is_attended(self) -> bool:
        """Whether keys or values of attention are made of it."""
        return any(re.search(r"\.attn_(k|v|qkv|kv_[ab]\w*)\.weight$", name) for name in self.tensors)

    def rows(self) -> np.ndarray:
        """Those of the last step: a view, float32 [rows][width]."""
        return self.array[: _count_at(self.count), : self.width]


def not_numbers(tensor: str) -> LcpuError:
    """What to raise where sums of a tensor's inputs are not finite."""
    return LcpuError(f"what tensor '{tensor}' is multiplied with is not numbers, or far too large: the model's file is "
                     "damaged; download it again")


def _count_at(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


class InputSquares:
    """Records the instructions in a program, and has the sums."""

    def __init__(self, program: Program, buffer: Buffer) -> None:
        self._program, self._buffer = program, buffer
        self._inputs: dict[tuple[Rows, int], _Input] = {}

    def add(self, x: Rows, matrices: Sequence[Matrix]) -> None:
        """Measure the input of matrices that all tokens have. To be called before their products are recorded."""
        new = self._new_input(x, matrices, 0)
        if new:
            self._program.add(add_squares, barrier=False, count=x.count, x=x.array, stride=x.stride, vectors=x.vectors,
                              sums=new.sums, sums_bytes=new.sums.strides[1], counts=new.counts)

    def add_experts(self, x: Rows, matrices: Sequence[Matrix], groups: np.ndarray, rows: np.ndarray | None) -> None:
        """Measure what goes to each expert. x: rows of `groups`; or with `rows`, of tokens."""
        new = self._new_input(x, matrices, len(matrices[0].parts))
        if new:
            self._program.add(add_expert_squares, barrier=False, groups=groups, rows=0 if rows is None else rows,
                              x=x.array, stride=x.stride, vectors=x.vectors, sums=new.sums,
                              sums_bytes=new.sums.strides[1], counts=new.counts)

    def _new_input(self, x: Rows, matrices: Sequence[Matrix], experts: int) -> _Input | None:
        """Where sums of x go; None if it is measured already, or not wanted."""
        wanted = [matrix for matrix in matrices if matrix.name.startswith(_MEASURED)]
        if not wanted:
            return None
        if (x, experts) in self._inputs:
            self._inputs[x, experts].matrices.extend(wanted)
            return None
        count, name = experts or 1, wanted[0].name
        sums = self._buffer(f"squares of {name}", 8 * padded(x.width), count).view(np.float32)
        counts = self._buffer(f"rows of {name}", 8, count).view(np.int64)
        new = _Input(sums.reshape(count, 2, -1), counts.reshape(count), x.width, wanted,
                     len(self._program.instructions), x.array)
        self._inputs[x, experts] = new
        return new

    def points(self) -> list[Point]:
        """Where inputs are complete that all tokens have: not those of experts. In the program's order."""
        found = []
        for (x, experts), each in self._inputs.items():
            tensors = dict.fromkeys(part.tensor for matrix in each.matrices for part in matrix.parts)
            if not experts:
                found.append(Point(each.at, tuple(tensors), x.width, each.array, x.count))
        return found

    def by_tensor(self) -> dict[str, Squares]:
        """What was added up so far, by the names that tensors have in the file."""
        found = {}
        for each in self._inputs.values():
            sums = each.sums[:, :, : each.width].sum(axis=1, dtype=np.float64)
            for matrix in each.matrices:
                for tensor in dict.fromkeys(part.tensor for part in matrix.parts):
                    own = [i for i, part in enumerate(matrix.parts) if part.tensor == tensor]
                    found[tensor] = Squares(sums[own], each.counts[own])
        return found
