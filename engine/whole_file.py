"""Writing files so that one appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..kernels.errors import LcpuError

_PART = re.compile(r".+\.(\d+)\.lcpu-part")  # of whole_file


def target_of(path: Path) -> Path:
    """The file that a path means: a symbolic link is written through, as `cp` does.

    Raises LcpuError for a link that leads nowhere.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise LcpuError(f"{path}: is a symbolic link that leads back to itself: remove it first")
    return target


@contextlib.contextmanager
def whole_file(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """A file to write, which takes the name `path` when the block ends well and is removed when it does not.

    check: is called with the name that the file has until then, when it is written; what it raises is raised.
    """
    target = target_of(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.lcpu-part")
    try:
        with part.open("wb") as file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def remove_dead_parts(folder: Path) -> None:
    """Remove what `whole_file` left in a folder when its process was killed."""
    with contextlib.suppress(OSError):
        for part in folder.iterdir():
            match = _PART.fullmatch(part.name)
            if match is None or _is_alive(int(match[1])):
                continue
            with part.open("rb") as file:
                if _lock(file):
                    part.unlink()
                    logging.getLogger("lcpu").info("removed %s, which a run that was killed had left", part)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; False if another process has it, which may be in another container."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
