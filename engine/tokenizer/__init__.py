"""Tokenizers: text to token ids and back, from what a GGUF file says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..gguf_file import GGUFFile
from . import vocabulary
from .stream import Utf8Stream
from .tokenizer import Tokenizer

__all__ = ["Tokenizer", "Utf8Stream", "from_metadata", "load"]


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a GGUF file; the file need not have tensors. Raises LcpuError if it cannot be read or used."""
    with GGUFFile.open(path) as file:
        return from_metadata(file.metadata)


def from_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes. Raises LcpuError if lcpu cannot use it."""
    return Tokenizer(vocabulary.read(metadata))
