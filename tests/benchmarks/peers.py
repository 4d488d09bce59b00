#!/usr/bin/env python3
"""lcpu and llama.cpp on the same GGUF, in alternation in one run: medians and their ratios.

    peers.py --peer .venv-peers/bin/python -m MODEL.gguf [-m ...] [-t 1,2] [-r 5] [pp512 tg128 pp512@4096 step4 ...]
    peers.py --peer .venv-peers/bin/python --shape tinyllama-1.1b --type q4_0,q8_0

With --shape, files of random weights are written first. A test is pp<tokens> (prefill), tg<tokens> (decode) or
step<tokens> (one batch of so many, repeated), at a depth after "@". Each engine runs in a process of its own, which
serves tests over a pipe, so only one of them computes at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

BATCH = 512
STEPS = 24  # how often a step<n> is repeated
TOKENS = [1000 + 37 * i % 20000 for i in range(BATCH)]

Step = Callable[[int, int], None]  # compute `count` tokens from a position on, with logits of the last


def lcpu_step(path: str, threads: int, context: int) -> Step:
    from lcpu.engine.batch import Piece
    from lcpu.engine.gguf_file import GGUFFile
    from lcpu.engine.model import Model

    model = Model(GGUFFile.open(path), context, threads)
    vocab, pages = model.h.vocab_size, range(model.pool.count)

    def step(count: int, position: int) -> None:
        tokens = [token % vocab for token in TOKENS[:count]]
        model.step([Piece(tokens, position, pages, 1)])

    return step


def llama_cpp_step(path: str, threads: int, context: int) -> Step:
    import llama_cpp as llama  # type: ignore[import-not-found]  # it is in the peer's environment

    silence = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silence, None)
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = context, BATCH, BATCH
    settings.n_threads = settings.n_threads_batch = threads
    run = llama.llama_init_from_model(model, settings)
    memory = llama.llama_get_memory(run)
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    batch = llama.llama_batch_init(BATCH, 0, 1)

    def step(count: int, position: int) -> None:
        llama.llama_memory_seq_rm(memory, 0, position, -1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i], batch.pos[i] = TOKENS[i] % vocab, position + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i == count - 1
        if llama.llama_decode(run, batch) != 0:
            raise RuntimeError("llama_decode failed")
        llama.llama_get_logits_ith(run, -1)  # waits for the result

    step.keep = silence  # type: ignore[attr-defined]
    return step


ENGINES = {"lcpu": lcpu_step, "llama.cpp": llama_cpp_step}


def sizes(test: str) -> tuple[str, int, int]:
    """Kind, tokens and depth of a test's name, such as "pp512@4096"."""
    match = re.fullmatch(r"(pp|tg|step)(\d+)(?:@(\d+))?", test)
    if match is None:
        raise SystemExit(f"error: test {test!r} is not like pp512, tg128, step4 or pp512@4096")
    return match[1], int(match[2]), int(match[3] or 0)


def measure(step: Step, test: str) -> float:
    """Tokens per second of one run of a test, at whose depth the cache already is."""
    kind, tokens, depth = sizes(test)
    pieces = {"pp": [min(BATCH, tokens - at) for at in range(0, tokens, BATCH)], "tg": [1] * tokens,
              "step": [tokens] * STEPS}[kind]
    position = depth
    started = time.perf_counter()
    for piece in pieces:
        step(piece, position)
        position += piece
    return sum(pieces) / (time.perf_counter() - started)


def serve(engine: str, path: str, threads: int, context: int) -> None:
    """Answer test names on stdin with tokens per second on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints
    started = time.perf_counter()
    step = ENGINES[engine](path, threads, context)
    print(json.dumps({"load": time.perf_counter() - started, "rss": resident()}), file=answers, flush=True)
    filled = 0  # positions whose keys and values no test has overwritten
    for line in sys.stdin:
        depth = sizes(line.strip())[2]
        for at in range(filled, depth, BATCH):
            step(min(BATCH, depth - at), at)
        filled = depth
        step(1, depth)  # wakes the threads up
        print(json.dumps(measure(step, line.strip())), file=answers, flush=True)


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Worker:
    """A process that runs one engine."""

    def __init__(self, python: str, engine: str, path: str, threads: int, context: int) -> None:
        command = [python, __file__, "--serve", engine, path, str(threads), str(context)]
        quiet = None if os.environ.get("LCPU_DEBUG") else subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet,
                                         text=True)
        self.start = self._read()

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("error: an engine ended early; LCPU_DEBUG=1 shows what it said")
        return json.loads(line)

    def ask(self, test: str) -> float:
        assert self._process.stdin
        print(test, file=self._process.stdin, flush=True)
        return self._read()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def compare(path: str, threads: int, tests: list[str], repetitions: int, peer: str) -> None:
    """Print a row for each test: medians of both engines, their ratio, and the spread of the paired ratios."""
    context = max(depth + max(tokens, STEPS * tokens * (kind == "step"), BATCH)
                  for kind, tokens, depth in map(sizes, tests))
    ours, theirs = (Worker(python, engine, path, threads, context)
                    for python, engine in ((sys.executable, "lcpu"), (peer, "llama.cpp")))
    name, size = os.path.basename(path), os.path.getsize(path)
    for test in tests:
        pairs = []
        for repetition in range(repetitions + 1):
            pair = ours.ask(test), theirs.ask(test)
            if repetition:  # the first warms up
                pairs.append(pair)
        a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(x / y for x, y in pairs)
        print(f"| {name} | {threads} | {test} | {a:.1f} | {b:.1f} | {a / b:.2f} | {ratios[0]:.2f}-{ratios[-1]:.2f} |",
              flush=True)
    a, b = ours.start, theirs.start
    print(f"| {name} | {threads} | load | {a['load']:.2f} s | {b['load']:.2f} s | | |")
    print(f"| {name} | {threads} | resident / file | {a['rss'] / size:.2f} | {b['rss'] / size:.2f} | | |", flush=True)
    ours.end()
    theirs.end()


def random_file(folder: str, shape: str, kind: str) -> str:
    """The path of a new GGUF file with random weights and no vocabulary."""
    from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
    from lcpu.engine.random_model import RandomModel

    model, path = RandomModel(shape, kind), f"{folder}/{shape}-{kind}.gguf"
    write_gguf(path, {**model.metadata, "tokenizer.ggml.model": "no_vocab"},
               [TensorToWrite(info.name, info.shape, info.type_id, partial(model.data, info.name))
                for info in model.tensors.values()])
    return path


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the Python that has llama-cpp-python")
    parser.add_argument("-m", "--model", action="append", default=[])
    parser.add_argument("--shape", default="tinyllama-1.1b", help="of random weights, where there is no -m")
    parser.add_argument("--type", default="q4_0", help="of random weights, as a list")
    parser.add_argument("-t", "--threads", default="1,2")
    parser.add_argument("-r", "--repetitions", type=int, default=5)
    parser.add_argument("tests", nargs="*", default=["pp512", "tg128"])
    arguments = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, load before: {os.getloadavg()[0]:.2f}\n")
    print("| model | threads | test | lcpu, tokens/s | llama.cpp, tokens/s | ratio | of pairs |")
    print("|---|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.model or [random_file(folder, arguments.shape, kind) for kind in arguments.type.split(",")]
        for path in paths:
            for threads in map(int, arguments.threads.split(",")):
                compare(path, threads, arguments.tests, arguments.repetitions, arguments.peer)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
