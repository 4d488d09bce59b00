"""Write the file that a plan describes, tensor by tensor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..engine.threads import thread_count
from ..kernels.errors import LcpuError
from ..kernels.jit import announcing
from ..kernels.team import Team
from .encode import Encoder
from .gguf_writer import TensorToWrite, write_gguf
from .plan import Plan

_HEADROOM = 1 << 20  # bytes besides the tensors, more or less

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


def default_path(name: str, type_name: str) -> Path:
    """<model>-<type>.gguf in the current folder; `name` is the model's, maybe with its owner's."""
    return Path(f"{name.rsplit('/', 1)[-1]}-{type_name.upper()}.gguf")


def check_space(path: Path, nbytes: int) -> None:
    """Raises LcpuError if the disk of a file to be has less than `nbytes` left."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise LcpuError(f"{folder}: no such folder: make it first, or write elsewhere with -o")
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise LcpuError(f"{path}: needs {nbytes / 2**30:.2f} GiB, but the disk has {free / 2**30:.2f} GiB left; "
                        "make room, write elsewhere with -o, or take a smaller --type")


def write_plan(plan: Plan, path: Path, *, threads: int | None = None, progress: Progress | None = None) -> None:
    """Write the file; it appears under its name only when it is whole.

    Memory is bounded by the largest tensor. Raises LcpuError if there is not enough room, and for values that a type
    cannot hold.
    """
    check_space(path, plan.nbytes + _HEADROOM)
    tell = progress or (lambda stage, done, total: None)
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        tell("converting", done, plan.nbytes)

    with announcing(lambda name: tell("compiling", 0, 0)), Team(thread_count(threads, plan.nbytes)) as team:
        encoder = Encoder(team)
        tensors = [
            TensorToWrite(each.name, each.values.shape, each.type_id,
                          partial(encoder.encode, each.name, each.values, each.type_id, advance))
            for each in plan.tensors
        ]
        write_gguf(path, plan.metadata, tensors)
