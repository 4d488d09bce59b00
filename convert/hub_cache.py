"""The models in the cache of the Hugging Face hub's client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..kernels.errors import LcpuError
from .checkpoint import WEIGHTS
from .gguf_names import models_among

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, CachedRepoInfo, HFCacheInfo

CHECKPOINT = "checkpoint"  # in the place of a type


@dataclass(frozen=True)
class CachedModel:
    """A GGUF model, or the checkpoint of a repository."""

    name: str  # OWNER/NAME:TYPE, as -hf takes it; with a file's name where the type does not tell which; or OWNER/NAME
    type: str
    nbytes: int
    last_used: float  # seconds since the epoch
    repo: str
    files: tuple[str, ...]  # of a GGUF model


def models() -> list[CachedModel]:
    """All models in the cache, by name."""
    cache = _cache()
    repos = cache.repos if cache is not None else ()
    found = (model for repo in repos if repo.repo_type == "model" for model in _models_of(repo))
    return sorted(found, key=lambda model: model.name)


def delete(name: str) -> int:
    """Delete a model, by its name in `models` (in any case), or all that is there of the repository OWNER/NAME.

    Returns how many bytes this frees. Raises LcpuError if there is no such model.
    """
    cache = _cache()
    repos = {repo.repo_id.lower(): repo for repo in cache.repos if repo.repo_type == "model"} if cache else {}
    there = {model.name.lower(): model for model in models()}
    model = there.get(name.lower())
    repo = repos.get((model.repo if model else name).lower())
    if cache is None or repo is None:
        raise LcpuError(f"{name}: no such model in the cache: `lcpu models` lists what there is")
    cache = replace(cache, repos=frozenset({repo}))  # a copy of a repository has revisions of the same names
    if model is None or sum(other.repo == model.repo for other in there.values()) == 1:
        strategy = cache.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
    elif hasattr(cache, "delete_files"):
        strategy = cache.delete_files(*(file for file in _files(repo) if file_name(file) in model.files))
    else:
        raise LcpuError(f"{name}: this version of huggingface_hub deletes repositories only: name {model.repo}, or "
                        "pip install -U huggingface_hub")
    strategy.execute()
    return strategy.expected_freed_size


def _cache() -> HFCacheInfo | None:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir()
    except (CacheNotFound, ValueError):  # ValueError: a file in the place of the folder
        return None


def _models_of(repo: CachedRepoInfo) -> Iterator[CachedModel]:
    by_name: dict[str, list[CachedFileInfo]] = {}
    for file in _files(repo):
        by_name.setdefault(file_name(file), []).append(file)
    found = models_among({name: files[0].size_on_disk for name, files in by_name.items()})
    types = Counter(model.type for model in found)
    for model in found:
        blobs = {file.blob_path: file for name in model.files for file in by_name[name]}
        ending = f"/{model.files[0]}" if types[model.type] > 1 else f":{model.type}" if model.type else ""
        yield CachedModel(repo.repo_id + ending, model.type or "", sum(file.size_on_disk for file in blobs.values()),
                          max(file.blob_last_accessed for file in blobs.values()), repo.repo_id, model.files)
    if not found and "config.json" in by_name and any(name in by_name for names in WEIGHTS for name in names):
        yield CachedModel(repo.repo_id, CHECKPOINT, repo.size_on_disk, repo.last_accessed, repo.repo_id, ())


def _files(repo: CachedRepoInfo) -> Iterator[CachedFileInfo]:
    """Of all revisions, the newest first."""
    for revision in sorted(repo.revisions, key=lambda revision: -revision.last_modified):
        yield from revision.files


def file_name(file: CachedFileInfo) -> str:
    """The name of a file in its repository, with its folder: the client gives the last part of it."""
    parts = file.file_path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("snapshots") + 1 :])
