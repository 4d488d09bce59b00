"""Write the file that a plan describes, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..engine import hyperparameters, tokenizer
from ..engine.architectures import builder_of
from ..engine.gguf_file import GGUFFile
from ..engine.threads import thread_count
from ..kernels.errors import LcpuError
from ..kernels.jit import announcing
from ..kernels.team import Team
from .encode import Encoder
from .gguf_writer import TensorToWrite, write_gguf
from .output import check_space
from .plan import Plan

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


def default_path(name: str, type_name: str) -> Path:
    """<model>-<type>.gguf in the current folder; `name` is the model's, maybe with its owner's."""
    return Path(f"{name.rsplit('/', 1)[-1]}-{type_name.upper()}.gguf")


def write_plan(plan: Plan, path: Path, *, threads: int | None = None, progress: Progress | None = None
               ) -> dict[str, float]:
    """Write the file; it appears under its name only when it is whole.

    Returns how far off weights are that were quantized before and do not keep their values: the root mean square error
    over that of the values, by name. Memory is bounded by the largest tensor. Raises LcpuError if there is not enough
    room, and for values that a type cannot hold.
    """
    check_space(path, plan.nbytes)
    tell = progress or (lambda stage, done, total: None)
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        tell("converting", done, plan.nbytes)

    with announcing(lambda name: tell("compiling", 0, 0)), Team(thread_count(threads, plan.nbytes)) as team:
        encoder = Encoder(team, measure=True)
        tensors = [
            TensorToWrite(each.name, each.values.shape, each.type_id,
                          partial(encoder.encode, each.name, each.values, each.type_id, advance))
            for each in plan.tensors
        ]
        write_gguf(path, plan.metadata, tensors, partial(_check_runs, path))
        return encoder.errors


def _check_runs(path: Path, part: Path) -> None:
    """Raises LcpuError if the engine cannot read the file `part`, which is to become `path`."""
    try:
        with GGUFFile.open(part) as file:
            builder_of(file)
            hyperparameters.read(file.metadata, part)
            tokenizer.from_metadata(file.metadata)
    except LcpuError as error:
        raise LcpuError(f"{path}: is not written, since lcpu could not run it ({error}); please report it") from None
