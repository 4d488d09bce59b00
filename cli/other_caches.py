"""Models that other programs have downloaded, Ollama and llama.cpp: found by name, and never changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..kernels.errors import LcpuError

OLLAMA, LLAMA_CPP = "ollama:", "llama.cpp:"

_MODEL, _ADAPTER = "application/vnd.ollama.image.model", "application/vnd.ollama.image.adapter"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_USUAL = "library"  # the namespace of Ollama's own models, which their names leave out
_TAG = "latest"  # where none is named


@dataclass(frozen=True)
class Foreign:
    """A model of another program."""

    name: str  # with the program's prefix
    paths: tuple[Path, ...]  # of the GGUF file, or of the files of a split one
    has_adapter: bool = False


def models() -> list[Foreign]:
    """All of them, by name."""
    return sorted([*_ollama(), *_llama_cpp()], key=lambda model: model.name)


def find(name: str) -> Path | None:
    """The GGUF file of a name with a program's prefix; None for other names. Raises LcpuError if there is none."""
    prefix = prefix_of(name)
    if prefix is None:
        return None
    wanted = name
    if prefix == OLLAMA and ":" not in name.removeprefix(OLLAMA):
        wanted = f"{name}:{_TAG}"
    for model in models():
        if model.name == wanted and model.has_adapter:
            raise LcpuError(f"{name}: has an adapter (LoRA), which lcpu does not apply: take the model that it is for")
        if model.name == wanted:
            return model.paths[0]
    raise LcpuError(f"{name}: no such model: `lcpu models` lists what there is")


def prefix_of(name: str) -> str | None:
    return next((prefix for prefix in (OLLAMA, LLAMA_CPP) if name.startswith(prefix)), None)


def _ollama() -> Iterator[Foreign]:
    """Manifests are in manifests/REGISTRY/NAMESPACE/NAME/TAG, and name files in blobs."""
    for root in _ollama_folders():
        manifests = root / "manifests"
        for path in _files(manifests, "*/*/*/*"):
            _, namespace, name, tag = path.relative_to(manifests).parts
            layers = _layers(path)
            match = _DIGEST.fullmatch(layers.get(_MODEL, ""))
            blob = root / "blobs" / f"sha256-{match[1]}" if match else None
            if blob is not None and blob.is_file():
                owner = "" if namespace == _USUAL else f"{namespace}/"
                yield Foreign(f"{OLLAMA}{owner}{name}:{tag}", (blob,), _ADAPTER in layers)


def _ollama_folders() -> list[Path]:
    """Where Ollama keeps its models: of this user, and of the system's service on Linux."""
    named = os.environ.get("OLLAMA_MODELS")
    if named:
        return [Path(named).expanduser()]
    return [Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models")]


def _layers(manifest: Path) -> dict[str, str]:
    """The digest of each layer, by its media type; none if the file is no manifest."""
    try:
        layers = json.loads(manifest.read_bytes())["layers"]
        return {str(layer["mediaType"]): str(layer["digest"]) for layer in layers}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _llama_cpp() -> Iterator[Foreign]:
    """Files named OWNER_REPOSITORY_FILE.gguf. Of a split model, the first file stands for all."""
    from ..convert.gguf_names import models_among

    root = _llama_cpp_folder()
    sizes = {path.name: path.stat().st_size for path in _files(root, "*.gguf")}
    for model in models_among(sizes):
        yield Foreign(LLAMA_CPP + model.files[0], tuple(root / file for file in model.files))


def _llama_cpp_folder() -> Path:
    from platformdirs import user_cache_path

    named = os.environ.get("LLAMA_CACHE")
    return Path(named).expanduser() if named else user_cache_path("llama.cpp", appauthor=False, opinion=False)


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """The files in a folder that match; none where it is not there or not open to this user."""
    try:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())
    except OSError:
        return
