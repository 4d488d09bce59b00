"""`lcpu models`: the models that were downloaded, by lcpu and by other programs."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..kernels.errors import LcpuError
from . import console, options, other_caches
from .inspect import aligned, printable, size

Action = Annotated[
    Literal["list", "rm"], typer.Argument(metavar="list|rm", help="list: what is there. rm: delete models.")
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", show_default=False,
                   help="What to delete: a name of the list, or OWNER/NAME for all of a repository."),
]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    name: str
    type: str
    nbytes: int
    last_used: float  # seconds since the epoch
    path: Path | None = None  # of other programs' files


def models(action: Action = "list", names: Names = None, json: options.Json = False) -> None:
    """List the models that were downloaded, or delete some.

    The list has the models in the cache of the Hugging Face hub, which run with -hf NAME, and those of Ollama and
    llama.cpp, which run with -m NAME and cannot be deleted here. Last use is what the file system knows of it.
    """
    if action == "rm":
        if not names:
            raise options.UsageError("nothing to delete: name models after rm")
        for name in names:
            delete(name)
        return
    if names:
        raise options.UsageError(f"list takes no names; to delete {names[0]}, use rm")
    entries = listed()
    if json:
        console.write(document(entries))
    elif entries:
        console.write(table(entries))
    else:
        console.notice("no models yet: `lcpu run -hf OWNER/NAME` downloads one")


def listed() -> list[Entry]:
    """The models of the hub's cache, then those of other programs."""
    from ..convert import hub_cache

    ours = [Entry(model.name, model.type, model.nbytes, model.last_used) for model in hub_cache.models()]
    others = []
    for model in other_caches.models():
        status = [path.stat() for path in model.paths]
        others.append(Entry(model.name, type_of(model.paths[0]), sum(each.st_size for each in status),
                            max(each.st_atime for each in status), model.paths[0]))
    return ours + others


def type_of(path: Path) -> str:
    """The type of a GGUF file, by its name or else by its metadata."""
    from gguf import LlamaFileType

    from ..convert.gguf_names import NamedModel
    from ..engine.gguf_file import GGUFFile

    named = NamedModel((path.name,), 0).type
    if named is not None:
        return named
    try:
        with GGUFFile.open(path) as file:
            return LlamaFileType(file.metadata["general.file_type"]).name.partition("_")[2]
    except (LcpuError, KeyError, ValueError):  # not readable, or it does not say
        return ""


def delete(name: str) -> None:
    from ..convert import hub_cache

    prefix = other_caches.prefix_of(name)
    if prefix is not None:
        path = other_caches.find(name)
        way_out = f"`ollama rm {name.removeprefix(prefix)}`" if prefix == other_caches.OLLAMA else f"`rm {path}`"
        raise LcpuError(f"{name}: belongs to another program, whose files lcpu only reads: delete it with {way_out}")
    console.notice(f"deleted {name}: {size(hub_cache.delete(name))}")


def document(entries: Sequence[Entry]) -> str:
    rows = [{"name": entry.name, "type": entry.type or None, "bytes": entry.nbytes,
             "last_used": datetime.fromtimestamp(entry.last_used, timezone.utc).isoformat(timespec="seconds"),
             "path": None if entry.path is None else str(entry.path)} for entry in entries]
    return json_format.dumps(rows, ensure_ascii=False) + "\n"


def table(entries: Sequence[Entry]) -> str:
    rows = [["name", "type", "size", "last use"]]
    rows += [[printable(entry.name), entry.type, size(entry.nbytes),
              datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d")] for entry in entries]
    return "\n".join(aligned(rows, "<<><")) + "\n"
