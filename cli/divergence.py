"""`lcpu quantize --kl`: how far the predictions of a new file are from those of a base model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from . import options, prompt, sources
from .perplexity import check_same_vocabulary, score_all, table
from .run import load
from .sources import Source

Base = Annotated[
    Path | None,
    typer.Option(
        "--kl", metavar="BASE", show_default=False,
        help="Model to compare the predictions of OUT with, such as IN: their KL divergence on the text of -f.",
    ),
]  # fmt: skip
TextFile = Annotated[
    Path | None,
    typer.Option("-f", "--file", metavar="FILE", show_default=False, help="Text for --kl; - is stdin."),
]
Window = Annotated[
    int, typer.Option("-c", "--ctx-size", metavar="N", min=8, help="Size of a window of the text of --kl, in tokens.")
]
Chunks = Annotated[
    int | None,
    typer.Option("--chunks", metavar="N", min=-1, help="How many windows of the text to score; -1: all.",
                 show_default="all"),
]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What --kl asks for."""

    base: Source
    windows: list[list[int]]


def prepared(source: Path, base: Path | None, file: Path | None, window: int, chunks: int | None) -> Comparison | None:
    """What is to be compared, or None without --kl. source: the file that is quantized.

    Raises UsageError for options that do not fit together; LcpuError for files that cannot be read, other vocabularies
    and too short a text: all that can be said before the work.
    """
    if base is None:
        if file is not None:
            raise options.UsageError("-f is the text for --kl: give --kl BASE, too")
        return None
    if file is None:
        raise options.UsageError("--kl needs a text: give -f FILE")
    if chunks == 0:
        raise options.UsageError("--chunks 0 scores nothing: give a number of windows, or -1 for all")
    text = prompt.read_prompt(None, file, escape=False, pipe=False, exact=True) or ""
    found = sources.fetched(Source(base))
    check_same_vocabulary(Source(source), found)

    from ..engine import tokenizer
    from ..engine.perplexity import cut

    return Comparison(found, cut(tokenizer.load(source), text, window, chunks if chunks and chunks > 0 else None))


def measured(target: Path, wanted: Comparison, threads: int | None) -> str:
    """The table of `lcpu perplexity --kl`. Raises LcpuError if one of the models cannot be loaded."""
    window = len(wanted.windows[0])
    with ExitStack() as stack:
        llm, base = (stack.enter_context(load(model, threads, window, quiet=False))
                     for model in (Source(target), wanted.base))
        return table(score_all(llm, base, wanted.windows, quiet=False))
