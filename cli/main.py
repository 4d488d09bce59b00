"""The `lcpu` command: the table of subcommands, and the one place where an error becomes a line and an exit code.

Exit codes: 0; 1 an error; 2 a wrong command line; 129 hung up, 130 interrupted and 143 terminated (128 + SIGHUP, SIGINT
and SIGTERM). A reader that closes the pipe (`lcpu run | head`) has had what it wanted: that ends quietly, with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer
from typer.main import get_command

from .. import __version__
from ..kernels.errors import LcpuError
from . import console
from .batch import batch
from .bench import bench
from .convert import convert
from .imatrix import imatrix
from .inspect import inspect_file
from .models import models
from .options import UsageError
from .perplexity import perplexity
from .quantize import quantize
from .run import run
from .start import end_at_once

# Signals that end a command: of supervisors, and of a terminal that is closed.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# A subcommand is one file and one line here. Its module imports neither numba, numpy nor the engine: its function does.
SUBCOMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "batch": batch,
    "bench": bench,
    "perplexity": perplexity,
    "inspect": inspect_file,
    "convert": convert,
    "quantize": quantize,
    "imatrix": imatrix,
    "models": models,
}

ECHO = 0.5  # seconds
answered = -ECHO  # time of the last signal that was no echo

app = typer.Typer(
    name="lcpu",
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich would cost half of the time that --help may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for name, function in SUBCOMMANDS.items():
    app.command(name)(function)


def print_version(wanted: bool) -> None:
    if wanted:
        console.write(f"lcpu {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def lcpu(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Run large language models on the CPU: GGUF files, kernels compiled for this processor."""
    if context.invoked_subcommand is None:
        console.notice(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line of this process, and end it."""
    code: int | str | None = 130
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, interrupt)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
                signal.signal(number, terminate)
        code = exit_code(sys.argv[1:])
    except KeyboardInterrupt:  # before the command began, or again while the first was answered
        pass
    except SystemExit as end:  # by `terminate`
        code = end.code
    finally:
        for number in (signal.SIGINT, *ENDING):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, end_at_once)
    if isinstance(code, int) and code > 128:  # all is tidied up, but a thread may be compiling: do not wait for it
        os._exit(code)
    sys.exit(code)


def exit_code(arguments: list[str]) -> int:
    """Runs one command line, reports what goes wrong in one line on stderr, and returns the exit code."""
    try:
        console.prepare()
        # Not app(): it would answer Ctrl-C, a closed pipe and usage errors in its own ways.
        command = get_command(app)
        with command.make_context("lcpu", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        console.end_line()
        return 130
    except BrokenPipeError:
        console.abandon_output()
        return 0
    except Exception as error:
        if os.environ.get("LCPU_DEBUG") == "1":
            traceback.print_exc()
        called = " ".join(["lcpu", *(name for name in arguments[:1] if name in SUBCOMMANDS)])
        console.notice(f"lcpu: error: {one_line(error, called)}")
        console.abandon_output()
        return 2 if isinstance(error, UsageError) else 1


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: end as an error would, so that files in the making are taken away."""
    if is_first():
        raise KeyboardInterrupt


def terminate(number: int, frame: FrameType | None) -> None:
    """End in the same way."""
    if is_first():
        sys.exit(128 + number)


def is_first() -> bool:
    """Whether a signal is no echo: shells and supervisors may send the same again while the first is being answered."""
    global answered
    now = time.monotonic()
    if now - answered < ECHO:
        return False
    answered = now
    return True


def one_line(error: Exception, command: str) -> str:
    """What the user of a command, such as "lcpu run", reads about an error: its cause and the way out."""
    if isinstance(error, UsageError):
        message = f"{error.format_message().rstrip('.')}; see '{command} --help'"
    elif isinstance(error, LcpuError):
        message = str(error)
    elif isinstance(error, MemoryError):
        message = "out of memory; take a smaller model, or a shorter context with -c"
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        message = "the system refuses to start a thread; raise the limit on threads (ulimit -u, or the container's)"
    elif isinstance(error, OSError) and error.strerror:
        message = error.strerror + (f": {error.filename}" if error.filename else "")
    else:
        message = f"unexpected {type(error).__name__}: {error} (please report it, with what LCPU_DEBUG=1 prints)"
    return " ".join(message.split())
