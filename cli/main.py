"""The `lcpu` command: the table of subcommands, and the one place where an error becomes a line and an exit code.

Exit codes: 0; 1 an error; 2 a wrong command line; 129 hung up, 130 interrupted and 143 terminated (128 + SIGHUP, SIGINT
and SIGTERM). A reader that closes the pipe (`lcpu run | head`) has had what it wanted: that ends quietly, with 0.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.main import get_command

from .. import __version__
from ..kernels.errors import LcpuError
from . import console
from .batch import batch
from .bench import bench
from .convert import convert
from .inspect import inspect_file
from .options import UsageError
from .perplexity import perplexity
from .quantize import quantize
from .run import run

# A subcommand is one file and one line here. Its module imports neither numba, numpy nor the engine: its function does.
SUBCOMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "batch": batch,
    "bench": bench,
    "perplexity": perplexity,
    "inspect": inspect_file,
    "convert": convert,
    "quantize": quantize,
}

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
    """The entry point of the `lcpu` script."""
    signal.signal(signal.SIGTERM, terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup asks for
        signal.signal(signal.SIGHUP, terminate)
    sys.exit(exit_code(sys.argv[1:]))


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


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End as an error would, so that files in the making are taken away."""
    sys.exit(128 + number)


def one_line(error: Exception, command: str) -> str:
    """What the user of a command, such as "lcpu run", reads about an error: its cause and the way out."""
    if isinstance(error, UsageError):
        message = f"{error.format_message().rstrip('.')}; see '{command} --help'"
    elif isinstance(error, LcpuError):
        message = str(error)
    elif isinstance(error, MemoryError):
        message = "out of memory; take a smaller model, or a shorter context with -c"
    elif isinstance(error, OSError) and error.strerror:
        message = error.strerror + (f": {error.filename}" if error.filename else "")
    else:
        message = f"unexpected {type(error).__name__}: {error} (please report it, with what LCPU_DEBUG=1 prints)"
    return " ".join(message.split())
