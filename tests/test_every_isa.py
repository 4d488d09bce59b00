"""The kernels' tests once more on every path that this machine can execute: a process has one path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from lcpu.kernels import isa

ROOT = Path(__file__).parents[1]
TESTS = [path for path in ("tests/kernels", "tests/engine/test_identity.py") if (ROOT / path).exists()]
OTHERS = [name for name in isa.available() if name != isa.active().name]

pytestmark = pytest.mark.skipif("LCPU_ISA" in os.environ, reason="LCPU_ISA asks for one path")


def run(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], cwd=ROOT, text=True,
                          env={**os.environ, "LCPU_ISA": name}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All paths, two at a time: most of it is compiling, which takes one core."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name) for name in OTHERS}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OTHERS)
def test_path(runs: dict[str, Future[subprocess.CompletedProcess[str]]], name: str) -> None:
    done = runs[name].result()
    assert done.returncode == 0, done.stdout
