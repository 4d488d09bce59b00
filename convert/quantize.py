"""Quantize a GGUF file: tensor by tensor from the mapped input to the output, on all threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.gguf_file import GGUFFile, TensorInfo
from ..engine.gguf_metadata import Metadata
from ..engine.gguf_types import BOOL, STRING, TENSOR_TYPES, UINT32, VALUE_DTYPES
from ..engine.threads import thread_count
from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS, Format
from ..kernels.formats.i2_s import LEAST
from ..kernels.jit import Kernel, address_of, announcing
from ..kernels.memory import zeros
from ..kernels.program import Program
from ..kernels.quantizing import PIECE, SCRATCH_BYTES, compare, convert, convert_weighted, survey
from ..kernels.team import Team
from .error_feedback import quantize_rows
from .gguf_writer import TensorToWrite, write_gguf
from .hessian import Hessians
from .imatrix import ImportanceMatrix
from .output import check_free, check_space
from .type_rules import TYPE_IDS, largest_magnitude

Progress = Callable[[str, int, int], None]

_F32, _BF16, _F64, _I2_S = (TYPE_IDS[name] for name in ("F32", "BF16", "F64", "I2_S"))
_FLOATS = (_F32, _BF16, _F64, TYPE_IDS["F16"])
_TERNARY = (_I2_S, TYPE_IDS["TQ1_0"], TYPE_IDS["TQ2_0"])
_SLICE = 512 * PIECE  # values between two looks at progress and Ctrl-C: some milliseconds
_SPREAD = 1e-3  # how far apart, relatively, the magnitudes of ternary weights may be
_LEAST_MEAN = 1e-5  # BitNet's
_FEEDBACK_BYTES = 256 << 20  # of values that are in memory at once, for error feedback
_QUANTIZATION_VERSION = 2  # ggml's


@dataclass(frozen=True)
class Quantized:
    """What became of a tensor."""

    name: str
    values: int
    old_type: int
    new_type: int
    old_bytes: int
    new_bytes: int
    error: float | None = None  # root mean square of the differences, where they were measured
    relative_error: float | None = None  # that, over the root mean square of the values


@dataclass(frozen=True)
class _Blocks:
    """A tensor's data, and how to read it."""

    data: np.ndarray
    format: Format
    scale: float = 1.0  # of the whole tensor

    @property
    def piece_bytes(self) -> int:
        return PIECE // self.format.block * self.format.block_bytes

    def part(self, first: int, values: int) -> _Blocks:
        """So many values from a `first` on: whole blocks."""
        start, end = (count // self.format.block * self.format.block_bytes for count in (first, first + values))
        return replace(self, data=self.data.view(np.uint8)[start:end])


def quantized_again(file: GGUFFile, types: Mapping[str, int]) -> list[str]:
    """Names of the tensors that are quantized already and would be so in another way."""
    return [info.name for info in file.tensors.values()
            if info.type_id not in _FLOATS and types[info.name] not in (info.type_id, *_FLOATS)]


def quantize(
    file: GGUFFile, out: Path, types: Mapping[str, int], file_type: int | None, *, threads: int | None = None,
    imatrix: ImportanceMatrix | None = None, hessians: Hessians | None = None, ternarize: bool = False,
    check: bool = False, force: bool = False, progress: Progress | None = None,
) -> list[Quantized]:
    """Write `out` with each tensor of `file` in its type of `types`, in the order of `file`.

    file_type: general.file_type, or None to leave the metadata as they are. imatrix: which errors count more.
    hessians: what columns make up for errors of others, for tensors that it has and types that have a grid.
    ternarize: weights that become ternary are first rounded to -m, 0 and m, where m is the mean of their magnitudes,
    unless they are like that already; without it, I2_S takes no others. check: measure errors.
    force: overwrite `out`. Memory is bounded by the largest tensor.

    Raises LcpuError where something cannot be read, converted or written; then `out` is as it was.
    """
    infos = file.tensors.values()
    check_free(out, force)
    check_space(out, sum(TENSOR_TYPES[types[info.name]].nbytes(info.shape) for info in infos))
    for info in infos:
        if types[info.name] != info.type_id and info.type_id not in (*FORMATS, _F64):
            raise LcpuError(f"{file.path}: tensor '{info.name}' is {info.type_name}, which lcpu cannot dequantize: "
                            "take the model in another type")
    progress = progress or (lambda stage, done, total: None)
    count = thread_count(threads, sum(info.nbytes for info in infos))
    with announcing(lambda name: progress("compiling", 0, 0)), Team(count) as team:
        work = _Work(file, types, team, imatrix, hessians, ternarize, check, progress)
        tensors = [TensorToWrite(info.name, info.shape, types[info.name], partial(work.tensor, info))
                   for info in infos]
        metadata = _metadata(file, file_type) | (imatrix.metadata() if imatrix else {})
        write_gguf(out, metadata, tensors, lambda part: GGUFFile.open(part).close())
    return work.results


def _metadata(file: GGUFFile, file_type: int | None) -> dict[str, object]:
    """The input's metadata in their exact types, without what tells that it was split."""
    assert isinstance(file.metadata, Metadata)
    kept: dict[str, object] = {}
    for key, field in file.metadata.fields.items():
        value = file.metadata[key]
        if field.length is None and field.type_id not in (STRING, BOOL, UINT32):
            value = VALUE_DTYPES[field.type_id].type(value)
        if not key.startswith("split."):
            kept[key] = value
    if file_type is None:
        return kept
    return kept | {"general.quantization_version": _QUANTIZATION_VERSION, "general.file_type": file_type}


class _Work:
    """What all tensors share: threads, memory, and the list of what was done."""

    def __init__(self, file: GGUFFile, types: Mapping[str, int], team: Team, imatrix: ImportanceMatrix | None,
                 hessians: Hessians | None, ternarize: bool, check: bool, progress: Progress) -> None:
        self.file, self.types, self.team, self.imatrix, self.hessians = file, types, team, imatrix, hessians
        self.ternarize, self.check = ternarize, check
        self.results: list[Quantized] = []
        self._progress = progress
        self._total = sum(info.nbytes for info in file.tensors.values())
        self._done = 0  # bytes of the input
        self._scratch = zeros((team.threads, SCRATCH_BYTES), np.uint8)
        changed = [info for info in file.tensors.values() if types[info.name] != info.type_id]
        self._out = zeros((max((self._new_bytes(info) for info in changed), default=0),), np.uint8)

    def _new_bytes(self, info: TensorInfo) -> int:
        return TENSOR_TYPES[self.types[info.name]].nbytes(info.shape)

    def tensor(self, info: TensorInfo) -> np.ndarray:
        """The bytes of a tensor in its new type: a view that the next tensor overwrites."""
        new_type, values = self.types[info.name], math.prod(info.shape)
        error = relative = None
        if new_type == info.type_id:
            data = self.file.data(info.name)
        else:
            source = self._source(info)
            data = self._out[: self._new_bytes(info)]
            target = self._convert(info, source, data)
            if self.check:
                error, relative = self._errors(source, target, values)
            self.file.release(info.name)
        self._done += info.nbytes
        self._progress("quantizing", self._done, self._total)
        self.results.append(
            Quantized(info.name, values, info.type_id, new_type, info.nbytes, len(data), error, relative)
        )
        return data

    def _source(self, info: TensorInfo) -> _Blocks:
        data = self.file.data(info.name)
        if info.type_id == _F64:
            return _Blocks(data.view("<f8").astype(np.float32), FORMATS[_F32])
        scale = float(data[-32:-28].view("<f4")[0]) if info.type_id == _I2_S else 1.0
        return _Blocks(data, FORMATS[info.type_id], scale)

    def _convert(self, info: TensorInfo, source: _Blocks, data: np.ndarray) -> _Blocks:
        """Fill `data` with the blocks of a tensor's new type."""
        new_type, values = self.types[info.name], math.prod(info.shape)
        unit, scale = 0.0, 1.0
        if new_type == _I2_S or (self.ternarize and new_type in _TERNARY):
            unit, scale = self._ternary_scale(info, source, values)
        if new_type == _I2_S:
            data[-32:] = np.frombuffer(np.float32(scale).tobytes().ljust(32, b"\0"), np.uint8)
        target = _Blocks(data, FORMATS[new_type], scale if new_type == _I2_S else 1.0)
        refused = np.zeros(1, np.int64)
        fixed = {"target_bytes": target.piece_bytes, "target_block": target.format.block,
                 "limit": largest_magnitude(new_type), "refused": refused}
        importance = self.imatrix.of(info) if self.imatrix and target.format.weighted_encoder else None
        if self.hessians and info.name in self.hessians.tensors and target.format.sweep and len(info.shape) == 2:
            self._convert_with_feedback(info, source, target, fixed)
        elif importance is not None:
            self._convert_weighted(info, source, target, importance, fixed)
        else:
            self._run(convert, values, info.nbytes, source, {"target": (data, target.piece_bytes)},
                      encode=target.format.encode.address, unit=unit, **fixed)
        if refused[0]:
            raise LcpuError(f"{self.file.path}: tensor '{info.name}' has values that are not finite, or too large for "
                            f"{TENSOR_TYPES[new_type].name}: the file is damaged, or take --tensor-type "
                            f"'{info.name}=bf16'")
        return target

    def _convert_with_feedback(self, info: TensorInfo, source: _Blocks, target: _Blocks, fixed: Mapping[str, Any]
                               ) -> None:
        """Some rows at a time, as float32 values."""
        assert self.hessians is not None
        rows, columns = info.shape
        feedback = self.hessians.feedback(info.name)
        row_bytes = columns // target.format.block * target.format.block_bytes
        most = max(1, _FEEDBACK_BYTES // (4 * columns))
        to_floats = {**fixed, "target_bytes": 4 * PIECE, "target_block": 1}
        for first in range(0, rows, most):
            count = min(most, rows - first)
            weights = np.empty((count, columns), np.float32)
            self._run(convert, count * columns, 0, source.part(first * columns, count * columns),
                      {"target": (weights, 4 * PIECE)}, encode=FORMATS[_F32].encode.address, unit=0.0, **to_floats)
            out = target.data[first * row_bytes : (first + count) * row_bytes].reshape(count, row_bytes)

            def told(done: int, first: int = first, count: int = count) -> None:
                share = (first + count * done / columns) / rows
                self._progress("quantizing", self._done + int(info.nbytes * share), self._total)

            quantize_rows(self.team, weights, feedback, target.format, out, told)

    def _convert_weighted(self, info: TensorInfo, source: _Blocks, target: _Blocks, importance: np.ndarray,
                          fixed: Mapping[str, Any]) -> None:
        """Each matrix of a stack has a row of weights: importance is float32 [matrices, row length]."""
        assert target.format.weighted_encoder is not None
        matrices, columns = importance.shape
        values = math.prod(info.shape) // matrices
        for matrix, row in enumerate(importance):
            old, new = (blocks.part(matrix * values, values) for blocks in (source, target))
            self._run(convert_weighted, values, info.nbytes if matrices == 1 else 0, old,
                      {"target": (new.data, new.piece_bytes), "first": (0, PIECE)},
                      encode=target.format.weighted_encoder.address, importance=row, columns=columns, **fixed)

    def _ternary_scale(self, info: TensorInfo, source: _Blocks, values: int) -> tuple[float, float]:
        """The unit to round a tensor to, or 0 where it is ternary already, and the scale that it then has."""
        pieces = -(-values // PIECE)
        highest, lowest, sums = (np.zeros(count, np.float32) for count in (pieces, pieces, 2 * pieces))
        self._run(survey, values, 0, source, {"highest": (highest, 4), "lowest": (lowest, 4), "sums": (sums, 8)},
                  zero=LEAST)
        top, bottom = float(highest.max()), float(lowest.min())
        if bottom >= top * (1 - _SPREAD):
            return 0.0, top
        if not self.ternarize:
            raise LcpuError(f"{self.file.path}: tensor '{info.name}' is not ternary: its magnitudes go from "
                            f"{bottom:.3g} to {top:.3g}; --ternarize absmean rounds them")
        mean = max(_LEAST_MEAN, float(sums.sum(dtype=np.float64)) / values)
        return mean, mean

    def _errors(self, source: _Blocks, target: _Blocks, values: int) -> tuple[float, float]:
        pieces = -(-values // PIECE)
        errors, squares = (np.zeros(pieces, np.float32) for _ in range(2))
        self._run(compare, values, 0, source,
                  {"target": (target.data, target.piece_bytes), "errors": (errors, 4), "squares": (squares, 4)},
                  target_bytes=target.piece_bytes, target_block=target.format.block, target_scale=target.scale,
                  decode_target=target.format.decode.address)
        error, square = (math.sqrt(sums.sum(dtype=np.float64) / values) for sums in (errors, squares))
        return error, error / square if square else 0.0

    def _run(self, kernel: Kernel, values: int, nbytes: int, source: _Blocks, moving: Mapping[str, tuple[Any, int]],
             **fixed: Any) -> None:
        """Execute a kernel of kernels.quantizing slice by slice: `moving` arrays have so many bytes for each piece.

        A number there grows by so much.
        """
        moving = {**moving, "source": (source.data, source.piece_bytes)}
        for start in range(0, values, _SLICE):
            piece = start // PIECE
            here: dict[str, Any] = {name: (array if isinstance(array, int) else address_of(array)) + piece * step
                                    for name, (array, step) in moving.items()}
            program = Program()
            program.add(kernel, values=min(_SLICE, values - start), source_bytes=source.piece_bytes,
                        source_block=source.format.block, source_scale=source.scale,
                        decode=source.format.decode.address, scratch=self._scratch, **here, **fixed)
            self.team.run(program.finish())
            self._progress("quantizing", self._done + nbytes * start // values, self._total)
