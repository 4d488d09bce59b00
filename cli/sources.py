"""Which model a command line names: a file, a checkpoint, a repository on the hub, another program's model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..kernels.errors import LcpuError
from . import console, other_caches
from .options import UsageError, from_environment

if TYPE_CHECKING:
    from ..engine.gguf_file import GGUFFile


@dataclass(frozen=True)
class Source:
    """What the flags say of a model. `fetched` gives it a path."""

    path: Path | None = None  # -m; without a repository either, it is the embedded model
    repo: str | None = None  # -hf: OWNER/NAME[:TYPE]
    file: str | None = None  # in the repository
    revision: str | None = None
    convert: bool = False  # the checkpoint in the repository
    type: str | None = None  # that a checkpoint is converted to

    @property
    def is_embedded(self) -> bool:
        return self.path is None and self.repo is None


def chosen(settings: typer.Context, path: Path | None, repo: str | None, file: str | None = None,
           revision: str | None = None, convert: bool = False, type: str | None = None) -> Source:
    """What -m, -hf and their companions name. Raises UsageError for flags that contradict each other."""
    path, repo = _path_or_repo(settings, path, repo, "model", "hf_repo")
    if repo is None and from_environment(settings, "hf_file"):
        file = None
    for flag, value in (("--hf-file", file), ("--revision", revision), ("--convert", convert)):
        if value and repo is None:
            raise UsageError(f"{flag} is about a repository on the hub: name it with -hf OWNER/NAME, or leave it out")
    if file is not None and convert:
        raise UsageError("--hf-file names a GGUF file, and --convert takes a checkpoint: leave out one of them")
    if type is not None:
        check_type(type)
    return Source(path, repo, file, revision, convert, type)


def chosen_draft(settings: typer.Context, path: Path | None, repo: str | None) -> Source | None:
    """What -md and -hfd name, if they do."""
    path, repo = _path_or_repo(settings, path, repo, "model_draft", "hf_repo_draft")
    return None if path is None and repo is None else Source(path, repo)


def _path_or_repo(settings: typer.Context, path: Path | None, repo: str | None, path_name: str,
                  repo_name: str) -> tuple[Path | None, str | None]:
    """One of two parameters, of these names: the command line wins over the environment."""
    if path is None or repo is None:
        return path, repo
    path_is_set, repo_is_set = from_environment(settings, path_name), from_environment(settings, repo_name)
    if path_is_set == repo_is_set:
        flags = "-m and -hf" if path_name == "model" else "-md and -hfd"
        raise UsageError(f"{flags} both name a model: leave out one of them")
    return (None, repo) if path_is_set else (path, None)


def check_type(name: str) -> None:
    """Raises UsageError for what no checkpoint can be converted to."""
    from ..convert.type_rules import ALIASES
    from ..convert.types import TYPES

    if name.lower() not in (*TYPES, *ALIASES):
        raise UsageError(f"no type {name!r}: --type is {', '.join(TYPES)}")


def fetched(source: Source) -> Source:
    """The same with a path, or without one for the embedded model. What is on the hub is downloaded, if need be.

    Raises LcpuError if there is no such model.
    """
    if source.repo is not None:
        return _from_hub(source, source.repo)
    if source.path is None or os.path.exists(source.path):  # a Path raises an error for too long a name
        return source
    name = source.path.as_posix()
    found = other_caches.find(name)
    if found is None:
        _suggest_hub(name)
        return source
    return replace(source, path=found)


def all_fetched(settings: typer.Context, paths: Sequence[Path], repo: str | None, file: str | None,
                revision: str | None) -> list[Path]:
    """The paths of several models, or of the one in a repository."""
    source = chosen(settings, paths[0] if paths else None, repo, file, revision)
    every = [source] if source.repo is not None else [replace(source, path=path) for path in paths]
    return [path for path in (fetched(each).path for each in every) if path is not None]


def _from_hub(source: Source, repo: str) -> Source:
    from ..convert import gguf_repo, hub
    from ..convert.plan import check_description

    name, _, type = repo.partition(":")
    if not hub.is_repo(name):
        raise LcpuError(f"{repo}: is not the name of a model on the hub, which is OWNER/NAME or OWNER/NAME:TYPE")
    shows = console.stderr_is_terminal()
    if source.convert:
        folder, _ = hub.fetch(name, source.revision, show_progress=shows,
                              check=lambda folder: check_description(folder, name))
        return replace(source, path=folder, type=source.type or type or None)
    path = gguf_repo.fetch(name, type or None, source.file, source.revision, show_progress=shows,
                           announce=console.notice)
    return replace(source, path=path)


def _suggest_hub(name: str) -> None:
    """Raises LcpuError for the name of a repository. That of a file that is not there is an error for who opens it."""
    from ..convert.hub import is_repo

    if is_repo(name.partition(":")[0]) and not name.endswith(".gguf"):
        raise LcpuError(f"{name}: no such file: check the path; a model on the hub is named with -hf {name}")


def open_file(path: Path | None, type: str | None = None) -> GGUFFile:
    """The model of a path, as `LLM.load` opens it."""
    from .. import open_model

    return open_model(path, type)
