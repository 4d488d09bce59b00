"""Values to bytes: the blocks of each type, on all threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..engine.gguf_types import TENSOR_TYPES
from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS
from ..kernels.memory import zeros
from ..kernels.program import Program
from ..kernels.quantizing import PIECE, SCRATCH_BYTES, convert
from ..kernels.team import Team
from .source import as_float32
from .type_rules import TYPE_IDS, largest_magnitude
from .values import Values


class Encoder:
    """Makes the bytes of one tensor after the other."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._scratch = zeros((team.threads, SCRATCH_BYTES), np.uint8)

    def encode(self, name: str, values: Values, type_id: int, advance: Callable[[int], None]) -> np.ndarray:
        """The bytes of a tensor in a GGUF file: uint8 [nbytes]. advance(n) is told of every n of them.

        `name` is for errors: LcpuError for values that the type cannot hold.
        """
        type = TENSOR_TYPES[type_id]
        out = np.empty(type.nbytes(values.shape), np.uint8)
        row_bytes = (len(out) - type.tail_bytes) // values.shape[0]
        for start, stop in values.chunks():
            rows, target = values.rows(start, stop), out[start * row_bytes : stop * row_bytes]
            if values.dtype == type.name and not values.is_master:
                target[:] = np.ascontiguousarray(rows).view(np.uint8).ravel()
            elif type.name == "F32" and len(values.shape) == 1:  # too small for threads
                target[:] = as_float32(rows, values.dtype).view(np.uint8)
            elif not self._convert(rows, values, target, type_id):
                raise LcpuError(f"tensor {name} has values that are not finite, or too large for {type.name}: "
                                "take --type bf16, or the checkpoint is damaged")
            advance(len(target))
        if values.scale is not None and type.tail_bytes:
            out[-type.tail_bytes :] = np.frombuffer(np.float32(values.scale()).tobytes().ljust(32, b"\0"), np.uint8)
            advance(type.tail_bytes)
        values.release()
        return out

    def _convert(self, rows: np.ndarray, values: Values, target: np.ndarray, type_id: int) -> bool:
        """Fill `target` with blocks; whether all values were fit for them."""
        source, wanted = FORMATS[TYPE_IDS[values.dtype]], FORMATS[type_id]
        refused = np.zeros(1, np.int64)
        program = Program()
        program.add(
            convert, values=rows.size, source=np.require(rows, requirements=["C", "A"]), source_block=source.block,
            source_bytes=PIECE // source.block * source.block_bytes, source_scale=1.0, decode=source.decode.address,
            target=target, target_block=wanted.block, target_bytes=PIECE // wanted.block * wanted.block_bytes,
            encode=wanted.encode.address, unit=_unit(values), limit=largest_magnitude(type_id),
            scratch=self._scratch, refused=refused,
        )  # fmt: skip
        self._team.run(program.finish())
        return not refused[0]


def _unit(values: Values) -> float:
    """What rows are to be rounded to multiples of; 0 if they are not."""
    return values.scale() if values.scale is not None and values.is_master else 0.0
