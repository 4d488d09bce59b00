"""Large files from the hub, which go on where an earlier download was interrupted.

The hub's client deletes what it has of a file when it is interrupted. So its functions fetch the file here, to a
partial file in its cache; once that is whole, the client finds it there as its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..kernels.errors import LcpuError

_SHA256_DIGITS = 64  # of the tag of a large file, which is its SHA-256
_PIECE = 16 << 20  # bytes that are hashed at a time


def complete(repo: str, name: str, commit: str) -> None:
    """Put a file of a commit where the client looks for its contents. Raises what the client raises.

    A hub that does not describe the file leaves it to the client.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    url = hf_hub_url(repo, name, revision=commit)
    described = get_hf_file_metadata(url)
    if not described.etag or not described.size:
        return
    cache, folder = Path(HF_HUB_CACHE), repo_folder_name(repo_id=repo, repo_type="model")
    whole = cache / folder / "blobs" / described.etag
    lock = cache / ".locks" / folder / f"{described.etag}.lock"  # the client's own
    for path in (whole, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _client_utils().WeakFileLock(lock):
        if not whole.exists():
            partial = whole.with_name(f"{whole.name}.incomplete")
            _fetch(partial, name, url, described)
            partial.replace(whole)


def _client_utils() -> Any:
    """The client's module of helpers, whose types leave out what it takes from others."""
    from huggingface_hub import utils

    return utils


def _fetch(partial: Path, name: str, url: str, described: Any) -> None:
    """Download what the partial file lacks. If it was begun earlier, its contents are checked at the end."""
    from huggingface_hub.file_download import http_get

    headers = _client_utils().build_hf_headers()
    if urlsplit(url).netloc != urlsplit(described.location).netloc:
        headers.pop("authorization", None)  # the token is for the hub only
    with partial.open("ab") as file:
        begun = file.tell()
        if begun > described.size:
            file.truncate(begun := 0)
        http_get(described.location, file, resume_size=begun, headers=headers, expected_size=described.size,
                 displayed_filename=name)
    if begun and len(described.etag) == _SHA256_DIGITS and _sha256(partial) != described.etag:
        partial.unlink()
        raise LcpuError(f"{name}: what an interrupted download left was damaged, and is deleted: run the command again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
