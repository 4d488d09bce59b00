"""Read safetensors files: uint64 length of the header, the header in JSON, then the values of all tensors.

Format: https://github.com/huggingface/safetensors. The file is mapped, so that nothing is read before it is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..kernels.errors import LcpuError
from .source import DTYPES, MappedFile, SourceTensor

_LARGEST_HEADER = 100_000_000  # bytes, as in the reference implementation


def open_safetensors(path: Path) -> tuple[MappedFile, dict[str, SourceTensor]]:
    """The tensors of a file, which is to be closed after use. Raises LcpuError for a damaged file."""
    file = MappedFile(path)
    length = int.from_bytes(file.buffer[:8], "little")
    if file.size < 8 or length > min(file.size - 8, _LARGEST_HEADER):
        raise LcpuError(f"{path}: is not a safetensors file, or not all of it: download it again")
    try:
        header = json.loads(file.buffer[8 : 8 + length].decode())
    except (ValueError, RecursionError):
        raise LcpuError(f"{path}: the header is not JSON: damaged; download it again") from None
    if not isinstance(header, dict):
        raise LcpuError(f"{path}: the header is not a JSON object: damaged; download it again")
    tensors = tensors_of(header, str(path), file, 8 + length)
    return file, tensors


def tensors_of(header: Mapping[str, Any], source: str, file: MappedFile | None, start: int) -> dict[str, SourceTensor]:
    """The tensors that a header describes, their values from byte `start` of the file on.

    `source` names it in errors. Raises LcpuError for descriptions that are at odds with themselves or with the file.
    """
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            numbers = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            raise LcpuError(f"{source}: tensor {name[:80]!r} is badly described: damaged; download it again") from None
        if not isinstance(dtype, str) or dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise LcpuError(f"{source}: tensor {name[:80]!r} has the type {str(dtype)[:20]!r}; lcpu reads {known}")
        inside = file is None or not numbers or start + end <= file.size
        if not numbers or end - begin != math.prod(shape) * DTYPES[dtype].itemsize or not inside:
            raise LcpuError(f"{source}: tensor {name[:80]!r} does not fit into the file: it is not whole, or damaged; "
                            "download it again")
        tensors[name] = SourceTensor(name, shape, dtype, file, start + begin)
    end = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset < end:
            raise LcpuError(f"{source}: tensor {tensor.name[:80]!r} overlaps another: damaged; download it again")
        end = tensor.offset + tensor.nbytes
    return tensors
