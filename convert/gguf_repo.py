"""GGUF files in repositories of the Hugging Face hub: which of them is meant, and its way into the hub's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..kernels.errors import LcpuError
from ..kernels.memory import size_text
from . import hub
from .checkpoint import WEIGHTS
from .gguf_names import ORDER, NamedModel, base_type, files_with, models_among

_SHOWN = 12  # names in an error


def fetch(repo: str, type_name: str | None, file: str | None, revision: str | None, *, show_progress: bool,
          announce: Callable[[str], None]) -> Path:
    """The path in the hub's cache of a repository's GGUF model, downloaded if it is not there: of its first file.

    type_name: such as "q4_k_m"; file: its name in the repository. announce(line) is called before a download.
    Raises LcpuError if there is no such model, if there are several, or if the repository cannot be reached.
    """
    with hub.explained(repo, revision, show_progress):
        listing = hub.listing_of(repo, revision)
        model = choose(repo, listing.sizes, type_name, file)
        missing = [] if listing.is_offline else [name for name in model.files if not _is_cached(repo, name, listing)]
        if missing:
            nbytes = sum(listing.sizes[name] for name in missing)
            hub.check_space(repo, nbytes)
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            announce(f"downloading {repo}: {missing[0]}{more}, {size_text(nbytes)}")
        return hub.download_large(repo, revision, model.files, missing, listing)


def _is_cached(repo: str, name: str, listing: hub.Listing) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, name, revision=listing.commit), str)


def choose(repo: str, sizes: Mapping[str, int], type_name: str | None, file: str | None) -> NamedModel:
    """The model that is meant, of a repository with these files. Raises LcpuError unless there is one."""
    if file is not None:
        return _named(repo, sizes, file)
    models = models_among(sizes)
    if not models:
        raise LcpuError(f"{repo}: {_without_models(repo, sizes)}")
    found = _of_type(models, type_name) if type_name is not None else _first(models)
    if len(found) == 1:
        return found[0]
    types = sorted({model.type for model in models if model.type is not None})
    if not found and type_name is not None:
        has = f"it has {_listed(types)}" if types else f"its files are {_listed(model.files[0] for model in models)}"
        raise LcpuError(f"{repo}: has no GGUF file of type {type_name.upper()}: {has}")
    if not found:
        raise LcpuError(f"{repo}: has GGUF files of no type that lcpu runs: to try one of {_listed(types)}, name it as "
                        f"{repo}:{types[0]}")
    what = f"{len(found)} models" + (f" of type {found[0].type}" if found[0].type else "")
    raise LcpuError(f"{repo}: has {what}: choose one with --hf-file NAME: {_listed(model.files[0] for model in found)}")


def _of_type(models: Sequence[NamedModel], name: str) -> list[NamedModel]:
    exact = [model for model in models if model.type == name.upper()]
    return exact or [model for model in models if model.plain_type == name.upper()]


def _first(models: Sequence[NamedModel]) -> list[NamedModel]:
    """The models of the first type of ORDER that lcpu runs, else those whose names do not tell a type."""
    from ..kernels.formats import FORMATS

    runs = {format.name.upper() for format in FORMATS.values()}
    of_types = (_of_type(models, name) for name in ORDER if base_type(name) in runs)
    return next(filter(None, of_types), [model for model in models if model.type is None])


def _named(repo: str, sizes: Mapping[str, int], file: str) -> NamedModel:
    """The model of a file that the user names, with or without its folder."""
    found = [name for name in sizes if file == name] or [name for name in sizes if name.endswith(f"/{file}")]
    if len(found) != 1:
        there = [name for name in sizes if name.lower().endswith(".gguf")]
        cause = f"has {len(found)} files named {file}" if found else f"has no file {file}"
        raise LcpuError(f"{repo}: {cause}: --hf-file can be {_listed(found or there) or 'none, it has no GGUF files'}")
    files = files_with(found[0], sizes)
    if not files:
        raise LcpuError(f"{repo}: has not all files of the split model {found[0]}: take another file or repository")
    return NamedModel(files, sum(sizes[name] for name in files))


def _without_models(repo: str, sizes: Mapping[str, int]) -> str:
    if "config.json" in sizes and any(name in sizes for names in WEIGHTS for name in names):
        return (f"has no GGUF files but a checkpoint: make one with `lcpu convert {repo}`, or run it at once with "
                "--convert")
    return "has no GGUF files of a model: take another repository"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
