#!/usr/bin/env python3
"""What ways to quantize cost: KL divergence of files from a base, lcpu's and llama.cpp's, with one importance matrix.

    python -m tests.benchmarks.quality -m MODEL.gguf -f english.txt -f code.txt --peer .venv-peers/bin/python
        [--types q4_0,q4_k_m,iq4_nl,q3_k_m] [--variant 'NAME=OPTIONS OF lcpu quantize'] [--before 'ARGUMENTS OF lcpu']

The base is the model as F16 with noise of 4% of each matrix's standard deviation, so that the levels to which it may
have been rounded before do not help. Texts should not be what the importance matrix is measured on. Variants are
plain, imatrix, and those named; --before runs something first, such as another measurement. In both, {base}, {imatrix}
and {folder} stand for paths. --peer is the Python that has llama-cpp-python: its files are made, too. Q4_0 is pure.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PURE = ("q4_0",)  # all matrices, the output layer too
NOISE = 0.04
SLICE = 1 << 22  # values that get noise at a time
LLAMA_CPP = "llama.cpp "


def noised(source: Path, target: Path, seed: int = 5) -> None:
    """Write a model whose matrices are F16 again, with noise. Vectors stay."""
    from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
    from lcpu.convert.quantize import _metadata
    from lcpu.engine.gguf_file import GGUFFile, TensorInfo

    random = np.random.default_rng(seed)

    def data(file: GGUFFile, info: TensorInfo) -> np.ndarray:
        raw = file.data(info.name)
        if info.type_name != "F16":
            return raw
        values = raw.view(np.float16).astype(np.float32)
        noise = np.float32(NOISE * values.std(dtype=np.float64))
        for start in range(0, values.size, SLICE):
            part = values[start : start + SLICE]
            part += random.standard_normal(part.shape, dtype=np.float32) * noise
        file.release(info.name)
        return values.astype(np.float16)

    floats = target.with_suffix(".f16.gguf")
    lcpu("quantize", str(source), str(floats), "f16", "--force")
    with GGUFFile.open(floats) as file:
        tensors = [TensorToWrite(info.name, info.shape, info.type_id, lambda info=info: data(file, info))
                   for info in file.tensors.values()]
        write_gguf(target, _metadata(file, 1), tensors)
    floats.unlink()


def lcpu(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lcpu", *arguments], check=True, stdout=subprocess.DEVNULL)


def llama_quantize() -> None:
    """In the peer's environment: make the file that a line of JSON on stdin asks for."""
    import llama_cpp as llama  # type: ignore[import-not-found]

    silence = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silence, None)
    task = json.loads(sys.stdin.readline())
    settings = llama.llama_model_quantize_default_params()
    settings.ftype, settings.nthread, settings.pure = task["file_type"], task["threads"], task["pure"]
    kept = [(name.encode(), np.load(path)) for name, path in task["importance"].items()]
    if kept:
        entries = [(name, values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size) for name, values in kept]
        settings.imatrix = (llama.llama_model_imatrix_data * (len(kept) + 1))(*entries)
    if llama.llama_model_quantize(task["base"].encode(), task["target"].encode(), settings) != 0:
        raise RuntimeError("llama_model_quantize failed")


class Files:
    """Makes the files to compare."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, base: Path, imatrix: Path) -> None:
        self._arguments, self._folder, self._base, self._imatrix = arguments, folder, base, imatrix

    def expand(self, text: str) -> list[str]:
        paths = {"base": self._base, "imatrix": self._imatrix, "folder": self._folder}
        return [part.format(**paths) for part in shlex.split(text)]

    def make(self, kind: str, name: str, options: str) -> tuple[Path, float]:
        """A file, and the seconds that it took."""
        target, started = self._folder / f"{kind}-{name.replace(' ', '-')}.gguf", time.perf_counter()
        threads = str(self._arguments.threads)
        if name.startswith(LLAMA_CPP):
            self._peer(kind, target, options)
        else:
            pure = ["--pure"] if kind in PURE else []
            typed = [] if "--target-bpw" in options else [kind]
            lcpu("quantize", str(self._base), str(target), *typed, *pure * len(typed), *self.expand(options), "--force",
                 "-t", threads)
        return target, time.perf_counter() - started

    def _peer(self, kind: str, target: Path, options: str) -> None:
        from lcpu.convert.imatrix import read_imatrix
        from lcpu.convert.type_rules import MIXTURES

        importance = {}
        for index, (name, squares) in enumerate((read_imatrix(self._imatrix).squares if options else {}).items()):
            path = self._folder / f"importance-{index}.npy"
            np.save(path, squares)
            importance[name] = str(path)
        task = {"base": str(self._base), "target": str(target), "file_type": MIXTURES[kind].file_type,
                "pure": kind in PURE, "threads": self._arguments.threads, "importance": importance}
        subprocess.run([self._arguments.peer, __file__, "--serve"], input=json.dumps(task) + "\n", text=True,
                       check=True)
        for array in importance.values():
            Path(array).unlink()


def compare(base: Path, files: Sequence[Path], texts: Sequence[Path], threads: int,
            chunks: int | None) -> list[list[np.ndarray]]:
    """For each file and each text, the COMPARISONs of `lcpu.engine.perplexity`."""
    from lcpu import LLM
    from lcpu.engine.perplexity import compare_all, windows

    first, *others = (LLM.load(path, threads=threads, context=512) for path in (base, *files))
    found: list[list[np.ndarray]] = [[] for _ in files]
    for text in texts:
        parts = [compare_all(others, first, window) for window in windows(first, text.read_text(), 512, chunks)]
        for own, each in zip(found, zip(*parts, strict=True), strict=True):
            own.append(np.concatenate(each))
    for llm in (first, *others):
        llm.close()
    return found


def report(kind: str, names: Sequence[str], files: Sequence[Path], seconds: Sequence[float],
           scores: Sequence[Sequence[np.ndarray]], texts: Sequence[Path]) -> None:
    from lcpu.engine.gguf_file import GGUFFile
    from lcpu.engine.perplexity import divergence

    for name, path, taken, own in zip(names, files, seconds, scores, strict=True):
        with GGUFFile.open(path) as file:
            infos = file.tensors.values()
            bits = 8 * sum(info.nbytes for info in infos) / sum(math.prod(info.shape) for info in infos)
        found = divergence(np.concatenate(own))
        each = "".join(f" {text.stem} {part['kl'].mean():.5f}" for text, part in zip(texts, own, strict=True))
        print(f"{kind:8} {name:20} {bits:5.2f} bits  KL {found.kl_mean.value:.5f} "
              f"+- {found.kl_mean.uncertainty:.5f} ({each.strip()})  top {found.same_top.value:.4f}  "
              f"PPL {found.ppl.value:.4f} (base {found.base_ppl.value:.4f})  {taken:.1f} s", flush=True)
    divergences = {name: np.concatenate(own)["kl"] for name, own in zip(names, scores, strict=True)}
    for theirs in (name for name in names if name.startswith(LLAMA_CPP)):
        ratios = ", ".join(f"{name} {ratio(each, divergences[theirs])}" for name, each in divergences.items()
                           if name != theirs)
        print(f"{kind:8} over {theirs}: {ratios}", flush=True)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Of means, and its standard error: both are of the same tokens, so that it is smaller than those of the means."""
    quotient = ours.mean() / theirs.mean()
    return f"{quotient:.3f} +- {(ours - quotient * theirs).std() / math.sqrt(len(ours)) / theirs.mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-f", "--file", type=Path, action="append", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--types", default="q4_0,q4_k_m,iq4_nl,q3_k_m")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=OPTIONS")
    parser.add_argument("--before", action="append", default=[], metavar="ARGUMENTS")
    parser.add_argument("--chunks", type=int, help="windows of each text")
    parser.add_argument("--folder", type=Path, help="where files are kept, and a base found again")
    parser.add_argument("-t", "--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        base, imatrix = folder / "base.gguf", folder / "imatrix.gguf"
        if not base.exists():
            noised(arguments.model, base)
        if not imatrix.exists():
            lcpu("imatrix", "-m", str(base), "-o", str(imatrix), "-t", str(arguments.threads))
        files = Files(arguments, folder, base, imatrix)
        for command in arguments.before:
            lcpu(*files.expand(command))
        variants = {"plain": "", "imatrix": "--imatrix {imatrix}"}
        variants |= {LLAMA_CPP + name: options for name, options in variants.items() if arguments.peer}
        for variant in arguments.variant:
            name, _, options = variant.partition("=")
            variants[name] = options
        for kind in arguments.types.split(","):
            made, seconds = zip(*(files.make(kind, name, options) for name, options in variants.items()), strict=True)
            scores = compare(base, made, arguments.file, arguments.threads, arguments.chunks)
            report(kind, list(variants), made, seconds, scores, arguments.file)
            for path in made:
                path.unlink()


if __name__ == "__main__":
    llama_quantize() if sys.argv[1:] == ["--serve"] else main()
