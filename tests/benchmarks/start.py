#!/usr/bin/env python3
"""How long the first and later starts of `lcpu run` take, to the end of one generated token, and `lcpu --help`.

    start.py [-m MODEL.gguf] [-r 5]

The first start has an empty kernel cache, so it compiles. Times are of whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def timed(arguments: list[str], cache: str) -> tuple[float, str]:
    """Seconds that `lcpu ARGUMENTS` takes, and what it prints."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lcpu", *arguments], env=os.environ | {"LCPU_CACHE_DIR": cache},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return time.perf_counter() - started, done.stdout


def row(name: str, seconds: list[float], note: str = "") -> None:
    spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
    print(f"| {name} | {statistics.median(seconds):.2f} s | {spread} | {note} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", help="default: the embedded model")
    parser.add_argument("-r", "--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    run = ["run", "-p", "Once", "-n", "1", "--temp", "0", "--json"]
    run += ["-m", arguments.model] if arguments.model else []
    print(f"load before: {os.getloadavg()[0]:.2f}\n\n| start | median | range | |\n|---|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        seconds, document = timed(run, cache)
        row("first run", [seconds], f"load {json.loads(document)['timings']['load_seconds']:.2f} s, with compiling")
        later = [timed(run, cache) for _ in range(arguments.repetitions)]
        load = statistics.median(json.loads(document)["timings"]["load_seconds"] for _, document in later)
        row("later run", [seconds for seconds, _ in later], f"load {load:.2f} s")
        row("--help", [timed(["--help"], cache)[0] for _ in range(arguments.repetitions)])


if __name__ == "__main__":
    main()
