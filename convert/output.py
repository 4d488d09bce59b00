"""The file that a command writes: may it be written here, and is there room."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..engine.whole_file import remove_dead_parts, target_of
from ..kernels.errors import LcpuError

_HEADROOM = 1 << 20  # bytes of a file besides its tensors, more or less


def check_free(path: Path, force: bool) -> None:
    """Raises LcpuError if a file is in the way and must not be overwritten."""
    target = target_of(path)
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise LcpuError(f"{path}: is not a file: name the file to write")
    if target.exists() and not force:
        raise LcpuError(f"{path}: is there already; --force overwrites it")


def check_space(path: Path, nbytes: int) -> None:
    """Raises LcpuError if the disk of a file to be has no room for tensors of so many bytes."""
    folder = target_of(path).parent
    if not folder.is_dir():
        raise LcpuError(f"{folder}: no such folder: make it first, or write elsewhere")
    remove_dead_parts(folder)
    free = shutil.disk_usage(folder).free
    if free < nbytes + _HEADROOM:
        raise LcpuError(f"{path}: needs {nbytes / 2**30:.2f} GiB, but the disk has {free / 2**30:.2f} GiB left: "
                        "make room, write elsewhere, or take a smaller type")
