"""`lcpu convert`: a Hugging Face checkpoint, from the hub or a folder, to a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..kernels.errors import LcpuError
from . import console, options, sources
from .inspect import aligned, size
from .quantize import EmbeddingType, OutputType, tensor_type_named

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint
    from ..convert.plan import Plan

Source = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model on the Hugging Face hub, as OWNER/NAME, or a folder with one.")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--outfile", metavar="FILE", help="GGUF file to write.", show_default="NAME-TYPE.gguf, here"),
]
Type = Annotated[
    str,
    typer.Option(
        "--type", "--outtype", metavar="TYPE",
        help="Type of the matrices: f32, f16, bf16, i2_s (BitNet), or what `lcpu quantize` makes; auto keeps the "
        "checkpoint's.",
    ),
]  # fmt: skip
AllowLossy = Annotated[
    bool,
    typer.Option("--allow-lossy", help="Let --type change the values of weights that are quantized already."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the tensors that would be written, and write and download no weights.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]


def convert(
    model: Source,
    output: Output = None,
    type: Type = "auto",
    output_type: OutputType = None,
    embedding_type: EmbeddingType = None,
    revision: options.Revision = None,
    allow_lossy: AllowLossy = False,
    dry_run: DryRun = False,
    threads: options.Threads = None,
    force: Force = False,
) -> None:
    """Convert a Hugging Face model to a GGUF file.

    The checkpoint is in safetensors or PyTorch files (nothing in them is executed). From the hub, it is downloaded into
    the hub's cache; HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and HF_HOME work as everywhere.

    Weights may be floats, or quantized by GPTQ, AWQ, AutoRound, compressed-tensors, bitsandbytes (NF4, FP4, int8), FP8,
    MXFP4 or BitNet. Quantized ones keep their values: each gets the GGUF type that holds them, such as q4_0, and floats
    where there is none.
    """
    from ..convert.output import check_free
    from ..convert.plan import plan
    from ..convert.type_rules import Overrides
    from ..convert.write import default_path, write_plan

    type = type.lower()
    sources.check_type(type)
    overrides = Overrides(output=tensor_type_named(output_type), embedding=tensor_type_named(embedding_type))
    if output is not None and not dry_run:
        check_free(output, force)
    with opened(model, revision, dry_run) as (checkpoint, name):
        planned = plan(checkpoint, type, name, overrides, allow_lossy)
        path = output or default_path(name, planned.type_name)
        for note in planned.notes:
            console.notice(f"note: {note}")
        if dry_run:
            if kept := planned.kept():
                console.notice(f"note: {kept}")
            console.write(table(planned, path))
            return
        check_free(path, force)
        with console.LoadProgress() as progress:
            errors = write_plan(planned, path, threads=threads if threads and threads > 0 else None, progress=progress)
    if kept := planned.kept(errors):
        console.notice(f"note: {kept}")
    console.notice(f"wrote {path}: {len(planned.tensors)} tensors, {planned.type_name.upper()}, {size(planned.nbytes)}")


@contextmanager
def opened(model: str, revision: str | None, dry_run: bool) -> Iterator[tuple[Checkpoint, str]]:
    """The checkpoint that the user means, and its name."""
    from ..convert import hub
    from ..convert.checkpoint import open_checkpoint
    from ..convert.plan import check_description

    folder = Path(model).expanduser()
    tensors = None
    if folder.is_dir():
        if revision is not None:
            raise options.UsageError(f"--revision is for models on the hub, and {model} is a folder: leave it out")
        name = folder.resolve().name
    elif folder.exists():
        raise LcpuError(f"{model}: is a file: name the folder of the checkpoint, or a model on the hub as OWNER/NAME")
    elif hub.is_repo(model):
        name = model
        shows = console.stderr_is_terminal()
        folder, tensors = hub.fetch(
            model, revision, only_describe=dry_run, show_progress=shows,
            check=lambda folder: check_description(folder, model),
        )  # fmt: skip
    else:
        raise LcpuError(f"{model}: no such folder, nor a model's name on the hub, which is OWNER/NAME")
    with open_checkpoint(folder, tensors) as checkpoint:
        yield checkpoint, name


def table(planned: Plan, path: Path) -> str:
    """The tensors of a file to be, and what they add up to."""
    from ..engine.gguf_types import TENSOR_TYPES

    rows = [
        [each.name, " × ".join(map(str, each.values.shape)), TENSOR_TYPES[each.type_id].name, size(each.nbytes)]
        for each in planned.tensors
    ]
    rows = [["tensor", "shape", "type", "size"], *rows]
    total = f"{path}: {len(planned.tensors)} tensors, {size(planned.nbytes)}, {planned.type_name.upper()}"
    return "\n".join([*aligned(rows, "<><>"), "", total]) + "\n"
