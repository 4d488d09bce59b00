"""Machine code for Arm, on any machine: compiled by Numba as it would be there, never executed.

    python cross.py CPU FEATURES [--triple T] FORMAT:TOKENS ...   the tile of a block format for so many tokens
    python cross.py CPU FEATURES [--triple T] threads             the functions with which threads wait

prints the assembly of each after a line "== NAME RESULTS": so many vectors of results come from a tile. LCPU_ISA names
the path, FEATURES are LLVM's: +neon,+dotprod.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile

import llvmlite.binding as llvm

_SYSTEMS = {"linux": "linux", "darwin": "darwin", "macosx": "darwin", "windows": "win32"}


def pretend(cpu: str, features: str, triple: str) -> None:
    """Let Numba and lcpu, which are not imported yet, take this for another machine."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    os.environ.update(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    from numba.core import codegen  # it looks at the machine that this really is

    llvm.get_process_triple = lambda: triple
    codegen.JITCPUCodegen._check_llvm_bugs = lambda self: None  # it would execute something
    codegen.JitEngine.finalize_object = lambda self: None  # and this would link it
    codegen.JitEngine.get_function_address = lambda self, name: 1
    platform.machine = lambda: triple.partition("-")[0]
    sys.platform = next(name for word, name in _SYSTEMS.items() if word in triple)


def main(cpu: str, features: str, *wanted: str) -> None:
    triple = "aarch64-linux-gnu"
    if wanted[0] == "--triple":
        _, triple, *wanted = wanted
    pretend(cpu, features, triple)
    import alone  # beside this file

    from lcpu.kernels.kernel_cache import KernelFile

    KernelFile.save_overload = lambda self, signature, result: None

    with tempfile.TemporaryDirectory() as nothing:  # none of this machine's kernels, and not the other system's folder
        os.environ["LCPU_CACHE_DIR"] = nothing
        for name in wanted:
            kernel, panels = alone.waiting() if name == "threads" else alone.tile(*name.split(":"))
            print(f"== {name} {panels}\n{kernel.compiled._library.get_asm_str()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
