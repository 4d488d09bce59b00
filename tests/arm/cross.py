"""The machine code of a kernel for a processor of another family: compiled as Numba would there, never executed.

cross.py CPU FEATURES FORMAT... prints the assembly of the matmul kernels of block formats (numbers of GGUF types), one
after another. The path is that of LCPU_ISA. FEATURES: LLVM's, as in "+neon,+dotprod". TRIPLE: another system.
"""

from __future__ import annotations

import os
import platform
import sys

import llvmlite.binding as llvm


def pretend(cpu: str, features: str, triple: str, system: str = "linux") -> None:
    """Let Numba and lcpu, which are not imported yet, take this for another machine."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: triple
    os.environ.update(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    import numba  # noqa: F401  it asks what this machine is
    sys.platform, platform.machine = system, lambda: "arm64"
    from numba.core import codegen
    codegen.JITCPUCodegen._check_llvm_bugs = lambda self: None  # it would execute something


if __name__ == "__main__":
    pretend(sys.argv[1], sys.argv[2], os.environ.get("TRIPLE", "aarch64-linux-gnu"))
    from lcpu.kernels.formats import FORMATS
    for number in sys.argv[3:]:
        k = FORMATS[int(number)].matmul
        print(k.compiled._library.get_asm_str())
