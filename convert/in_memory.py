"""A checkpoint that runs without a file: to the engine it is a GGUF file, whose tensors are made when they are read."""

from __future__ import annotations

import hashlib
import logging
import mmap
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from ..engine.gguf_file import GGUFFile, TensorInfo
from ..engine.gguf_metadata import Cursor, Value, read_metadata
from ..engine.threads import thread_count
from ..kernels.errors import LcpuError
from ..kernels.team import Team
from .checkpoint import Checkpoint, open_checkpoint
from .encode import Encoder
from .gguf_writer import TensorToWrite, head_of
from .plan import Plan, PlannedTensor, plan
from .type_rules import ALIASES
from .types import TYPES

_BEFORE_METADATA = 4 + 4 + 8 + 8  # bytes of a GGUF file: magic, version, two counts


def open_converted(folder: Path, type_name: str | None = None, threads: int | None = None) -> GGUFFile:
    """The checkpoint in a folder as the GGUF file that `lcpu convert --type` would make of it.

    Memory is taken for a tensor at a time, as it is read, by as many threads. Raises LcpuError for what cannot be
    converted.
    """
    name = (type_name or "auto").lower()
    if name not in (*TYPES, *ALIASES):
        raise LcpuError(f"no type {type_name!r}: choose one of {', '.join(TYPES)}")
    checkpoint = open_checkpoint(folder)
    try:
        planned = plan(checkpoint, name, folder.resolve().name)
        for note in filter(None, (*planned.notes, planned.kept())):
            logging.getLogger("lcpu").info("%s: %s", folder, note)
        return _ConvertedCheckpoint(checkpoint, planned, thread_count(threads, planned.nbytes))
    except BaseException:
        checkpoint.close()
        raise


class _ConvertedCheckpoint(GGUFFile):
    """A checkpoint in the form of a GGUF file."""

    def __init__(self, checkpoint: Checkpoint, planned: Plan, threads: int) -> None:
        self.path, self.paths, self.version = checkpoint.folder, (checkpoint.folder,), 3
        self._head = head_of(planned.metadata, [TensorToWrite(each.name, each.values.shape, each.type_id, b"")
                                                for each in planned.tensors], 32)
        self.metadata = _metadata(checkpoint.folder, self._head, len(planned.metadata))
        self.tensors = {each.name: TensorInfo(each.name, each.values.shape, each.type_id, each.nbytes, 0, 0)
                        for each in planned.tensors}
        self._checkpoint, self._threads = checkpoint, threads
        self._planned: dict[str, PlannedTensor] = {each.name: each for each in planned.tensors}
        # What is in use is not made again: the engine keeps the embedding, which may be the output layer as well.
        self._made: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()

    def data(self, name: str) -> np.ndarray:
        """The bytes of a tensor: uint8 [nbytes]. They live as long as somebody holds them."""
        info = self._tensor(name)
        made = self._made.get(name)
        if made is None:
            with Team(self._threads) as team:
                made = Encoder(team).encode(name, self._planned[name].values, info.type_id, lambda nbytes: None)
            self._made[name] = made
        return made

    def fingerprint(self) -> str:
        """As that of a file, but with rows of the checkpoint for samples: to convert all tensors takes long."""
        digest = hashlib.blake2b(self._head, digest_size=16)
        for each in self._planned.values():
            for row in (0, each.values.shape[0] // 2, each.values.shape[0] - 1):
                digest.update(np.ascontiguousarray(each.values.rows(row, row + 1)).data)
        return digest.hexdigest()

    def release(self, name: str) -> None:
        """Nothing to do: nothing is kept."""

    def close(self) -> None:
        self._checkpoint.close()


def _metadata(folder: Path, head: bytes, count: int) -> Mapping[str, Value]:
    """The metadata as they would be read from a file, with a file's types."""
    buffer = mmap.mmap(-1, len(head))
    buffer.write(head)
    cursor = Cursor(folder, buffer)
    cursor.skip(_BEFORE_METADATA, "the head")
    return read_metadata(cursor, count)
