"""Write GGUF files: version 3, little-endian, streamed tensor by tensor.

The `gguf` package's writer has no I2_S and holds every tensor until the end; here a tensor may be a function that makes
its bytes when their turn comes, so that memory is bounded by the largest tensor.
"""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from ..engine.gguf_types import ARRAY, BOOL, STRING, TENSOR_TYPES, VALUE_DTYPES
from ..engine.whole_file import whole_file
from ..kernels.errors import LcpuError

TensorBytes: TypeAlias = bytes | np.ndarray

_TYPE_IDS = {dtype: type_id for type_id, dtype in VALUE_DTYPES.items() if type_id != BOOL} | {np.dtype(bool): BOOL}

# The NumPy types that Python's are written as: the first that holds the value.
_DTYPES: dict[type | None, tuple[type, ...]] = {
    bool: (np.bool_,),
    int: (np.uint32, np.int32, np.uint64, np.int64),
    float: (np.float32,),
}
_DTYPES_OF_INT_LIST = (np.int32, np.int64)


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor of a file to be: `data` has (or makes) its bytes in the block layout of `type_id`."""

    name: str
    shape: tuple[int, ...]  # NumPy order: the row length last
    type_id: int
    data: TensorBytes | Callable[[], TensorBytes]  # a function is called once, when the tensor is written

    @property
    def nbytes(self) -> int:
        return TENSOR_TYPES[self.type_id].nbytes(self.shape)


def write_gguf(path: str | os.PathLike[str], metadata: Mapping[str, object], tensors: Sequence[TensorToWrite],
               check: Callable[[Path], None] | None = None) -> None:
    """Write a GGUF file; it appears under its name only when it is whole, and `check` has nothing against it.

    Values: str; bool; int (uint32, else int32, uint64, int64: the first that holds it); float (float32); a NumPy scalar
    (exactly its type); a list of strings, bools, floats or ints (int32, else int64); a NumPy array (exactly its type).
    An empty list is one of strings.
    Raises LcpuError if the file cannot be written; TypeError or ValueError for values that GGUF cannot hold.
    """
    path = Path(path)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment}, not a power of two of at least 8")
    head = head_of(metadata, tensors, alignment)
    try:
        with whole_file(path, check) as file:
            file.write(head)
            for tensor in tensors:
                _write_tensor(file, tensor)
                file.write(bytes(-tensor.nbytes % alignment))
    except OSError as error:
        raise LcpuError(f"{path}: cannot be written: {error.strerror or error}") from None


def _write_tensor(file: BinaryIO, tensor: TensorToWrite) -> None:
    data = tensor.data() if callable(tensor.data) else tensor.data
    view = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else memoryview(data)
    if view.nbytes != tensor.nbytes:
        raise ValueError(f"tensor {tensor.name!r}: {view.nbytes} bytes given, {tensor.nbytes} expected")
    file.write(view)


def head_of(metadata: Mapping[str, object], tensors: Sequence[TensorToWrite], alignment: int) -> bytes:
    """Everything before the tensor data, padding included."""
    pieces = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        try:
            pieces += [_string(key), _value(value)]
        except ValueError as error:
            raise ValueError(f"key {key!r}: {error}") from None
        except TypeError as error:
            raise TypeError(f"key {key!r}: {error}") from None
    offset = 0
    for tensor in tensors:
        dimensions = tensor.shape[::-1]
        if not 1 <= len(dimensions) <= 4 or 0 in dimensions:
            raise ValueError(f"tensor {tensor.name!r}: the shape {tensor.shape} is not 1 to 4 numbers from 1 up")
        if dimensions[0] % TENSOR_TYPES[tensor.type_id].block_values:
            raise ValueError(f"tensor {tensor.name!r}: rows of {dimensions[0]} values are not whole blocks")
        pieces.append(_string(tensor.name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions))
        pieces.append(struct.pack("<IQ", tensor.type_id, offset))
        offset += tensor.nbytes + -tensor.nbytes % alignment
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ValueError("two tensors have the same name")
    head = b"".join(pieces)
    return head + bytes(-len(head) % alignment)


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    """A metadata value: its type id, then the value."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))
    array = np.asarray(value if isinstance(value, (np.ndarray, np.generic)) else _python_numbers(value))
    type_id = _TYPE_IDS.get(array.dtype.newbyteorder("<"))
    if type_id is None or array.ndim > 1:
        raise TypeError(f"GGUF has no value type for {array.ndim} dimensions of {array.dtype}")
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    if array.ndim == 0:
        return struct.pack("<I", type_id) + data
    return struct.pack("<IIQ", ARRAY, type_id, array.size) + data


def _python_numbers(value: object) -> np.ndarray:
    """Python's numbers in the GGUF type that `write_gguf` promises for them."""
    kinds = {type(item) for item in value} if isinstance(value, list) else {type(value)}
    kind = kinds.pop() if len(kinds) == 1 else None
    dtypes = _DTYPES_OF_INT_LIST if kind is int and isinstance(value, list) else _DTYPES.get(kind)
    if dtypes is None:
        raise TypeError("GGUF has strings, numbers, booleans, and lists of one of these")
    for dtype in dtypes:
        try:
            return np.array(value, dtype)
        except OverflowError:
            continue
    raise ValueError(f"no GGUF integer holds {value}")
