"""Fuzzing: many mutated files through all that reads files of others. `make fuzz` runs it.

    python -m tests.fuzz [--cases 1000000] [--seed N] [--jobs 2] [--target NAME]
    python -m tests.fuzz --target NAME --seed N --case NUMBER      runs one case again

A case may be read, or refused by an LcpuError of one line. Another exception, a crash, more than a few seconds or
much memory is a failure: its input is kept in a file. Cases depend on the seed, the target and their number alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from .driver import TARGETS, Failure, fuzz, module_of, outcome, write_case


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz all that reads files.")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all targets together (default: a million)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"), help="default: random")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per processor)")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--case", type=int, help="run only the case of this number, and show what it raises")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-failures"), help="for the inputs of failures")
    arguments = parser.parse_args()
    if arguments.case is not None:
        if arguments.target is None:
            parser.error("--case needs --target")
        path = write_case(arguments.folder, arguments.target, arguments.seed, arguments.case)
        print(f"{path}: {outcome(arguments.target, path) or 'read'}")
        return 0
    print(f"seed {arguments.seed}, {arguments.cases} cases, {arguments.jobs} processes", flush=True)
    started = time.monotonic()
    failures: list[Failure] = []
    for name in TARGETS:
        if arguments.target in (None, name):
            count = arguments.cases if arguments.target else arguments.cases * module_of(name).SHARE // 100
            began = time.monotonic()
            result = fuzz(name, count, arguments.seed, arguments.jobs, arguments.folder)
            failures += result.failures
            print(f"{name}: {count} cases, {result.accepted} read, {result.refused} refused, "
                  f"{len(result.failures)} failed, {time.monotonic() - began:.0f} s", flush=True)
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(failures)} failures, {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
