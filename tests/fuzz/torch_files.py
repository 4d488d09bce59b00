"""PyTorch checkpoints: the zip archive, and the pickle in it, whose opcodes are its fields."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random

from lcpu.convert.torch_file import open_torch

from .mutate import Fields, altered, mutated

SHARE = 10


class _Global:
    """Pickled as a name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    """Pickled as a call."""

    def __init__(self, function: _Global, *arguments: object) -> None:
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in C cannot write names that are not there
    def persistent_id(self, thing: object) -> object:
        return thing.arguments if isinstance(thing, _Call) and thing.function.module == "storage" else None

    def save(self, thing: object, save_persistent_id: bool = True) -> None:
        if isinstance(thing, _Global):
            self.write(pickle.GLOBAL + f"{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, _Call) and thing.function.module != "storage":
            self.save(thing.function)
            self.save(thing.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(thing, save_persistent_id)


def _tensor(key: str, storage: str, size: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> _Call:
    stored = _Call(_Global("storage", ""), "storage", _Global("torch", storage), key, "cpu", size)
    return _Call(_Global("torch._utils", "_rebuild_tensor_v2"), stored, 0, shape, strides, False, OrderedDict())


def _pickled(content: object, protocol: int) -> Fields:
    """The opcodes of a pickle, each with its argument."""
    out = io.BytesIO()
    pickler = _Pickler(out, protocol)
    pickler.dispatch = {**pickle._Pickler.dispatch, OrderedDict: _save_ordered}  # type: ignore[attr-defined]
    pickler.dump(content)
    data = out.getvalue()
    starts = [position for _, _, position in pickletools.genops(data)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _save_ordered(pickler: _Pickler, content: OrderedDict[str, object]) -> None:
    pickler.write(pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE)
    pickler._batch_setitems(content.items())


_DICTIONARY = {"a.weight": _tensor("0", "FloatStorage", 6, (2, 3), (3, 1)),
               "b.weight": _tensor("1", "BFloat16Storage", 4, (4,), (1,))}
_SEEDS = [_pickled(_DICTIONARY, 2), _pickled(OrderedDict(_DICTIONARY), 2), _pickled({"x": 1, **_DICTIONARY}, 4)]
_WORDS = [
    b"I99999999999999999999\n", b"L" + b"9" * 5000 + b"L\n", b"\x8a\xff" + b"\xff" * 255, b"r\xff\xff\xff\x7f",
    b"r\xff\xff\xff\xff", b"q\xff", b"j\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"cos\nsystem\n", b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n",
    b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n",
    b")", b"(", b"t", b"R", b"Q", b"b", b"o", b"\x81", b"\x92", b"0", b"1", b"2", b"}", b"]", b"\x8f", b"\x90", b"s",
    b"u", b"e", b"a", b"N", b".", b"\x82\x01", b"\x94" * 50, b"(" * 1000, b"]" * 1000 + b"a" * 999, b"\x85" * 5000,
    b"2\x86" * 40, b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f", b"G" + b"\xff" * 8, b"Pabc\n", b"S'a\\x'\n", b"V\\ud800\n",
]


def case(random: Random) -> bytes:
    content = b"".join(mutated(random, _SEEDS, _WORDS))
    if random.random() < 0.2:
        content = altered(random, content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data.pkl", content)
        archive.writestr("m/byteorder", b"little" if random.random() < 0.98 else b"big")
        archive.writestr("m/data/0", bytes(24))
        archive.writestr("m/data/1", bytes(8 if random.random() < 0.95 else 7))
    file = out.getvalue()
    if random.random() < 0.1:
        file = altered(random, file)
    return file[: random.randrange(len(file) + 1)] if random.random() < 0.02 else file


def run(path: Path) -> None:
    file, tensors = open_torch(path)
    for tensor in tensors.values():
        tensor.array()
    file.close()
