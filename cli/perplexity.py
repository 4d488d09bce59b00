"""`lcpu perplexity`: how well a model predicts a text, and with --kl, how it differs from another model."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..kernels.errors import LcpuError
from . import console, options, prompt, sources
from .run import load
from .sources import Source

if TYPE_CHECKING:
    import numpy as np

    from ..engine.llm import LLM
    from ..engine.perplexity import Estimate

TextFile = Annotated[
    Path | None,
    typer.Option("-f", "--file", metavar="FILE", help="File with the text; a pipe on stdin needs no -f."),
]
# Not options.Context, which the environment can set: the window size changes the result.
Window = Annotated[int, typer.Option("-c", "--ctx-size", metavar="N", min=8, help="Size of a window, in tokens.")]
Chunks = Annotated[
    int | None,
    typer.Option("--chunks", metavar="N", min=-1, help="How many windows to score; -1: all.", show_default="all"),
]
Base = Annotated[
    Path | None,
    typer.Option("--kl", metavar="FILE", help="Base model to compare the predictions with, named as for -m."),
]
Batch = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", metavar="N", help="Accepted and ignored: it does not change the result."),
]


def perplexity(
    settings: typer.Context,
    model: options.Model = None,
    hf_repo: options.HfRepo = None,
    hf_file: options.HfFile = None,
    revision: options.Revision = None,
    convert: options.Convert = False,
    type: options.Type = None,
    file: TextFile = None,
    base: Base = None,
    window: Window = 512,
    chunks: Chunks = None,
    threads: options.Threads = None,
    output_type: options.OutputType = None,
    cache_type_k: options.CacheTypeK = "f16",
    cache_type_v: options.CacheTypeV = "f16",
    batch: Batch = None,
    memory_check: options.MemoryCheck = True,
    json: options.Json = False,
) -> None:
    """Measure how well a model predicts a text.

    The result is a perplexity: lower is better. The method is llama.cpp's: the text is cut into windows, and each token
    in the second half of a window is predicted from all tokens of the window before it.
    """
    if chunks == 0:
        raise options.UsageError("--chunks 0 scores nothing: give a number of windows, or -1 for all")
    text = prompt.read_prompt(None, file, escape=False, pipe=True, exact=True)
    if text is None:
        raise options.UsageError("no text: give -f FILE or a pipe on stdin")
    wanted = sources.chosen(settings, model, hf_repo, hf_file, revision, convert, type)
    found, found_base = sources.fetched(wanted), None if base is None else sources.fetched(Source(base))
    if found_base is not None:
        check_same_vocabulary(found, found_base)

    from ..engine.perplexity import windows

    with ExitStack() as stack:
        llm = stack.enter_context(load(found, threads, window, output_type, (cache_type_k, cache_type_v),
                                       check=memory_check, quiet=json))
        all_windows = windows(llm, text, window, chunks if chunks and chunks > 0 else None)
        base_llm = None
        if found_base is not None:
            base_llm = stack.enter_context(load(found_base, threads, window, None, check=memory_check, quiet=json))
        if window > llm.trained_context and not json:
            console.notice(f"the model was trained for {llm.trained_context} tokens: windows of {window} are longer")
        started = time.perf_counter()
        scores = score_all(llm, base_llm, all_windows, quiet=json)
        seconds = time.perf_counter() - started
    if json:
        content = facts(llm, found.path, all_windows, seconds)
        if base_llm is not None:
            content |= {"base_model": base_llm.description, "base_path": str(base)}
        console.write(document(content | results(scores)))
        return
    console.write(table(scores))
    counted = "1 window" if len(all_windows) == 1 else f"{len(all_windows)} windows"
    speed = f"{seconds:.1f} s, {len(all_windows) * window / seconds:.1f} tok/s"
    console.notice(f"{counted} of {window} tokens, {len(scores)} scored · {speed}")


def check_same_vocabulary(model: Source, base: Source) -> None:
    """Raises LcpuError if a token is not the same in both models, before they are loaded."""
    key = "tokenizer.ggml.tokens"
    with sources.open_file(model.path, model.type) as file, sources.open_file(base.path) as base_file:
        tokens, base_tokens = file.metadata.get(key), base_file.metadata.get(key)
    if not isinstance(tokens, list) or not isinstance(base_tokens, list):
        return  # loading says what is wrong with the file
    if tokens == base_tokens:
        return
    if len(tokens) != len(base_tokens):
        difference = f"{len(tokens)} tokens against {len(base_tokens)}"
    else:
        first = next(i for i, pair in enumerate(zip(tokens, base_tokens, strict=True)) if pair[0] != pair[1])
        difference = f"token {first} is {tokens[first]!r} against {base_tokens[first]!r}"
    raise LcpuError(f"{file.path} and {base_file.path} have different vocabularies ({difference}): "
                    "--kl compares files of one model")  # fmt: skip


def score_all(llm: LLM, base: LLM | None, windows: list[list[int]], *, quiet: bool) -> np.ndarray:
    """The scores of all windows, one after another; a bar on a terminal shows the perplexity so far."""
    import numpy as np

    from ..engine import perplexity as engine

    parts: list[np.ndarray] = []
    total = 0.0
    with console.LoadProgress() as progress:
        for number, window in enumerate(windows, 1):
            part = engine.score(llm, window) if base is None else engine.compare(llm, base, window)
            parts.append(part)
            total += float((part if base is None else part["nll"]).sum())
            if not quiet:
                so_far = np.exp(total / (number * len(part)))
                progress(f"window {number}/{len(windows)}, PPL {so_far:.4f}", number, len(windows))
    return np.concatenate(parts)


def facts(llm: LLM, path: Path | None, windows: list[list[int]], seconds: float) -> dict[str, Any]:
    """What the JSON document says of the run."""
    return {
        "model": llm.description,
        "path": None if path is None else str(path),  # null: the embedded model
        "isa": llm.isa.name,
        "threads": llm.threads,
        "context": len(windows[0]),
        "chunks": len(windows),
        "seconds": seconds,
    }


def results(scores: np.ndarray) -> dict[str, Any]:
    """The same numbers as the table's, unrounded; from a comparison if the scores are one."""
    from ..engine import perplexity as engine

    plain = scores.dtype.names is None
    found = {"ppl": asdict(engine.perplexity(scores))} if plain else asdict(engine.divergence(scores))
    return {"scored_tokens": len(scores), **found}


def document(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def table(scores: np.ndarray) -> str:
    """llama.cpp's line, or a line for each number of a comparison."""
    from ..engine import perplexity as engine

    if scores.dtype.names is None:
        ppl = engine.perplexity(scores)
        return f"Final estimate: PPL = {ppl.value:.4f} +/- {ppl.uncertainty:.5f}\n"
    found = engine.divergence(scores)
    return (
        row("PPL(model)", found.ppl)
        + row("PPL(base)", found.base_ppl)
        + row("PPL(model)/PPL(base)", found.ppl_ratio)
        + row("Mean KLD", found.kl_mean)
        + row("Median KLD", found.kl_median)
        + row("90% KLD", found.kl_90)
        + row("99% KLD", found.kl_99)
        + row("99.9% KLD", found.kl_999)
        + row("Maximum KLD", found.kl_max)
        + row("Mean delta p", found.delta_p)
        + row("RMS delta p", found.delta_p_rms)
        + row("Same top token", found.same_top)
    )


def row(name: str, value: Estimate | float) -> str:
    if isinstance(value, float):
        return f"{name:20}  {value:12.6f}\n"
    return f"{name:20}  {value.value:12.6f} +/- {value.uncertainty:.6f}\n"
