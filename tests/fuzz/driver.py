"""Runs the cases of a target in processes of their own, and watches over their time and memory."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import mmap
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from types import ModuleType

from lcpu.kernels.errors import LcpuError

# A module of this folder each, with `case` (makes one), `run` (reads it) and `SHARE` (of all cases, in percent).
TARGETS = {"gguf": "gguf_files", "safetensors": "safetensors_files", "torch": "torch_files",
           "tokenizer": "vocabularies", "template": "templates"}
CASE_SECONDS = 5.0  # of processor time that a case may take
STALL_SECONDS = 60.0  # without a new case, after which a process counts as hung
CASE_BYTES = 256 << 20  # by which a case may raise the most memory that its process has had
ADDRESS_BYTES = 4 << 30  # of address space that a process may have: a cache is promised, not taken
MOST_FAILURES = 20  # of a target, after which it ends

_PROGRESS = struct.Struct("<qqq")  # the case that runs; how many were read, and refused
_STARTING = -1


@dataclass(frozen=True)
class Failure:
    target: str
    seed: int
    number: int
    what: str
    path: Path

    def __str__(self) -> str:
        return (f"{self.target} case {self.number}: {self.what}\n  input: {self.path}\n  again: python -m tests.fuzz "
                f"--target {self.target} --seed {self.seed} --case {self.number}")


@dataclass
class Result:
    accepted: int = 0
    refused: int = 0
    failures: list[Failure] = field(default_factory=list)


def module_of(target: str) -> ModuleType:
    return import_module(f"{__package__}.{TARGETS[target]}")


def case_bytes(target: str, seed: int, number: int) -> bytes:
    return module_of(target).case(Random(f"{target} {seed} {number}"))


def write_case(folder: Path, target: str, seed: int, number: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{seed}-{number}"
    path.write_bytes(case_bytes(target, seed, number))
    return path


def fuzz(target: str, count: int, seed: int, jobs: int, folder: Path) -> Result:
    """Run `count` cases, shared by `jobs` processes. A process that ends before its time is followed by another."""
    result = Result()
    workers = [_Worker(target, seed, job, jobs, count) for job in range(min(jobs, max(count, 1)))]
    try:
        while any(not worker.done for worker in workers):
            time.sleep(0.05)
            for worker in workers:
                for number, what in worker.look():
                    path = write_case(folder, target, seed, number)
                    result.failures.append(Failure(target, seed, number, what, path))
            if len(result.failures) >= MOST_FAILURES:
                break
    finally:
        for worker in workers:
            worker.stop()
            result.accepted += worker.accepted
            result.refused += worker.refused
    return result


class _Worker:
    """A process that runs every `step`th case from `first` on."""

    def __init__(self, target: str, seed: int, first: int, step: int, end: int) -> None:
        self._target, self._seed, self._step, self._end = target, seed, step, end
        self.accepted = self.refused = 0
        self.done = False
        self._start(first)

    def _start(self, first: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process runs)
        self._file.write(bytes(_PROGRESS.size))
        self._file.flush()
        self._progress = mmap.mmap(self._file.fileno(), _PROGRESS.size)
        _PROGRESS.pack_into(self._progress, 0, _STARTING, 0, 0)
        self._found = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        files = (self._file.fileno(), self._found.fileno())
        arguments = map(str, [self._target, self._seed, first, self._step, self._end, *files])
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()", *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=self._errors, pass_fds=files, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        self._last, self._since = _STARTING, time.monotonic()

    def look(self) -> list[tuple[int, str]]:
        """The failures since the last look."""
        if self.done:
            return []
        number, accepted, refused = _PROGRESS.unpack_from(self._progress, 0)
        code = self._process.poll()
        if code is None:
            if number != self._last:
                self._last, self._since = number, time.monotonic()
            elif number != _STARTING and time.monotonic() - self._since > STALL_SECONDS:
                self._process.kill()
                self._process.wait()
                return self._ended(accepted, refused, (number, f"hangs: no end after {STALL_SECONDS:.0f} s"))
            return []
        number, accepted, refused = _PROGRESS.unpack_from(self._progress, 0)
        if code == 0:
            return self._ended(accepted, refused, None)
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()[-1:] or [""]
        if number == _STARTING:
            raise RuntimeError(f"a process does not start: {said[0]}")
        return self._ended(accepted, refused, (number, f"ends the process with {code}: {said[0]}"))

    def _ended(self, accepted: int, refused: int, failure: tuple[int, str] | None) -> list[tuple[int, str]]:
        self.accepted += accepted
        self.refused += refused
        self._found.seek(0)
        failures = [(number, what) for number, what in map(json.loads, self._found)]
        if failure is not None:
            failures.append(failure)
        if failure is None or failure[0] + self._step >= self._end:
            self.done = True
        else:
            self._start(failure[0] + self._step)
        return failures

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def outcome(target: str, path: Path) -> str | None:
    """None for a file that is read, else its refusal. Whatever else a case raises goes on to the caller."""
    try:
        module_of(target).run(path)
        return None
    except LcpuError as error:
        message = str(error)
        if not message or "\n" in message:
            raise AssertionError(f"an error that is not one line: {message!r}") from None
        return message


def work(target: str, seed: int, first: int, step: int, end: int, progress_fd: int, found_fd: int) -> None:
    """The cases of one process. Failures that it survives are written to a file, a JSON line each."""
    logging.getLogger("lcpu").setLevel(logging.CRITICAL)
    module_of(target)  # whose imports are no part of the first case
    progress = mmap.mmap(progress_fd, _PROGRESS.size)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + ADDRESS_BYTES,) * 2)
    accepted = refused = 0
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, os.fdopen(found_fd, "w") as found:
        path = Path(folder) / "case"
        for number in range(first, end, step):
            _PROGRESS.pack_into(progress, 0, number, accepted, refused)
            path.write_bytes(case_bytes(target, seed, number))
            most, started = _most_memory(), time.process_time()
            failure, refusal = "", None
            try:
                refusal = outcome(target, path)
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                failure = f"{type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})"
            seconds = time.process_time() - started
            grown = _most_memory() - most
            if seconds > CASE_SECONDS:
                failure = failure or f"takes {seconds:.1f} s"
            if grown > CASE_BYTES:
                failure = failure or f"takes {grown >> 20} MiB of memory"
            if failure:
                found.write(json.dumps([number, failure]) + "\n")
                found.flush()
                gc.collect()
            elif refusal is None:
                accepted += 1
            else:
                refused += 1
        _PROGRESS.pack_into(progress, 0, end, accepted, refused)


def main() -> None:
    work(sys.argv[1], *map(int, sys.argv[2:]))


def _most_memory() -> int:
    """The most bytes that this process has had. (What getrusage says begins with those of the process that forked.)"""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _address_space() -> int:
    """Bytes of address space that this process has."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    return 1 << 40
