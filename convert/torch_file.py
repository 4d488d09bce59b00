"""Read PyTorch checkpoints (torch.save since version 1.6) without PyTorch and without running what is in them.

Such a file is a zip archive of uncompressed members: `<name>/data.pkl`, a pickle of the dictionary of tensors, and
`<name>/data/<key>`, the values of each storage. A pickle is a program that may call anything; here it may call just
what puts tensors together, and gets descriptions, so that values stay in the file until they are needed.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..kernels.errors import LcpuError
from .source import DTYPES, MappedFile, SourceTensor

_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "BoolStorage": "BOOL",
}
_LARGEST_TUPLE = 10_000  # parts, in all depths
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, lengths of its name and of its extra field


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int  # values


class _Tensor(NamedTuple):
    storage: _Storage
    start: int  # values before its first one
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def open_torch(path: Path) -> tuple[MappedFile, dict[str, SourceTensor]]:
    """The tensors of a file, which is to be closed after use.

    Raises LcpuError for a damaged file, and for one whose pickle names anything but the parts of tensors.
    """
    file = MappedFile(path)
    if file.buffer[:4] != b"PK\x03\x04":
        raise LcpuError(f"{path}: is not a PyTorch file of version 1.6 or newer; save it again with torch.save, "
                        "or better as safetensors")
    try:
        members = _members(path)
        content = _Unpickler(io.BytesIO(members.pickle)).load()
        if not isinstance(content, Mapping):
            raise LcpuError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors: "
                            "save the model's state_dict")
        found = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, _Tensor)}
        if not found:
            raise LcpuError(f"{path}: has no tensors in its dictionary: save the model's state_dict, nothing around it")
        return file, {name: _placed(name, tensor, file, members) for name, tensor in found.items()}
    except _Refused as refused:
        raise LcpuError(f"{path}: its pickle asks for {refused}, which is not part of a tensor: refused; "
                        "use a model in safetensors") from None
    except LcpuError:
        raise
    except Exception as error:  # whatever a damaged zip or pickle leads to
        cause = " ".join(str(error).split())[:80] or type(error).__name__
        raise LcpuError(f"{path}: is damaged ({cause}): download it again") from None


class _Members(NamedTuple):
    pickle: bytes
    storages: dict[str, zipfile.ZipInfo]


def _members(path: Path) -> _Members:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        folder = name.removesuffix("data.pkl")
        infos = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
            raise LcpuError(f"{path}: is a compressed archive: save it again with torch.save")
        order = f"{folder}byteorder"
        if order in infos and archive.read(order) != b"little":
            raise LcpuError(f"{path}: was saved on a big-endian machine: save it again on another")
        prefix = f"{folder}data/"
        storages = {key.removeprefix(prefix): info for key, info in infos.items() if key.startswith(prefix)}
        return _Members(archive.read(name), storages)


class _Refused(Exception):
    """A pickle asks for something that is not part of a tensor."""


class _Unpickler(pickle._Unpickler):
    """Knows the names that make up tensors and no others.

    It is Python's slow one: of the one in C, a single opcode can ask for gigabytes (python/cpython#115952). Tuples of
    tuples of the same tuples are refused, too, for to hash one takes as long as to walk through all of it.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    del dispatch[pickle.BYTEARRAY8[0]]  # which would take as many bytes as it says

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._sizes: dict[int, tuple[object, int]] = {}  # of each tuple: with all that is in it

    def weigh(self, made: tuple[object, ...]) -> None:
        size = len(made) + sum(self._sizes[id(part)][1] for part in made if id(part) in self._sizes)
        if size > _LARGEST_TUPLE:
            raise ValueError("a tuple too large for a tensor")
        self._sizes[id(made)] = made, size

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        try:
            return _CALLABLES[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}"[:80]) from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, size = pid
        if kind != "storage" or dtype not in DTYPES or not isinstance(key, str) or type(size) is not int:
            raise ValueError("a storage that is none")
        return _Storage(key, dtype, size)


def _weighed(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """An opcode that makes a tuple, and then looks at its size."""

    def load_weighed(unpickler: Any) -> None:
        load(unpickler)
        unpickler.weigh(unpickler.stack[-1])

    return load_weighed


for _opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _Unpickler.dispatch[_opcode[0]] = _weighed(_Unpickler.dispatch[_opcode[0]])


def _rebuild_tensor(storage: _Storage, start: int, shape: tuple[int, ...], strides: tuple[int, ...],
                    *_: object) -> _Tensor:
    """torch._utils._rebuild_tensor_v2, checked: no value lies outside of the storage."""
    numbers = (start, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor that is none")
    if any(type(number) is not int or not 0 <= number < 2**62 for number in numbers):
        raise ValueError("a tensor of impossible shape")
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if start > storage.size or (0 not in shape and last >= storage.size):
        raise ValueError("a tensor larger than its storage")
    return _Tensor(storage, start, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


_CALLABLES = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _placed(name: str, tensor: _Tensor, file: MappedFile, members: _Members) -> SourceTensor:
    """Where the values of a tensor are in the file."""
    itemsize = DTYPES[tensor.storage.dtype].itemsize
    member = members.storages[tensor.storage.key]
    signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(file.buffer, member.header_offset)
    offset = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    nbytes = tensor.storage.size * itemsize
    if signature != b"PK\x03\x04" or nbytes > member.file_size or offset + nbytes > file.size:
        raise ValueError(f"the values of tensor {name[:80]!r} are not all there")
    expected = 1
    rows_in_order = True
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        rows_in_order &= size == 1 or stride == expected
        expected *= size
    strides = None if rows_in_order or 0 in tensor.shape else tensor.strides
    return SourceTensor(name, tensor.shape, tensor.storage.dtype, file, offset + tensor.start * itemsize, strides)
