"""The kernels' tests once more on every path that this machine can execute: a process has one path.

There, one block format of each kind is tested, and what does not depend on vectors, such as threads and caches, is left
out. `LCPU_ISA=avx2 pytest tests/kernels` tests all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcpu.kernels import isa

ROOT = Path(__file__).parents[1]
VECTORS = ("activations", "attention", "elementwise", "experts", "formats", "gated", "layer_norm", "math", "matmul",
           "pages", "rope", "simd", "wide")
QUANTIZERS = ("quantize_blocks", "weighted_blocks")
# These paths have the vectors of one that is tested in full; some have the dot products of another, too.
IN_PARTS = {"avx512-amx", "avx-vnni"} | ({"avx512-vnni"} if isa.active().name == "avx512-amx" else set())
if isa.active().lanes == isa.ISAS["generic-16"].lanes:
    IN_PARTS.add("generic-16")
PARTS = ("activations", "attention", "matmul", "simd", "wide")


def files_for(name: str) -> list[str]:
    """Quantizers see of a path only how wide its vectors are."""
    chosen = PARTS if name in IN_PARTS else VECTORS + (QUANTIZERS if name in ("avx2", "generic") else ())
    files = [f"tests/kernels/test_{test}.py" for test in chosen]
    return files if name in IN_PARTS else [*files, "tests/engine/test_identity.py"]


OTHERS = [name for name in isa.available() if name != isa.active().name]

pytestmark = pytest.mark.skipif("LCPU_ISA" in os.environ, reason="LCPU_ISA asks for one path")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OTHERS)
def test_path(name: str) -> None:
    environment = {**os.environ, "LCPU_ISA": name, "LCPU_TEST_ONE_OF_EACH": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files_for(name)],
                          cwd=ROOT, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
