"""May a file be written here? Asked before hours of work, not after."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..kernels.errors import LcpuError

_HEADROOM = 1 << 20  # bytes of a file besides its tensors, more or less


def check_free(path: Path, force: bool) -> None:
    """Raises LcpuError if a file is in the way and must not be overwritten."""
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise LcpuError(f"{path}: is not a file: name the file to write")
    if path.exists() and not force:
        raise LcpuError(f"{path}: is there already; --force overwrites it")


def check_space(path: Path, nbytes: int) -> None:
    """Raises LcpuError if the disk of a file to be has no room for tensors of so many bytes."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise LcpuError(f"{folder}: no such folder: make it first, or write elsewhere")
    free = shutil.disk_usage(folder).free
    if free < nbytes + _HEADROOM:
        raise LcpuError(f"{path}: needs {nbytes / 2**30:.2f} GiB, but the disk has {free / 2**30:.2f} GiB left: "
                        "make room, write elsewhere, or take a smaller type")
