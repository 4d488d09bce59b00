"""GGUF metadata: a bounds-checked walk over the file, and a mapping that decodes a value when it is asked for."""

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from ..kernels.errors import LcpuError
from .gguf_types import ARRAY, BOOL, STRING, VALUE_DTYPES

Value: TypeAlias = str | int | float | bool | list[str] | np.ndarray

_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_MAX_NAME_BYTES = 65535  # of a key, by the GGUF specification; tensor names are shorter still


def quoted(name: str) -> str:
    """A key or tensor name as it is shown in an error: on one line, and not too long."""
    return repr(name if len(name) <= 80 else name[:80] + "...")


def with_way_out(cause: str) -> str:
    """What is wrong with a file, and for a damaged one what to do."""
    return f"{cause}; download the file again" if cause.endswith("damaged") else cause


class Cursor:
    """Reads a mapped file from front to back and never goes past its end.

    `what` in its methods says what is being read, for the error message.
    """

    def __init__(self, path: Path, buffer: mmap.mmap):
        self.path = path
        self.buffer = buffer
        self.size = len(buffer)
        self.offset = 0

    def error(self, cause: str) -> LcpuError:
        return LcpuError(f"{self.path}: {with_way_out(cause)}")

    def skip(self, nbytes: int, what: str) -> int:
        """Step over `nbytes` bytes; returns the offset of the first one."""
        start, left = self.offset, self.size - self.offset
        if nbytes > left:
            raise self.error(f"{what} needs {nbytes} bytes but the file has {left} left: truncated or damaged")
        self.offset += nbytes
        return start

    def uint32(self, what: str) -> int:
        return _UINT32.unpack_from(self.buffer, self.skip(4, what))[0]

    def uint64(self, what: str) -> int:
        return _UINT64.unpack_from(self.buffer, self.skip(8, what))[0]

    def count(self, what: str, least_bytes: int) -> int:
        """A number of things that take at least `least_bytes` bytes each, so that a damaged one cannot cost memory."""
        count = self.uint64(what)
        if count * least_bytes > self.size - self.offset:
            raise self.error(f"{what} is {count}, more than the file can hold: truncated or damaged")
        return count

    def name(self, what: str) -> str:
        """A key or a tensor name: UTF-8, not empty."""
        nbytes = self.uint64(what)
        if not 0 < nbytes <= _MAX_NAME_BYTES:
            raise self.error(f"{what} is {nbytes} bytes long, not 1 to {_MAX_NAME_BYTES}: damaged")
        start = self.skip(nbytes, what)
        try:
            return self.buffer[start : start + nbytes].decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8: damaged") from None

    def skip_strings(self, count: int, what: str) -> None:
        """Step over `count` strings. With the 300,000 of a vocabulary, this loop is most of the time of opening."""
        buffer, offset, unpack = self.buffer, self.offset, _UINT64.unpack_from
        try:
            for _ in range(count):
                offset += 8 + unpack(buffer, offset)[0]
        except (struct.error, OverflowError):  # the length itself lies past the end
            offset = self.size + 1
        if offset > self.size:
            raise self.error(f"{what} goes past the end of the file: truncated or damaged")
        self.offset = offset


class Field(NamedTuple):
    """Where a value is: its type (of the elements, for an array) and the offset of its first byte."""

    type_id: int
    length: int | None  # of an array; None for a single value
    offset: int

    @property
    def type_name(self) -> str:
        """Such as "uint32" or "string"; of an array, that of its elements."""
        return {STRING: "string", BOOL: "bool"}.get(self.type_id) or VALUE_DTYPES[self.type_id].name


class Metadata(Mapping[str, Value]):
    """The key-value pairs of a GGUF file, in file order.

    A value is decoded anew at each access (keep what you use often): strings to str, with bytes that are not UTF-8 kept
    as surrogate escapes; numbers to int, float or bool; arrays of strings to list[str]; arrays of numbers to a NumPy
    array of the file's type that owns its memory (arrays of booleans to np.bool_).
    """

    def __init__(self, buffer: mmap.mmap, fields: dict[str, Field]):
        self._buffer = buffer
        self.fields = fields

    def __getitem__(self, key: str) -> Value:
        return self._decode(*self.fields[key])

    def head(self, key: str, count: int) -> Value:
        """The value, of an array only the first `count` elements: a whole vocabulary takes time."""
        type_id, length, offset = self.fields[key]
        return self._decode(type_id, length if length is None else min(length, count), offset)

    def _decode(self, type_id: int, length: int | None, offset: int) -> Value:
        if type_id == STRING:
            strings = self._strings(offset, 1 if length is None else length)
            return strings[0] if length is None else strings
        array = np.frombuffer(self._buffer, VALUE_DTYPES[type_id], 1 if length is None else length, offset)
        array = array != 0 if type_id == BOOL else array.copy()
        return array[0].item() if length is None else array

    def __contains__(self, key: object) -> bool:  # Mapping's own would decode the value
        return key in self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def _strings(self, offset: int, count: int) -> list[str]:
        buffer, unpack, strings = self._buffer, _UINT64.unpack_from, []
        for _ in range(count):
            start = offset + 8
            offset = start + unpack(buffer, offset)[0]
            strings.append(buffer[start:offset].decode("utf-8", "surrogateescape"))
        return strings


def read_metadata(cursor: Cursor, count: int) -> Metadata:
    """Walk over `count` key-value pairs, checking that each is whole and of a known type. Raises LcpuError."""
    fields: dict[str, Field] = {}
    for index in range(count):
        key = cursor.name(f"the name of metadata key {index + 1}")
        if key in fields:
            raise cursor.error(f"key {quoted(key)} is there twice: damaged")
        fields[key] = _read_field(cursor, f"key {quoted(key)}")
    return Metadata(cursor.buffer, fields)


def _read_field(cursor: Cursor, what: str) -> Field:
    type_id = cursor.uint32(f"the type of {what}")
    is_array = type_id == ARRAY
    if is_array:
        type_id = cursor.uint32(f"the element type of {what}")
        if type_id == ARRAY:
            raise cursor.error(f"{what} is an array of arrays, which lcpu does not support: take another file of this "
                               "model")
    if type_id != STRING and type_id not in VALUE_DTYPES:
        raise cursor.error(f"{what} has the unknown value type {type_id}: damaged, or made for a newer GGUF version; "
                           "download the file again")
    nbytes = 8 if type_id == STRING else VALUE_DTYPES[type_id].itemsize  # of a string: at least its length
    length = cursor.count(f"the length of {what}", nbytes) if is_array else None
    field = Field(type_id, length, cursor.offset)
    values = 1 if length is None else length
    if type_id == STRING:
        cursor.skip_strings(values, what)
    else:
        cursor.skip(values * nbytes, what)
    return field


def array_length(metadata: Mapping[str, Value], key: str) -> int:
    """The length of a list or array, 0 where there is none, without decoding a whole vocabulary for it."""
    if isinstance(metadata, Metadata):
        return metadata.fields[key].length or 0 if key in metadata else 0
    value = metadata.get(key)
    return len(value) if isinstance(value, (list, np.ndarray)) else 0
