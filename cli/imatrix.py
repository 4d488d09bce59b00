"""`lcpu imatrix`: an importance matrix of a model, for `lcpu quantize --imatrix`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..kernels.errors import LcpuError
from . import console, options, prompt, sources
from .perplexity import Batch
from .run import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.input_squares import Squares
    from ..engine.llm import LLM

TextFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-f", "--file", metavar="FILE", show_default="a text that comes with lcpu",
        help="Text to measure with, like what the model will be used for; may be given more than once; - is stdin.",
    ),
]  # fmt: skip
Output = Annotated[
    Path, typer.Option("-o", "--output", "--output-file", metavar="FILE", help="GGUF file to write.")
]
# Not options.Context, which the environment can set: the window size changes the result.
Window = Annotated[int, typer.Option("-c", "--ctx-size", metavar="N", min=8, help="Size of a chunk, in tokens.")]
Chunks = Annotated[
    int | None,
    typer.Option("--chunks", metavar="N", min=-1, help="How many chunks of the text to take; -1: all.",
                 show_default="all"),
]  # fmt: skip
Hessian = Annotated[
    Path | None,
    typer.Option(
        "--hessian", metavar="FILE", show_default=False,
        help="Measure and write what `lcpu quantize --gptq` needs, too: sums of products by pairs of inputs.",
    ),
]  # fmt: skip
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]


def imatrix(
    settings: typer.Context,
    model: options.Model = None,
    hf_repo: options.HfRepo = None,
    hf_file: options.HfFile = None,
    revision: options.Revision = None,
    convert: options.Convert = False,
    type: options.Type = None,
    files: TextFiles = None,
    output: Output = Path("imatrix.gguf"),
    hessian: Hessian = None,
    window: Window = 512,
    chunks: Chunks = None,
    threads: options.Threads = None,
    batch: Batch = None,
    memory_check: options.MemoryCheck = True,
    force: Force = False,
) -> None:
    """Measure an importance matrix: which inputs of a model's matrices are large, and so which errors matter most.

    `lcpu quantize --imatrix` and llama-quantize read the file. The model should be the one that will be quantized, in
    F16, BF16 or Q8_0. A good text is like what the model will be used for: its languages, its kinds of code, its chat
    format. 100 chunks are plenty. Without -f, a text of 46 KB is taken that has some of everything. The method is
    llama.cpp's: the text is cut into chunks, and each is computed on its own.
    """
    if chunks == 0:
        raise options.UsageError("--chunks 0 measures nothing: give a number of chunks, or -1 for all")

    from .. import models
    from ..convert.imatrix import write_imatrix
    from ..convert.output import check_free, check_space
    from ..engine.perplexity import windows

    check_free(output, force)
    check_space(output, 0)
    if hessian:
        check_free(hessian, force)
    paths = files or [models.calibration_text()]
    text = "\n".join(prompt.read_prompt(None, path, escape=False, pipe=False, exact=True) or "" for path in paths)
    found = sources.fetched(sources.chosen(settings, model, hf_repo, hf_file, revision, convert, type))
    with load(found, threads, window, check=memory_check, quiet=False, input_squares=True) as llm:
        parts = windows(llm, text, window, chunks if chunks and chunks > 0 else None)
        started = time.perf_counter()
        with console.LoadProgress() as progress:
            measured = llm.measure_imatrix(parts, lambda done, total: progress(f"chunk {done}/{total}", done, total))
        seconds = time.perf_counter() - started
        if not measured:
            raise LcpuError(f"{found.path}: has no matrices in its layers: there is nothing to measure")
        names = [path.name for path in paths]
        write_imatrix(output, measured, names, len(parts), window)
        if bare := with_unseen_experts(measured):
            console.notice(f"note: no token went to some experts of {bare} tensors, whose errors will all count the "
                           "same: a longer text reaches more of them")  # fmt: skip
        speed = f"{seconds:.1f} s, {len(parts) * window / seconds:.1f} tok/s"
        chunk_count = "1 chunk" if len(parts) == 1 else f"{len(parts)} chunks"
        console.notice(f"wrote {output}: {len(measured)} tensors, {chunk_count} of {window} tokens · {speed}")
        if hessian:
            measure_hessian(llm, hessian, parts, names, measured)


def measure_hessian(llm: LLM, path: Path, parts: Sequence[Sequence[int]], names: Sequence[str],
                    measured: Mapping[str, Squares]) -> None:
    """Write the sums of products, as they are measured."""
    from ..convert.hessian import nbytes, write_hessian
    from ..convert.output import check_space

    inputs = llm.measured_inputs
    check_space(path, nbytes(k for _, k in inputs))
    if left_out := len(measured.keys() - {name for each, _ in inputs for name in each}):
        console.notice(f"note: no Hessian is made of experts, {left_out} tensors: --gptq rounds them as --imatrix does")
    started, tokens = time.perf_counter(), sum(map(len, parts))
    with console.LoadProgress() as progress:
        products = llm.measure_products(parts, lambda done, total: progress(f"chunk {done}/{total}", done, total))
        write_hessian(path, inputs, products, names, tokens)
    seconds = time.perf_counter() - started
    console.notice(f"wrote {path}: {len(inputs)} sums of products for {sum(len(each) for each, _ in inputs)} tensors, "
                   f"{tokens:,} tokens · {seconds:.1f} s")


def with_unseen_experts(measured: Mapping[str, Squares]) -> int:
    """How many tensors have an expert that no token went to."""
    return sum(bool((squares.counts == 0).any()) for squares in measured.values())
