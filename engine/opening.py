"""Open what a user names as a model: a GGUF file, or the folder of a checkpoint, which is converted in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from .. import models
from ..kernels.errors import LcpuError
from .gguf_file import GGUFFile

CheckpointOpener: TypeAlias = Callable[[Path, "str | None", "int | None"], GGUFFile]  # folder, type, threads

# The engine reads GGUF files and knows no checkpoints; the root of the package puts here what `convert` does.
open_checkpoint: CheckpointOpener | None = None


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a folder with a Hugging Face model. Repositories of GGUF files may have a config.json, too."""
    if not os.path.isdir(path):  # a Path raises an error for too long a name
        return False
    names = os.listdir(path)
    has_weights = any(name.endswith((".safetensors", ".bin")) for name in names)
    return "config.json" in names and (has_weights or not any(name.endswith(".gguf") for name in names))


def open_model(path: str | os.PathLike[str] | None, type: str | None = None, threads: int | None = None) -> GGUFFile:
    """The model of a path, or the embedded one without a path.

    type: for a checkpoint, the type of the matrices, by default that of its values. threads: that convert it.
    Raises LcpuError for what is neither, and for a GGUF file with a `type`.
    """
    path = models.path() if path is None else Path(path)
    if open_checkpoint is not None and is_checkpoint(path):
        return open_checkpoint(path, type, threads)
    file = GGUFFile.open(path)
    if type is not None:
        file.close()
        raise LcpuError(f"{path}: is a GGUF file, whose types are settled, and type {type!r} is for checkpoints: leave "
                        "it out, or make another file with `lcpu quantize`")
    return file
