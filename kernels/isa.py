"""Which SIMD instructions the kernels are written for, chosen once per process."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from .errors import LcpuError

TILES = (8, 4, 2, 1)  # tokens of matmul tiles

Distances = tuple[tuple[int, int], ...]  # how many bytes ahead, and into the cache of which level
ForTiles = tuple[Distances, Distances, Distances, Distances]
_SHORTLY: ForTiles = (((2048, 1),),) * 4


@dataclass(frozen=True)
class Prefetch:
    """What matmul tiles ask for in each panel before they need it, by how busy weights keep them: what computes little
    reads far enough ahead by itself, and is only held up."""

    ready: ForTiles = _SHORTLY  # weights that are multiplied as they are
    packed: ForTiles = _SHORTLY  # several in a byte
    grouped: ForTiles = _SHORTLY  # with scales and offsets of groups, too
    margin: int = 2048  # bytes before the end of its panels, from where on a tile asks for the next one's


@dataclass(frozen=True)
class Isa:
    """One way to compute: how wide a vector is and how four int8 products are summed into a 32-bit lane."""

    name: str
    lanes: int  # 32-bit lanes of a vector, which is also the rows of a weight panel
    dot: str  # "vnni" (vpdpbusd), "maddubs" (vpmaddubsw + vpmaddwd) or "generic" (plain LLVM vectors)
    tile_panels: tuple[int, int, int, int]  # of matmul tiles: what suits the registers
    needs: tuple[tuple[str, ...], ...] = ()  # alternatives; each is a set of LLVM feature names that suffices
    prefetch: Prefetch = Prefetch()
    bf16: bool = False  # whether pairs of bfloat16 are multiplied and added in one instruction
    reason: str = ""  # why it was chosen, for `lcpu run --verbose`

    def runs_on(self, features: frozenset[str]) -> bool:
        return not self.needs or any(features.issuperset(wanted) for wanted in self.needs)


_ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
_GENERIC = (("f16c",),) if _ON_X86 else ()  # without it, float16 would need library calls that LLVM cannot find
_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")

ISAS = {  # best first
    isa.name: isa
    for isa in (
        Isa("avx512-vnni", 16, "vnni", (2, 4, 4, 4), (_AVX512,)),
        Isa("avx-vnni", 8, "vnni", (1, 2, 2, 4), ((*_AVX2, "avxvnni"), _AVX512)),
        Isa("avx2", 8, "maddubs", (1, 2, 2, 4), (_AVX2,)),
        Isa("generic", 4, "generic", (1, 1, 1, 4), _GENERIC),
        # The panel layout of AVX-512 without its instructions, so that any machine can test that layout.
        Isa("generic-16", 16, "generic", (2, 4, 4, 4), _GENERIC),
    )
}

# What suits a processor family better, by the beginning of LLVM's name for it. Measured: AMD's prefetchers follow one
# stream of panels at the speed of memory, but not several; from memory into the first level, help is held up by its few
# buffers, and from the second level a tile that computes much does not read early enough. One panel leaves registers.
_NOT: Distances = ()
_NEAR, _AHEAD = ((1024, 2),), ((2048, 1), (8192, 2))
_PACKED, _GROUPED = (_AHEAD, _AHEAD, _AHEAD, _NOT), (_AHEAD, _AHEAD, _AHEAD, _NEAR)
_ONE_PANEL = (1, 1, 1, 1)
_TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "znver": {
        "avx512-vnni": {"tile_panels": _ONE_PANEL, "prefetch": Prefetch((_AHEAD, _NOT, _NOT, _NOT), _PACKED, _GROUPED)},
        "avx-vnni": {"tile_panels": _ONE_PANEL, "prefetch": Prefetch((_AHEAD, _AHEAD, _NOT, _NOT), _PACKED, _GROUPED)},
        "avx2": {"tile_panels": _ONE_PANEL, "prefetch": Prefetch(_PACKED, _PACKED, _GROUPED)},
    },
}


@cache
def host_features() -> frozenset[str]:
    """LLVM's names of the features that this processor and its operating system offer."""
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def available() -> list[str]:
    """Names of the paths that this machine can execute, best first."""
    return [isa.name for isa in ISAS.values() if isa.runs_on(host_features())]


@cache
def active() -> Isa:
    """The path in use: LCPU_ISA if set, else the best that the host can execute."""
    wanted = os.environ.get("LCPU_ISA", "").strip().lower()
    if not available():
        raise LcpuError("this processor has no F16C instructions (x86 before 2012): lcpu cannot run on it")
    if not wanted:
        best = ISAS[available()[0]]
        return _chosen(best, f"the best of what {llvm.get_host_cpu_name()} offers: {', '.join(available())}")
    if wanted not in ISAS:
        raise LcpuError(f"LCPU_ISA={wanted} is unknown; this machine can run: {', '.join(available())}")
    if wanted not in available() and not os.environ.get("NUMBA_CPU_NAME"):
        raise LcpuError(f"LCPU_ISA={wanted} needs instructions that this processor lacks; "
                        f"it can run: {', '.join(available())}")
    return _chosen(ISAS[wanted], f"set by LCPU_ISA; this machine can run: {', '.join(available())}")


def _chosen(isa: Isa, reason: str) -> Isa:
    """The path as it suits this processor."""
    processor = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    tuned = next((paths for family, paths in _TUNED.items() if processor.startswith(family)), {})
    bf16 = isa.name == "avx512-vnni" and "avx512bf16" in host_features()
    return replace(isa, reason=reason, bf16=bf16, **tuned.get(isa.name, {}))
