"""The two files of `lcpu batch`: lines that come in, from a file or a pipe, and answers that go out."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any, BinaryIO, TextIO

from ..kernels.errors import LcpuError
from . import console
from .batch_lines import ANSWER_START, answered_line
from .options import UsageError

Line = tuple[int, bytes]  # its number, from 1 on

MOST_HELD = 10_000  # answers that wait for an earlier one
# Ends of lines in Unicode, at which some readers would cut an answer (U+0085, U+2028 and U+2029).
_ESCAPED = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_LINES_AHEAD = 64  # that are read of a pipe before they are needed


def is_stream(path: Path | None) -> bool:
    return path is None or str(path) == "-"


def open_input(path: Path | None) -> BinaryIO:
    """The file, or the pipe on stdin."""
    if path is not None and not is_stream(path):
        try:
            return path.open("rb")
        except OSError as error:
            raise LcpuError(f"cannot read {path}: {error.strerror}; check the path after -f") from error
    if sys.stdin is None or (path is None and console.stdin_is_terminal()):
        raise UsageError("no requests: give -f FILE or a pipe on stdin")
    try:  # not sys.stdin itself, on which a thread that still reads would end Python with an error
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, io.UnsupportedOperation):
        return sys.stdin.buffer


def size_of(source: BinaryIO) -> int | None:
    """Bytes of a regular file; None for a pipe."""
    try:
        return os.fstat(source.fileno()).st_size if Path(source.name).is_file() else None
    except (OSError, TypeError, AttributeError, io.UnsupportedOperation):
        return None


def read_lines(source: BinaryIO, waiting: Callable[[], bool]) -> Iterator[Line | None]:
    """The lines that are not empty. Of a pipe, None while there is no further one and waiting() says that others need
    not stand still for it."""
    lines = source if size_of(source) is not None else _from_pipe(source, waiting)
    number = 0
    for data in lines:
        if data is None:
            yield None
            continue
        number += 1
        if data.strip():
            yield number, data


def _from_pipe(source: BinaryIO, waiting: Callable[[], bool]) -> Iterator[bytes | None]:
    """A thread reads, since a pipe may bring nothing for long."""
    lines: Queue[bytes | BaseException | None] = Queue(_LINES_AHEAD)

    def read() -> None:
        try:
            for line in source:
                lines.put(line)
            lines.put(None)
        except BaseException as error:
            lines.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(block=not waiting())
        except Empty:
            yield None
            continue
        if line is None:
            return
        if isinstance(line, BaseException):
            raise line
        yield line


# ---- answers ----


@dataclass
class Answered:
    """Which lines have an answer from an earlier run."""

    up_to: int = 0  # all of them
    beyond: set[int] = field(default_factory=set)
    last: tuple[int, Any] = (0, None)  # line and id of the last answer

    def add(self, line: int, id: Any) -> None:
        self.last = line, id
        self.beyond.add(line)
        while self.up_to + 1 in self.beyond:
            self.up_to += 1
            self.beyond.remove(self.up_to)

    def __contains__(self, line: int) -> bool:
        return line <= self.up_to or line in self.beyond


def open_output(path: Path | None, source: BinaryIO, *, resume: bool, force: bool) -> tuple[TextIO | None, Answered]:
    """Where answers go, None being stdout, and which are there already.

    resume: add to the file; an answer that was cut is taken away. force: overwrite it. Raises LcpuError for a file with
    something in it where neither is wanted, and for one that holds anything but answers.
    """
    answered = Answered()
    if path is None or is_stream(path):
        if resume:
            raise UsageError("--resume continues a file: name it with -o")
        return None, answered
    if path.is_file() and _is_same(path, source):
        raise UsageError(f"{path} is the input and the output: name another file with -o")
    if path.is_file() and path.stat().st_size and not force:
        if not resume:
            raise LcpuError(f"{path}: is there already; --resume continues it, --force overwrites it")
        _read_answers(path, answered)
    try:
        return path.open("a" if resume else "w", encoding="utf-8", errors="replace", newline="\n"), answered
    except OSError as error:
        raise LcpuError(f"cannot write {path}: {error.strerror}; check the path after -o") from error


def _is_same(path: Path, source: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(source.fileno()))
    except (OSError, io.UnsupportedOperation):
        return False


def _read_answers(path: Path, answered: Answered) -> None:
    with path.open("rb+") as file:
        end = 0
        for number, data in enumerate(file, 1):
            is_cut = not data.endswith(b"\n")
            if is_cut and (data.startswith(ANSWER_START) or ANSWER_START.startswith(data)):
                file.truncate(end)
                return
            found = None if is_cut else answered_line(data)
            if found is None:
                raise LcpuError(f"{path}: line {number} is no answer of lcpu batch: name the file to continue with -o, "
                                "or overwrite this one with --force instead of --resume")
            answered.add(*found)
            end += len(data)


class Answers:
    """Writes answers, a line each, in the order of the lines that they belong to, or as they come."""

    def __init__(self, file: TextIO | None, *, ordered: bool) -> None:
        """file: None is stdout."""
        self._file, self._ordered = file, ordered
        self._expected: deque[int] = deque()
        self._held: dict[int, str] = {}

    def expect(self, line: int) -> None:
        """An answer to this line will come, and is to stand after those that were expected before."""
        if self._ordered:
            self._expected.append(line)

    def add(self, line: int, answer: dict[str, Any]) -> None:
        text = json.dumps(answer, ensure_ascii=False).translate(_ESCAPED) + "\n"
        if not self._ordered:
            self._write(text)
            return
        self._held[line] = text
        while self._expected and self._expected[0] in self._held:
            self._write(self._held.pop(self._expected[0]))
            self._expected.popleft()

    @property
    def is_full(self) -> bool:
        """Whether so many wait for an earlier one that no further should come."""
        return len(self._held) >= MOST_HELD

    def _write(self, text: str) -> None:
        if self._file is None:
            console.write(text)
        else:
            self._file.write(text)
            self._file.flush()
