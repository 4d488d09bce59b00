"""Pack the rows of a tensor into panels, and convert them to another block format if that is requested."""

from __future__ import annotations

import numpy as np

from ..kernels.activations import Int8Rows
from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS, Format
from ..kernels.memory import zeros
from ..kernels.program import Program
from ..kernels.quantizing import PIECE, SCRATCH_BYTES, convert
from ..kernels.simd import LANES
from ..kernels.team import Team
from .gguf_file import GGUFFile
from .tensors import Matrix, Part

_CHUNK = 64  # panels that are converted at a time: their memory is small compared with a model's
_LARGEST = 65519.0  # larger values would round to infinity in float16


def output_format(name: str | None) -> Format | None:
    """The format of the output layer by its name; None for "keep", which is the file's own format.

    Raises LcpuError for an unknown name.
    """
    by_name = {format.name: format for format in FORMATS.values() if not isinstance(format.activation, Int8Rows)}
    if name is None or name.lower() == "keep":
        return None
    if name.lower() not in by_name:
        raise LcpuError(f"output type {name!r} is unknown: choose one of keep, {', '.join(by_name)}")
    return by_name[name.lower()]


def pack(team: Team, matrix: Matrix, file: GGUFFile) -> None:
    """Fill a matrix's panels from the tensors that hold its rows, and give back their memory."""
    program = Program()
    tensor, data = "", np.zeros(0, np.uint8)
    scales = np.ones(len(matrix.parts), np.float32) if matrix.scales is None else matrix.scales
    every_panels = np.split(matrix.panels, len(matrix.parts))
    for part, panels, scale in zip(matrix.parts, every_panels, scales, strict=True):
        if part.tensor != tensor:
            tensor, data = part.tensor, file.data(part.tensor)
        rows = _rows(matrix, part, data)
        if matrix.format is not matrix.stored:
            _convert(team, matrix, rows, float(scale), panels)
            continue
        program.add(matrix.format.pack, barrier=False, source=rows, panels=panels, rows=matrix.rows,
                    blocks=matrix.blocks, block_bytes=matrix.format.block_bytes)
    team.run(program.finish())
    if matrix.scales is not None and matrix.format is matrix.stored:
        for panels, scale in zip(every_panels, scales, strict=True):
            panels[:, : LANES * matrix.format.panel_header_bytes].view(np.float32)[:] *= scale
    for tensor in {part.tensor for part in matrix.parts}:
        file.release(tensor)


def _rows(matrix: Matrix, part: Part, data: np.ndarray) -> np.ndarray:
    """The bytes of a part of a tensor, and what follows the last row of the tensor (the scale of I2_S)."""
    row_bytes = matrix.k // matrix.stored.block * matrix.stored.block_bytes
    start, end = part.first * row_bytes, (part.first + matrix.rows) * row_bytes
    last = part.rows * row_bytes
    if end == last:
        return data[start:]
    rows, tail = data[start:end], data[last:]
    return np.concatenate((rows, tail)) if len(tail) else rows


def _convert(team: Team, matrix: Matrix, data: np.ndarray, scale: float, panels: np.ndarray) -> None:
    row_bytes = matrix.k // matrix.format.block * matrix.format.block_bytes
    converted = zeros((_CHUNK * LANES, row_bytes), np.uint8)
    scratch = np.zeros((team.threads, SCRATCH_BYTES), np.uint8)
    refused = np.zeros(1, np.int64)
    stored = data.reshape(matrix.rows, -1)
    for panel in range(0, -(-matrix.rows // LANES), _CHUNK):
        rows = stored[panel * LANES : (panel + _CHUNK) * LANES]
        team.run(_converting(matrix, rows, scale, converted, panels[panel:], scratch, refused))
        if refused[0]:
            raise LcpuError(f"tensor '{matrix.name}' has values that {matrix.format.name.upper()} cannot hold: "
                            "keep its type (without --output-type)")


def _converting(matrix: Matrix, rows: np.ndarray, scale: float, converted: np.ndarray, panels: np.ndarray,
                scratch: np.ndarray, refused: np.ndarray) -> Program:
    old, new = matrix.stored, matrix.format
    program = Program()
    program.add(convert, values=len(rows) * matrix.k, source=rows, source_bytes=PIECE // old.block * old.block_bytes,
                source_block=old.block, source_scale=scale, decode=old.decode.address, target=converted,
                target_bytes=PIECE // new.block * new.block_bytes, target_block=new.block, encode=new.encode.address,
                unit=0.0, limit=_LARGEST, scratch=scratch, refused=refused)
    program.add(new.pack, source=converted, panels=panels, rows=len(rows), blocks=matrix.blocks,
                block_bytes=new.block_bytes)
    return program.finish()
