"""What the system says of an Arm processor. LLVM does not see all of it, and nothing where one is emulated."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

# LLVM's name of each: bits of AT_HWCAP and AT_HWCAP2 (Linux, arch/arm64/include/uapi/asm/hwcap.h), and macOS's name.
_HWCAP, _HWCAP2 = 16, 26
_LINUX = {"neon": (_HWCAP, 1), "fullfp16": (_HWCAP, 10), "dotprod": (_HWCAP, 20), "i8mm": (_HWCAP2, 13),
          "bf16": (_HWCAP2, 14)}
_MACOS = {"fullfp16": "FEAT_FP16", "dotprod": "FEAT_DotProd", "i8mm": "FEAT_I8MM", "bf16": "FEAT_BF16"}
_WINDOWS = {"dotprod": 43}  # PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE


@cache
def on_arm() -> bool:
    """Whether this is a 64-bit Arm processor, or an emulated one."""
    return platform.machine().lower() in ("aarch64", "arm64")


@cache
def system_features() -> frozenset[str]:
    """LLVM's names of the features that the kernels know and the system reports; none on other processors."""
    if not on_arm():
        return frozenset()
    if sys.platform == "darwin":
        found = {name for name, feature in _MACOS.items() if sysctl(f"hw.optional.arm.{feature}") == 1}
    elif sys.platform == "win32":
        found = {name for name, number in _WINDOWS.items() if _present_on_windows(number)}
    else:
        found = _of_linux()
    return frozenset(found | {"neon"})


def _present_on_windows(number: int) -> bool:
    load = getattr(ctypes, "WinDLL", None)
    return load is not None and bool(load("kernel32").IsProcessorFeaturePresent(number))


def _of_linux() -> set[str]:
    try:
        read = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):  # a C library without it
        return set()
    read.restype, read.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {name for name, (word, bit) in _LINUX.items() if read(word) >> bit & 1}


def sysctl(name: str) -> int | None:
    """A number that macOS's kernel tells by this name; None where it has no such name."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    except (OSError, AttributeError, TypeError):  # not macOS
        return None
    return None if failed else value.value
