"""The terminal: generated text on stdout, everything else on stderr, progress only where someone watches."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from ..kernels.errors import LcpuError

if TYPE_CHECKING:
    from rich.progress import Progress

PROGRESS_DELAY = 0.3  # seconds: a load that is faster shows no bar
PROGRESS_PERIOD = 0.1  # seconds between two drawings


def prepare() -> None:
    """Makes stdout, stderr and a piped stdin UTF-8 whatever the locale says; stdout has '?' for what UTF-8 cannot hold.

    Messages that the engine logs go to stderr from here on (`show_messages`).
    """
    if sys.stdout is None:
        raise LcpuError("stdout is closed; send it to a file or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    show_messages()


class _Messages(logging.Handler):
    """Writes what the engine logs to stderr, a line each: `warning: ...` or `note: ...`."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning" if record.levelno >= logging.WARNING else "note"
        notice(f"{kind}: {' '.join(record.getMessage().split())}")


def show_messages(verbose: bool = False) -> None:
    """Shows the warnings that the engine logs, and with `verbose` its notes (level INFO) too."""
    logger = logging.getLogger("lcpu")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


def write(text: str) -> None:
    """Writes to stdout at once: tokens are read as they come."""
    sys.stdout.write(text)
    sys.stdout.flush()


def stream(pieces: Iterable[str], before: str = "") -> None:
    """Writes `before` and then pieces of text as they come, and ends the last line."""
    last = before
    write(before)
    for piece in pieces:
        write(piece)
        last = piece or last
    if not last.endswith("\n"):
        write("\n")


def notice(line: str) -> None:
    """Writes a line to stderr, if there is one that takes it: no run ends for the sake of what is said beside it."""
    if sys.stderr is not None:  # print() would write to stdout
        try:
            print(line, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            abandon(sys.stderr)


def end_line() -> None:
    """Leaves an interrupted terminal at the start of a line."""
    if stderr_is_terminal():
        notice("")


def stdin_is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def stderr_is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def abandon_output() -> None:
    """Sends what is left of stdout nowhere if it can no longer be written to."""
    if sys.stdout is not None:
        abandon(sys.stdout)


def abandon(stream: TextIO) -> None:
    """Sends a stream that can no longer be written to nowhere, or Python would complain about it again at exit."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class LoadProgress:
    """Shows what `LLM.load` reports: a bar on a terminal, else only the one line that explains a slow first run."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.started = time.monotonic()
        self.drawn = 0.0
        self.announced = False

    def __enter__(self) -> LoadProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total` steps of a stage ("loading", "compiling") are done; of None, nobody knows how many."""
        if stage == "compiling" and not self.announced:
            self.announced = True
            from ..kernels.kernel_cache import can_keep

            notice(f"compiling kernels for this processor{' (first run only)' if can_keep() else ''}...")
        now = time.monotonic()
        overdue = now - self.started >= PROGRESS_DELAY and now - self.drawn >= PROGRESS_PERIOD
        if overdue and stderr_is_terminal():
            self.drawn = now
            self.draw(stage, done, total)

    def draw(self, stage: str, done: int, total: int | None) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import Progress

            # NO_COLOR and dumb terminals are rich's business. No refresh thread: cores are for the load.
            self.bar = Progress(console=Console(stderr=True), auto_refresh=False, transient=True)
            self.bar.add_task(stage)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], description=stage, completed=done, total=total, refresh=True)
