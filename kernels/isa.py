"""Which SIMD instructions the kernels are written for, chosen once per process."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from .arm_features import on_arm, system_features
from .errors import LcpuError

TILES = (8, 4, 2, 1)  # how many tokens a matmul tile may have

Distances = tuple[tuple[int, int], ...]  # of each prefetch: how many bytes ahead, and into the cache of which level
TileDistances = tuple[Distances, Distances, Distances, Distances]  # for a tile of each size in TILES
_DEFAULT: TileDistances = (((2048, 1),),) * 4


@dataclass(frozen=True)
class Prefetch:
    """Which bytes of a weight panel a matmul tile prefetches, by how much it computes for each byte.

    The more a tile computes, the more it gains from prefetching. A tile that computes little runs at the speed of
    memory anyway, and the extra instructions only slow it down.
    """

    direct: TileDistances = _DEFAULT  # weights that are multiplied as they are loaded
    unpacked: TileDistances = _DEFAULT  # weights that are unpacked or converted first
    grouped: TileDistances = _DEFAULT  # weights that are unpacked, with an integer scale for each group
    levels: TileDistances = _DEFAULT  # weights whose levels are looked up, or of 2 and 3 bits
    pages: TileDistances = _DEFAULT  # keys and values; attention prefetches what is further ahead
    margin: int = 2048  # in so many last bytes of its panels, a tile prefetches the panels of the next tile


@dataclass(frozen=True)
class Isa:
    """One way to compute: how wide a vector is and how four int8 products are summed into a 32-bit lane."""

    name: str
    lanes: int  # 32-bit lanes of a vector, which is also the rows of a weight panel
    # "vnni" (vpdpbusd), "maddubs" (vpmaddubsw + vpmaddwd), "usdot" (and sdot), "sdot", "smull", "generic" (plain LLVM)
    dot: str
    tile_panels: tuple[int, int, int, int]  # panels of a matmul tile of each size in TILES: they must fit in registers
    needs: tuple[tuple[str, ...], ...] = ()  # alternative sets of LLVM feature names; each set suffices
    prefetch: Prefetch = Prefetch()
    tile_registers: str = ""  # "amx", or "emulated" in plain vectors: products of 16 tokens with 16 rows; "" has none
    pairs: bool = False  # whether int8 matrices are multiplied, two tokens with two rows (smmla, or plain LLVM)
    bf16: bool = False  # whether pairs of bfloat16 are multiplied and added in one instruction
    reason: str = ""  # why it was chosen, for `lcpu run --verbose`

    @property
    def arm(self) -> bool:
        """Whether kernels name Arm's instructions."""
        return self.dot in ("usdot", "sdot", "smull")

    @property
    def x86(self) -> bool:
        return self.dot in ("vnni", "maddubs")

    def runs_on(self, features: frozenset[str]) -> bool:
        return not self.needs or any(features.issuperset(wanted) for wanted in self.needs)


@cache
def _amx_permitted() -> bool:
    """Ask Linux for AMX's registers, which a process must do before its threads use them."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


_ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
_GENERIC = (("f16c",),) if _ON_X86 else ()  # without it, float16 would need library calls that LLVM cannot find
_AVX2 = ("avx2", "fma", "f16c")
_NEON_PANELS = (1, 1, 2, 4)  # eight totals, their eight sums and the values of eight tokens fit in 32 registers
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")

ISAS = {  # best first
    isa.name: isa
    for isa in (
        Isa("avx512-amx", 16, "vnni", (2, 4, 4, 4), ((*_AVX512, "amx-tile", "amx-int8"),), tile_registers="amx"),
        Isa("avx512-vnni", 16, "vnni", (2, 4, 4, 4), (_AVX512,)),
        Isa("avx-vnni", 8, "vnni", (1, 2, 2, 4), ((*_AVX2, "avxvnni"), _AVX512)),
        Isa("avx2", 8, "maddubs", (1, 2, 2, 4), (_AVX2,)),
        Isa("neon-i8mm", 4, "usdot", _NEON_PANELS, (("neon", "dotprod", "i8mm"),), pairs=True),
        Isa("neon-dotprod", 4, "sdot", _NEON_PANELS, (("neon", "dotprod"),)),
        Isa("neon", 4, "smull", _NEON_PANELS, (("neon",),)),
        Isa("generic", 4, "generic", (1, 1, 1, 4), _GENERIC, pairs=True),  # so any machine can test pairs
        # The panel layout of AVX-512, and AMX's registers, without their instructions: any machine can test those.
        Isa("generic-16", 16, "generic", (2, 4, 4, 4), _GENERIC, tile_registers="emulated"),
    )
}

# Settings for a processor family, by the beginning of LLVM's name for it. Measured on AMD Zen:
# - The hardware prefetcher follows one panel at the speed of memory, but not several: tiles have one panel, which also
#   leaves registers free.
# - Prefetching into the first level only is limited by its few fill buffers; prefetching into the second level only
#   comes too late for tiles that compute much. So these do both: far ahead into the second level, then into the first.
_NONE: Distances = ()
_L2: Distances = ((8192, 2),)
_L1_AND_L2: Distances = ((2048, 1), (8192, 2))
_UNPACKED = (_L1_AND_L2, _L1_AND_L2, _L1_AND_L2, _NONE)
_GROUPED = (_L2, _L2, _L2, _NONE)  # their tiles take so long that the second level is near enough
_LEVELS = (_L1_AND_L2, _L1_AND_L2, _L1_AND_L2, ((8192, 1),))
_ONE_PANEL = (1, 1, 1, 1)
_TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "znver": {
        "avx512-vnni": {"tile_panels": _ONE_PANEL,
                        "prefetch": Prefetch((_L1_AND_L2, _NONE, _NONE, _NONE), _UNPACKED, _GROUPED, _LEVELS)},
        "avx-vnni": {"tile_panels": _ONE_PANEL,
                     "prefetch": Prefetch((_L1_AND_L2, _L1_AND_L2, _NONE, _NONE), _UNPACKED, _GROUPED, _LEVELS)},
        "avx2": {"tile_panels": _ONE_PANEL, "prefetch": Prefetch(_UNPACKED, _UNPACKED, _GROUPED, _LEVELS)},
    },
}


_BF16 = {"avx512-amx": "avx512bf16", "avx512-vnni": "avx512bf16", "neon-i8mm": "bf16"}


@cache
def host_features() -> frozenset[str]:
    """LLVM's names of the features that this processor and its operating system offer."""
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present) | system_features()


def arm_target() -> tuple[str, str] | tuple[None, None]:
    """LLVM's names of the Arm processor to compile for and of all features of this one; None to let LLVM choose.

    With dot products, that processor is Neoverse N1, of which LLVM has the details: for some others LLVM orders the
    instructions of a tile so that its registers do not suffice.
    """
    if not on_arm():
        return None, None
    seen, known = llvm.get_host_cpu_features(), sorted(system_features())
    features = ",".join([*filter(None, [seen.flatten()]), *(f"+{name}" for name in known if not seen.get(name))])
    return "neoverse-n1" if "dotprod" in host_features() else llvm.get_host_cpu_name(), features


def available() -> list[str]:
    """Names of the paths that this machine can execute, best first."""
    return [isa.name for isa in ISAS.values()
            if isa.runs_on(host_features()) and (isa.tile_registers != "amx" or _amx_permitted())]


@cache
def active() -> Isa:
    """The path in use: LCPU_ISA if set, else the best that the host can execute."""
    wanted = os.environ.get("LCPU_ISA", "").strip().lower()
    if not available():
        raise LcpuError("this processor has no F16C instructions (x86 before 2012): lcpu cannot run on it")
    if not wanted:
        best, processor = available()[0], llvm.get_host_cpu_name()
        has = f" ({', '.join(sorted(system_features()))})" if on_arm() else ""
        return _chosen(ISAS[best], f"the best of what {processor}{has} offers: {', '.join(available())}")
    if wanted not in ISAS:
        raise LcpuError(f"LCPU_ISA={wanted} is unknown; this machine can run: {', '.join(available())}")
    if wanted not in available() and not os.environ.get("NUMBA_CPU_NAME"):
        raise LcpuError(f"LCPU_ISA={wanted} needs instructions that this processor lacks; "
                        f"it can run: {', '.join(available())}")
    return _chosen(ISAS[wanted], f"set by LCPU_ISA; this machine can run: {', '.join(available())}")


def _chosen(isa: Isa, reason: str) -> Isa:
    """The path with the settings for this processor family."""
    processor = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    tuned = next((paths for family, paths in _TUNED.items() if processor.startswith(family)), {})
    bf16 = _BF16.get(isa.name) in host_features()
    return replace(isa, reason=reason, bf16=bf16, **tuned.get(isa.name, {}))
