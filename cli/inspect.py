"""`lcpu inspect`: the content of a GGUF file, also of models that lcpu cannot run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console, options, sources

if TYPE_CHECKING:
    from ..engine.gguf_file import GGUFFile, TensorInfo

ELEMENTS = 6  # how many elements of an array are shown
WIDTH = 100  # how many characters of a value are shown

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", envvar="LCPU_MODEL", show_default="the embedded model",
        help="GGUF file; of a split model, any of its files; ollama:NAME[:TAG] or llama.cpp:FILE from the cache of "
             "that program.",
    ),
]  # fmt: skip
Tensors = Annotated[bool, typer.Option("--tensors/--no-tensors", help="List the tensors.", show_default="on")]
Cells = Sequence[str]


def inspect_file(
    settings: typer.Context,
    model: File = None,
    hf_repo: options.HfRepo = None,
    hf_file: options.HfFile = None,
    revision: options.Revision = None,
    tensors: Tensors = True,
    json: options.Json = False,
) -> None:
    """Show what is in a GGUF file.

    It lists metadata, tensors, types and sizes, also of models that lcpu cannot run. Shapes are in NumPy's order: the
    length of a row comes last. Offsets count from the start of the file.
    """
    from .. import models
    from ..engine.gguf_file import GGUFFile

    path = sources.fetched(sources.chosen(settings, model, hf_repo, hf_file, revision)).path
    with GGUFFile.open(models.path() if path is None else path) as opened:
        content = describe(opened)
    if not tensors:
        del content["tensors"]
    console.write(document(content) if json else text(content))


def describe(file: GGUFFile) -> dict[str, Any]:
    """Everything that is shown, in the form of the JSON document."""
    infos = list(file.tensors.values())
    by_type: dict[str, list[TensorInfo]] = {}
    for info in infos:
        by_type.setdefault(info.type_name, []).append(info)
    types = [{"type": name, **totals(same)} for name, same in by_type.items()]
    return {
        "files": [{"path": str(path), "bytes": path.stat().st_size} for path in file.paths],
        "version": file.version,
        "architecture": file.metadata.get("general.architecture"),
        **totals(infos),
        "types": sorted(types, key=lambda each: -each["bytes"]),
        "metadata": metadata(file),
        "tensors": [
            {
                "name": info.name,
                "shape": list(info.shape),
                "type": info.type_name,
                "bytes": info.nbytes,
                "offset": info.offset,
                "file": info.shard,
            }
            for info in infos
        ],
    }


def totals(infos: Sequence[TensorInfo]) -> dict[str, Any]:
    parameters, nbytes = sum(math.prod(info.shape) for info in infos), sum(info.nbytes for info in infos)
    return {
        "tensor_count": len(infos),
        "parameters": parameters,
        "bytes": nbytes,
        "bits_per_weight": 8 * nbytes / parameters if parameters else None,
    }


def metadata(file: GGUFFile) -> dict[str, dict[str, Any]]:
    """The type and the value of each key; for an array, its type, its length and its first elements."""
    from ..engine.gguf_metadata import Metadata

    values = file.metadata
    assert isinstance(values, Metadata)  # as it is of every file
    found: dict[str, dict[str, Any]] = {}
    for key, field in values.fields.items():
        value = values.head(key, ELEMENTS)
        if field.length is None:
            found[key] = {"type": field.type_name, "value": plain(value, field.type_name)}
        else:
            first = [plain(element, field.type_name) for element in value]  # type: ignore[union-attr]
            found[key] = {"type": field.type_name, "length": field.length, "first": first}
    return found


def plain(value: Any, type_name: str) -> Any:
    """A value for JSON: float32 with as few digits as it needs, NaN and infinity as strings."""
    import numpy as np

    if isinstance(value, str):
        return value
    number = np.dtype(type_name).type(value)
    if type_name.startswith("float"):
        return float(str(number)) if math.isfinite(number) else str(number)
    return number.item()


def document(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


# ---- the text for people ----


def text(content: dict[str, Any]) -> str:
    parts = [*summary(content), "", *type_table(content), "", f"metadata ({len(content['metadata'])})"]
    parts += aligned([[printable(key), *shown(value)] for key, value in content["metadata"].items()])
    if content.get("tensors"):
        parts += ["", f"tensors ({content['tensor_count']})", *tensor_table(content)]
    return "\n".join(parts) + "\n"


def summary(content: dict[str, Any]) -> list[str]:
    files = content["files"]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    bits = content["bits_per_weight"]
    rows = [
        ["file", printable(files[0]["path"]) + more],
        ["size", size(sum(each["bytes"] for each in files))],
        ["GGUF version", str(content["version"])],
        ["architecture", printable(str(content["architecture"] or "not named"))],
        ["parameters", f"{content['parameters']:,}" + (f", {bits:.2f} bits each" if bits else ": only a vocabulary")],
    ]
    return aligned(rows)


def type_table(content: dict[str, Any]) -> list[str]:
    rows = [["type", "tensors", "parameters", "size", "bits/weight"]]
    for each in [*content["types"], content | {"type": "all"}]:
        bits = each["bits_per_weight"]
        rows.append(
            [
                each["type"],
                str(each["tensor_count"]),
                f"{each['parameters']:,}",
                size(each["bytes"]),
                f"{bits:.2f}" if bits else "-",
            ]
        )
    return aligned(rows, "<>>>>")


def tensor_table(content: dict[str, Any]) -> list[str]:
    split = len(content["files"]) > 1
    rows = [["name", "shape", "type", "size", "offset", *(["file"] if split else [])]]
    rows += [
        [
            printable(tensor["name"]),
            " × ".join(map(str, tensor["shape"])),
            tensor["type"],
            size(tensor["bytes"]),
            str(tensor["offset"]),
            *([str(tensor["file"] + 1)] if split else []),
        ]
        for tensor in content["tensors"]
    ]
    return aligned(rows, "<><>>>" if split else "<><>>")


def shown(value: dict[str, Any]) -> tuple[str, str]:
    """The type and the value of a metadata key, in one short line."""
    if "value" in value:
        return value["type"], shortened(word(value["value"]))
    rest = [] if value["length"] == len(value["first"]) else ["..."]
    elements = ", ".join([json.dumps(each, ensure_ascii=False) for each in value["first"]] + rest)
    return f"{value['type']}[{value['length']}]", shortened(printable(f"[{elements}]"))


def word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else printable(str(value))


def shortened(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def printable(line: str) -> str:
    r"""Without what would break a line or command a terminal: such characters are written as \n, \x1b, \udcff."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def size(nbytes: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.2f} {name}"
    return f"{nbytes} B"


def aligned(rows: Sequence[Cells], sides: str = "") -> list[str]:
    """Lines of columns two spaces apart; `sides` has '<' or '>' for each of them, or nothing: all to the left."""
    columns = list(zip(*rows, strict=True))
    sides = sides or "<" * len(columns)
    formats = [f"{side}{max(map(len, column))}" for side, column in zip(sides, columns, strict=True)]
    return ["  ".join(map(format, row, formats)).rstrip() for row in rows]
