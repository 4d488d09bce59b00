"""How many threads to use: the physical cores that this process may use, within its container's quota.

Small models get fewer threads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..kernels.arm_features import sysctl
from ..kernels.errors import LcpuError
from .cgroups import cgroup_folders, read_limit

_MOST = 512
_WORTH_A_THREAD = 8 << 20  # bytes of weights for each thread: with less work, threads mostly wait for each other


def thread_count(wanted: int | None, weight_bytes: int) -> int:
    """`wanted` threads, or if it is None, as many as suit the machine and the model.

    There is at most one thread for each logical processor. More would have to take turns, and a thread that waits for
    its turn holds up all others. Raises LcpuError unless wanted is 1 to 512.
    """
    if wanted is None:
        return min(_quota(), len(_physical_cores()), 1 + weight_bytes // _WORTH_A_THREAD, _MOST)
    if not 1 <= wanted <= _MOST:
        raise LcpuError(f"{wanted} threads: choose 1 to {_MOST} (-t)")
    return min(wanted, len(_processors()))


def _processors() -> set[int]:
    """The logical processors that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _physical_cores() -> set[str]:
    """One name for each core that has at least one of these processors. On macOS only cores for performance count."""
    if sys.platform == "darwin":
        count = sysctl("hw.perflevel0.physicalcpu") or sysctl("hw.physicalcpu") or os.cpu_count() or 1
        return {str(core) for core in range(count)}
    return {_core_of(processor) for processor in _processors()}


def _core_of(processor: int) -> str:
    """The processors that share its core, as Linux lists them; elsewhere each processor counts as a core."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    try:
        return siblings.read_text().strip()
    except OSError:
        return str(processor)


def _quota() -> int:
    """How many whole processors the cgroups allow, at least 1; _MOST if there is no limit."""
    limits = [_MOST]
    for folder in cgroup_folders("cpu"):
        limits.append(_limit(folder / "cpu.max"))  # version 2: "quota period", quota may be "max"
        limits.append(_limit(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"))  # version 1
    return min(limits)


def _limit(*files: Path) -> int:
    numbers = read_limit(*files)
    if numbers is None or len(numbers) != 2 or min(numbers) <= 0:
        return _MOST
    quota, period = numbers
    return max(1, quota // period)
