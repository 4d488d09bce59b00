"""Models from the Hugging Face hub, through its own client: its cache, tokens, mirrors and offline mode.

Of a repository, only what is needed is downloaded. The client goes on after a lost connection; files that came
whole are in its cache for the next run, and so is the beginning of a GGUF file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..kernels.errors import LcpuError
from .checkpoint import INDEXES, QUANTIZERS, weight_files
from .hub_download import complete
from .json_file import read_json
from .safetensors_file import tensors_of
from .source import SourceTensor
from .tokenizers import FILES

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_SMALL = ("config.json", *QUANTIZERS, *INDEXES, *FILES)


def is_repo(source: str) -> bool:
    """Whether a text has the form of a repository's name: owner/model."""
    return bool(_REPO.fullmatch(source)) and not source.startswith(("./", "../"))


@dataclass(frozen=True)
class Listing:
    """The files of a repository."""

    sizes: Mapping[str, int]  # by name
    commit: str
    is_offline: bool  # these are the ones in the cache


def fetch(
    repo: str, revision: str | None, *, only_describe: bool = False, show_progress: bool = False,
    check: Callable[[Path], None] | None = None,
) -> tuple[Path, dict[str, SourceTensor] | None]:
    """The folder of the checkpoint in a repository, downloaded as far as it is not in the cache.

    With `only_describe`, safetensors that are not there are not downloaded: the second value has the descriptions of
    their tensors then, and is None otherwise. `check` is called before weights are downloaded, with the folder that has
    the small files. Progress is the client's own, on stderr.
    Raises LcpuError if the repository is not there, not open, or out of reach and not in the cache.
    """
    with explained(repo, revision, show_progress):
        listing = listing_of(repo, revision)
        small = [name for name in _SMALL if name in listing.sizes]
        folder = download(repo, revision, small, listing.is_offline)  # notes which commit the revision is
        weights = weight_files(repo, listing.sizes, lambda index: read_json(folder / index))
        missing = [name for name in weights if not (folder / name).exists()]
        if missing and check is not None:
            check(folder)
        if missing and not listing.is_offline:
            if only_describe and all(name.endswith(".safetensors") for name in weights):
                return folder, _describe(repo, folder.name, weights)
            check_space(repo, sum(listing.sizes.get(name, 0) for name in missing))
        return download(repo, folder.name, weights, listing.is_offline), None


def listing_of(repo: str, revision: str | None) -> Listing:
    """The files of a repository, or, where it is out of reach, those of it in the cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        return Listing(sizes, info.sha or "", is_offline=False)
    except HFValidationError:
        raise
    except Exception as error:  # offline mode, or what the client's HTTP library raises
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        cause = error
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[], local_files_only=True))
    except LocalEntryNotFoundError:
        raise LcpuError(f"{repo}: is not in the cache, and the hub is out of reach ({_first_line(cause)})") from None
    files = (path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return Listing(sizes, folder.name, is_offline=True)


def download(repo: str, revision: str | None, names: list[str], is_offline: bool) -> Path:
    """The folder of the cache with these files; its name is the commit."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=revision, allow_patterns=names, local_files_only=is_offline))


def download_large(repo: str, revision: str | None, names: Sequence[str], missing: Collection[str],
                   listing: Listing) -> Path:
    """The path of the first of some files that take long: one after another, so that Ctrl-C ends it at once.

    missing: those that are not in the cache. What came of them before an interruption is not downloaded again.
    """
    from huggingface_hub import hf_hub_download

    paths: list[Path] = []
    for name in names:
        if name in missing:
            complete(repo, name, listing.commit)
        paths.append(Path(hf_hub_download(repo, name, revision=revision, local_files_only=listing.is_offline)))
        revision = paths[0].parents[names[0].count("/")].name  # the commit
    return paths[0]


def _describe(repo: str, commit: str, names: list[str]) -> dict[str, SourceTensor]:
    """The tensors of safetensors files, from their headers alone."""
    from huggingface_hub import HfApi

    tensors: dict[str, SourceTensor] = {}
    for name in names:
        metadata = HfApi().parse_safetensors_file_metadata(repo, name, revision=commit)
        header = {key: {"dtype": info.dtype, "shape": info.shape, "data_offsets": info.data_offsets}
                  for key, info in metadata.tensors.items()}
        tensors |= tensors_of(header, f"{repo}/{name}", None, 0)
    return tensors


def check_space(repo: str, nbytes: int) -> None:
    """Raises LcpuError if the disk of the cache has less than `nbytes` left."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE).expanduser().resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise LcpuError(f"{repo}: the download needs {nbytes / 2**30:.2f} GiB, but the disk of {folder} has "
                        f"{free / 2**30:.2f} GiB left: make room, or set HF_HOME to another disk")


@contextlib.contextmanager
def explained(repo: str, revision: str | None, show_progress: bool) -> Iterator[None]:
    """Turns what the hub's client raises into one line: the cause and the way out. Its progress bars go to stderr."""
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not show_progress:
        disable_progress_bars()
    try:
        yield
    except LcpuError:
        raise
    except errors.GatedRepoError:
        way_out = "the token in HF_TOKEN has no access to it" if os.environ.get("HF_TOKEN") else "then set HF_TOKEN"
        raise LcpuError(f"{repo}: is gated: accept its terms on its page first; {way_out}") from None
    except errors.RepositoryNotFoundError:
        raise LcpuError(f"{repo}: no such model on the hub: check the name; a private one needs HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise LcpuError(f"{repo}: has no revision {revision!r}: check --revision") from None
    except errors.HFValidationError as error:
        raise LcpuError(f"{repo}: is not a model's name, nor a folder: {_first_line(error)}") from None
    except errors.LocalEntryNotFoundError:
        raise LcpuError(f"{repo}: is not in the cache as a whole, and the hub is out of reach") from None
    except Exception as error:  # the network, in the words of the client's HTTP library
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise LcpuError(f"{repo}: the disk is full: make room, or set HF_HOME to another disk") from None
        raise LcpuError(f"{repo}: the download failed ({_first_line(error)}); run it again: files that came whole are "
                        "kept") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
