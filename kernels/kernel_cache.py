"""Compiled kernels on disk: a file for each, in a folder for each state of the sources, of Numba and of the path.

The cache never ends a run. A file that is missing, damaged or not ours counts as none and is written anew. Where
nothing can be written, kernels are compiled at each start, and one warning says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import os
import pickle
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import platformdirs
from numba import config
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from .isa import active

_CHECKSUM = hashlib.sha256
_CHECKSUM_BYTES = 32
_ROOM = 1 << 20  # bytes: more than the kernels of a model take
_ABANDONED = 3600  # seconds after which the part of a file that was never finished is removed
_reported: list[Path] = []  # the folder that the one warning was about


class KernelFile:
    """Where one kernel is kept. Numba's CFunc takes it for its own cache."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def is_whole(self, signature: Any, context: Any) -> bool:
        """Whether the kernel is there to be loaded."""
        try:
            return _read(self._path(signature, context.codegen())) is not None
        except OSError:
            return False

    def load_overload(self, signature: Any, context: Any) -> CompileResult | None:
        """The compiled kernel, or None if there is none that is whole."""
        # Numba's own fills its registries first, which takes half a second and only compiling needs.
        with contextlib.suppress(Exception):  # whatever is wrong with the file, the kernel can be compiled
            if payload := _read(self._path(signature, context.codegen())):
                return CompileResult._rebuild(context, *pickle.loads(payload))
        return None

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        """Keep a kernel that has been compiled, if it can be kept."""
        if result.library.has_dynamic_globals or not can_keep():
            return
        payload = dumps(result._reduce())
        try:
            _write(self._path(signature, result.library.codegen), _CHECKSUM(payload).digest() + payload)
        except OSError as error:
            _report(error)

    def _path(self, signature: Any, codegen: Any) -> Path:
        """Another machine, Python or function of the same name has another file. Raises OSError for want of a place."""
        code = self._function.__code__
        state = (str(signature), codegen.magic_tuple(), sys.version, llvmlite.__version__, code.co_firstlineno,
                 code.co_code.hex(), _source_hash(inspect.getfile(self._function)))
        name = self._function.__qualname__.replace("<", "").replace(">", "")
        return cache_directory() / f"{name}-{_CHECKSUM(repr(state).encode()).hexdigest()[:16]}.kernel"


@cache
def cache_directory() -> Path:
    """Where compiled kernels are kept: one folder for each state of the sources, Numba version and instruction set.

    A kernel is made of more functions than its own; the folder's name changes when any of them does. Raises OSError if
    there is no such place.
    """
    root = _root()
    if root.startswith("~"):
        raise OSError("there is no home directory")
    return Path(root).absolute() / f"kernels-{state()}"


@cache
def state() -> str:
    """A name for the state of the sources, Numba and the instruction set: with another, kernels may be others."""
    digest = _CHECKSUM(f"{numba.__version__} {config.CPU_NAME} {config.CPU_FEATURES} {int(config.OPT)}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return f"{active().name}-{digest.hexdigest()[:16]}"


def _root() -> str:
    """LCPU_CACHE_DIR, or lcpu in the user's cache directory; with its "~" if nobody knows where that is."""
    if wanted := os.environ.get("LCPU_CACHE_DIR", "").strip():
        return os.path.expanduser(wanted)
    try:
        return platformdirs.user_cache_dir("lcpu", appauthor=False)
    except RuntimeError:  # its newer versions do not leave a "~"
        return "~/.cache/lcpu"


@cache
def can_keep() -> bool:
    """Whether kernels that are compiled now will be found by later runs, as far as that can be told beforehand.

    Warns if not. Asked before the first kernel is compiled.
    """
    try:
        folder = cache_directory()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        trial = _part_of(folder / "trial")
        try:
            trial.write_bytes(bytes(_ROOM))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        _report(error)
        return False
    return True


def _report(error: OSError) -> None:
    """Warn, once, that kernels are not kept."""
    folder = Path(_root())
    if folder not in _reported:
        _reported.append(folder)
        logging.getLogger("lcpu").warning(
            "compiled kernels cannot be kept in %s (%s), so every start compiles them again; "
            "LCPU_CACHE_DIR=FOLDER names another place", folder, error.strerror or error)


@cache
def _source_hash(path: str) -> str:
    return _CHECKSUM(Path(path).read_bytes()).hexdigest()


def _read(path: Path) -> bytes | None:
    """What a file holds below its checksum; None if it is not a file, or not whole."""
    if not path.is_file():  # reading from a pipe would wait for ever
        return None
    data = path.read_bytes()
    payload = data[_CHECKSUM_BYTES:]
    return payload if _CHECKSUM(payload).digest() == data[:_CHECKSUM_BYTES] else None


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place, all at once: other processes may write or read it at the same time."""
    part = _part_of(path)
    try:
        part.write_bytes(data)
        if path.is_dir():
            shutil.rmtree(path)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    """A name for a file in the making, which no other process has, on this or another machine."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")


def _remove_abandoned(folder: Path) -> None:
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()
