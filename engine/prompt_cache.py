"""Prompt caches: the keys and values of a text's beginning in a file, so that a later run need not compute them.

A text is the same with and without one. So a file is used only if the same model was computed in the same way.

    "lcpu prompt cache", uint32 version, uint32 size of the description (little-endian, like all numbers)
    description  JSON: what `Origin` has, and the number of tokens
    ids          int32 for each token
    pages        as the pool has them, for each 128 tokens, with zeros behind the last token
    digest       BLAKE2b, 32 bytes, of all that
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from io import BufferedReader
from itertools import chain
from pathlib import Path

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.kernel_cache import state
from ..kernels.pages import POSITIONS
from ..kernels.simd import LANES
from .gguf_file import GGUFFile
from .hyperparameters import Hyperparameters
from .page_pool import PagePool
from .rope import rope_factors_name
from .whole_file import remove_dead_parts, target_of, whole_file

VERSION = 2
_MAGIC = b"lcpu prompt cache"
_NUMBERS = struct.Struct("<II")
_DIGEST = 32
_WAY_OUT = "delete it or name another file"


@dataclass(frozen=True)
class Origin:
    """What keys and values depend on, besides the tokens."""

    model: str
    code: str  # instruction set, and the sources of what computes
    keys: str  # types of pages
    values: str
    page_bytes: int
    angles: str  # the tensor of factors that rotate keys: the context may choose it


def origin_of(file: GGUFFile, h: Hyperparameters, pool: PagePool) -> Origin:
    return Origin(file.fingerprint(), _code(), pool.keys.name, pool.values.name, pool.page_bytes,
                  rope_factors_name(file, h, pool.context) or "")


@cache
def _code() -> str:
    """The name of the kernels' folder tells the instruction set and the kernels' sources. The engine's come here."""
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(__file__).parent
    sources = [folder / name for name in ("attention.py", "builder.py", "key_balance.py", "rope.py")]
    for source in (*sources, *sorted((folder / "architectures").glob("*.py"))):
        digest.update(source.read_bytes())
    return f"{state()}-{LANES}-{np.__version__}-{digest.hexdigest()}"


def check_writable(path: Path) -> None:
    """Raises LcpuError unless a prompt cache could be written there: to ask before all the computing."""
    target = target_of(path)
    if not target.parent.is_dir():
        raise LcpuError(f"{path}: its folder {target.parent} is not there: make it first or name another file")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise LcpuError(f"{path}: its folder cannot be written to: name another file, or add --prompt-cache-ro")


def save(path: Path, origin: Origin, ids: Sequence[int], pages: Iterable[np.ndarray]) -> None:
    """Write a prompt cache, or nothing at all. pages: uint8 [page_bytes] each. Raises LcpuError if it cannot."""
    description = json.dumps(asdict(origin) | {"tokens": len(ids)}).encode()
    head: list[bytes | memoryview] = [_MAGIC, _NUMBERS.pack(VERSION, len(description)), description,
                                      np.asarray(ids, "<i4").tobytes()]
    digest = hashlib.blake2b(digest_size=_DIGEST)
    try:
        remove_dead_parts(target_of(path).parent)
        with whole_file(path) as file:
            for part in chain(head, (page.data for page in pages)):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
    except OSError as error:
        raise LcpuError(f"{path}: the prompt cache cannot be written: {error.strerror}; make room or name another "
                        "file") from None


def restore(path: Path, origin: Origin, room: Callable[[int], Sequence[np.ndarray]]) -> list[int]:
    """The ids of a prompt cache; [] if there is no file, or an empty one.

    room(tokens) gives pages for so many tokens, or for the first of them: they are filled, also if an error follows.
    Raises LcpuError for a file that is cut, damaged, or comes from anything else than `origin`.
    """
    file = _opened(path)
    if file is None:
        return []
    try:
        with file:
            return _read(path, file, origin, room)
    except EOFError:
        raise LcpuError(f"{path}: is a prompt cache that is cut or damaged: {_WAY_OUT}") from None
    except OSError as error:
        raise LcpuError(f"{path}: cannot be read: {error.strerror}; {_WAY_OUT}") from None


def _opened(path: Path) -> BufferedReader | None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LcpuError(f"{path}: is not a regular file: name another file")
        return path.open("rb") if status.st_size else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise LcpuError(f"{path}: cannot be read: {reason}; name another file") from None


def _read(path: Path, file: BufferedReader, origin: Origin, room: Callable[[int], Sequence[np.ndarray]]) -> list[int]:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    size = os.fstat(file.fileno()).st_size

    def read(target: bytearray | memoryview) -> None:
        if file.readinto(target) != len(target):
            raise EOFError
        digest.update(target)

    start = bytearray(min(size, len(_MAGIC) + _NUMBERS.size))
    read(start)
    if not start.startswith(_MAGIC):
        raise LcpuError(f"{path}: is not a prompt cache: {_WAY_OUT}")
    if len(start) < len(_MAGIC) + _NUMBERS.size:
        raise EOFError
    version, described = _NUMBERS.unpack_from(start, len(_MAGIC))
    if version != VERSION:
        raise LcpuError(f"{path}: is a prompt cache of another version of lcpu: {_WAY_OUT}")
    description = bytearray(min(described, size))
    read(description)
    tokens = _checked(path, description, origin)
    count = -(-tokens // POSITIONS)
    if size != file.tell() + 4 * tokens + count * origin.page_bytes + _DIGEST:
        raise EOFError
    ids = np.empty(tokens, "<i4")
    read(ids.view(np.uint8).data)
    pages = room(tokens)
    spare = np.empty(origin.page_bytes if len(pages) < count else 0, np.uint8)
    for number in range(count):
        read((pages[number] if number < len(pages) else spare).data)
    if file.read() != digest.digest():
        raise LcpuError(f"{path}: is a damaged prompt cache: {_WAY_OUT}")
    return [int(token) for token in ids]


def _checked(path: Path, description: bytearray, origin: Origin) -> int:
    """The number of tokens in a file. Raises LcpuError if it comes from something else."""
    try:
        found = json.loads(description)
        tokens = int(found.pop("tokens"))
        theirs = Origin(**found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LcpuError(f"{path}: is a damaged prompt cache: {_WAY_OUT}") from None
    if theirs.model != origin.model:
        raise LcpuError(f"{path}: is the prompt cache of another model: {_WAY_OUT}")
    if (theirs.keys, theirs.values) != (origin.keys, origin.values):
        raise LcpuError(f"{path}: has keys and values in {theirs.keys} and {theirs.values}, and this run has them in "
                        f"{origin.keys} and {origin.values}: {_WAY_OUT}")
    if theirs.code == origin.code and theirs.angles != origin.angles:
        raise LcpuError(f"{path}: was computed for a context of another length (-c), for which the model rotates keys "
                        f"otherwise: {_WAY_OUT}")
    if theirs != origin:
        raise LcpuError(f"{path}: was computed by another processor or version of lcpu: {_WAY_OUT}")
    if not 0 < tokens < 2**31:
        raise LcpuError(f"{path}: is a damaged prompt cache: {_WAY_OUT}")
    return tokens
