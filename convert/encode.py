"""Values to bytes: the blocks of each type, on all threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine.gguf_types import TENSOR_TYPES
from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS
from ..kernels.memory import zeros
from ..kernels.program import Program
from ..kernels.quantizing import PIECE, SCRATCH_BYTES, compare, convert
from ..kernels.team import Team
from .source import as_float32
from .type_rules import TYPE_IDS, largest_magnitude
from .values import Values


class Encoder:
    """Makes the bytes of one tensor after the other."""

    def __init__(self, team: Team, measure: bool = False) -> None:
        """measure: find out how far weights that were quantized before get from their values."""
        self.errors: dict[str, float] = {}  # by name: root mean square error over root mean square of the values
        self._team, self._measure = team, measure
        self._scratch = zeros((team.threads, SCRATCH_BYTES), np.uint8)

    def encode(self, name: str, values: Values, type_id: int, advance: Callable[[int], None]) -> np.ndarray:
        """The bytes of a tensor in a GGUF file: uint8 [nbytes]. advance(n) is told of every n of them.

        `name` is for errors: LcpuError for values that the type cannot hold.
        """
        type, kept = TENSOR_TYPES[type_id], values.kept
        out = np.empty(type.nbytes(values.shape), np.uint8)
        row_bytes = (len(out) - type.tail_bytes) // values.shape[0]
        keeps = kept is not None and type.name in (*kept.types, *kept.near)
        is_measured = self._measure and kept is not None and not (type.name in kept.types and kept.is_exact)
        error = square = 0.0
        for start, stop in values.chunks():
            target = out[start * row_bytes : stop * row_bytes]
            rows = values.rows(start, stop) if is_measured or not keeps else None
            if keeps and kept is not None:
                target[:] = kept.rows(type.name, start, stop).ravel()
            elif rows is not None:
                self._fill(name, rows, values, target, type_id)
            if is_measured and rows is not None:
                off, size = self._compare(rows, target, type_id)
                error, square = error + off, square + size
            advance(len(target))
        if is_measured:
            self.errors[name] = math.sqrt(error / square) if square else 0.0
        if values.scale is not None and type.tail_bytes:
            out[-type.tail_bytes :] = np.frombuffer(np.float32(values.scale()).tobytes().ljust(32, b"\0"), np.uint8)
            advance(type.tail_bytes)
        values.release()
        return out

    def _fill(self, name: str, rows: np.ndarray, values: Values, target: np.ndarray, type_id: int) -> None:
        """Fill `target` with the bytes of rows."""
        type, is_fit = TENSOR_TYPES[type_id], True
        if values.dtype == type.name and not values.is_master:
            is_fit = values.kept is None or bool(np.isfinite(rows).all())  # what is computed is looked at
            target[:] = np.ascontiguousarray(rows).view(np.uint8).ravel()
        elif type.name == "F32" and len(values.shape) == 1:  # too small for threads
            target[:] = as_float32(rows, values.dtype).view(np.uint8)
        else:
            is_fit = self._convert(rows, values, target, type_id)
        if not is_fit:
            raise LcpuError(f"tensor {name} has values that are not finite, or too large for {type.name}: "
                            "take --type bf16, or the checkpoint is damaged")

    def _convert(self, rows: np.ndarray, values: Values, target: np.ndarray, type_id: int) -> bool:
        """Fill `target` with blocks; whether all values were fit for them."""
        wanted = FORMATS[type_id]
        refused = np.zeros(1, np.int64)
        program = Program()
        program.add(
            convert, **_read(rows, TYPE_IDS[values.dtype]),
            target=target, target_block=wanted.block, target_bytes=PIECE // wanted.block * wanted.block_bytes,
            encode=wanted.encode.address, unit=_unit(values), limit=largest_magnitude(type_id),
            scratch=self._scratch, refused=refused,
        )  # fmt: skip
        self._team.run(program.finish())
        return not refused[0]

    def _compare(self, rows: np.ndarray, target: np.ndarray, type_id: int) -> tuple[float, float]:
        """The sum of squared differences between float32 rows and their blocks, and that of the squares of rows."""
        made = FORMATS[type_id]
        errors, squares = (np.zeros(-(-rows.size // PIECE), np.float32) for _ in range(2))
        program = Program()
        program.add(
            compare, **_read(rows, TYPE_IDS["F32"]),
            target=target, target_block=made.block, target_bytes=PIECE // made.block * made.block_bytes,
            target_scale=1.0, decode_target=made.decode.address, scratch=self._scratch, errors=errors, squares=squares,
        )  # fmt: skip
        self._team.run(program.finish())
        return float(errors.sum(dtype=np.float64)), float(squares.sum(dtype=np.float64))


def _read(rows: np.ndarray, type_id: int) -> dict[str, Any]:
    """The operands of kernels.quantizing that tell what is read."""
    source = FORMATS[type_id]
    return {"values": rows.size, "source": np.require(rows, requirements=["C", "A"]), "source_block": source.block,
            "source_bytes": PIECE // source.block * source.block_bytes, "source_scale": 1.0,
            "decode": source.decode.address}


def _unit(values: Values) -> float:
    """What rows are to be rounded to multiples of; 0 if they are not."""
    return values.scale() if values.scale is not None and values.is_master else 0.0
