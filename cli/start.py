"""The first steps of the `lcpu` command, before anything is imported that takes time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> None:
    """The entry point of the `lcpu` script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have told us to ignore it
        signal.signal(signal.SIGINT, end_at_once)
    signal.signal(signal.SIGTERM, end_at_once)
    open_closed_streams()
    set_up_libraries()

    from .main import main as command

    command()


def end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """End without a word, where nothing has to be tidied up: before the command begins and after it has ended."""
    os._exit(128 + number)


def open_closed_streams() -> None:
    """Put /dev/null in the place of each standard stream that is closed.

    Otherwise the next file to be opened would get its number, and with it what libraries write to that stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stderr is None:  # Python's print() would write to stdout instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives


def set_up_libraries() -> None:
    """Remove NUMBA_* from the environment: such settings are made for other programs, and some end a process.

    NumPy's BLAS, which nothing here uses, gets no threads: it would complain where there may be none.
    """
    for name in [name for name in os.environ if name.startswith("NUMBA_")]:
        del os.environ[name]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
