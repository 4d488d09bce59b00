"""How much memory is left for a model, by the machine and by the control groups around this process."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ..kernels.errors import LcpuError
from ..kernels.memory import size_text
from .cgroups import cgroup_folders, read_limit

_SPARE = 64 << 20  # bytes: for Python, the compiler and copies of logits, besides what is counted
_LEAST_CONTEXT = 512  # tokens: a default context is not cut to fewer
_STEP = 256  # tokens: the cache and the tables of angles grow by these


@dataclass(frozen=True)
class Room:
    """Bytes that this process may still take, and whether it is a control group that says so."""

    nbytes: int
    grouped: bool = False

    def __str__(self) -> str:
        """For an error: "580 MiB are available", with what the limit belongs to."""
        whose = " (limit of the container or cgroup)" if self.grouped else ""
        return f"{size_text(self.nbytes)} are available{whose}"


@dataclass(frozen=True)
class Needs:
    """Bytes that a model takes once all of its context is in use, by one text."""

    weights: int  # packed
    context: int  # keys, values, and what else grows with the context
    q8_0_context: int  # the same with keys and values in Q8_0
    tokens: int  # of context
    buffers: int  # activations of a batch

    @property
    def total(self) -> int:
        return self.weights + self.context + self.buffers + _SPARE

    def fitting(self, nbytes: int) -> int:
        """The most tokens of context with which the model takes at most so many bytes; 0 if there are none."""
        left = max(0, nbytes - self.weights - self.buffers - _SPARE)
        return min(self.tokens, left * self.tokens // self.context // _STEP * _STEP)


def room() -> Room | None:
    """What is left; None where the system does not tell. Page cache that Linux can drop counts as left.

    On systems without /proc it is the memory of the machine, used or not.
    """
    limits = [Room(nbytes, grouped=True) for folder in cgroup_folders("memory") for nbytes in _group_rooms(folder)]
    machine = _machine_room()
    if machine is not None:
        limits.append(Room(machine))
    return min(limits, key=lambda limit: limit.nbytes, default=None)


def fitting_context(path: Path, needs: Needs, *, promised: int, shorten: bool, flags: str = "-c") -> int:
    """How many tokens of context a model gets: as many as it needs memory for, or with `shorten` fewer, if these fit.

    promised: bytes that other models of this process have not taken yet, but will. flags: what sets the context, for
    the error. Raises LcpuError if the model does not fit.
    """
    limit = room()
    if limit is None or needs.total + promised <= limit.nbytes:
        return needs.tokens
    limit = Room(max(0, limit.nbytes - promised), limit.grouped)
    tokens = needs.fitting(limit.nbytes)
    if shorten and tokens >= _LEAST_CONTEXT:
        logging.getLogger("lcpu").warning(
            "%s: the context is cut from %d to %d tokens, because only %s; %s N asks for a size",
            path, needs.tokens, tokens, limit, flags,
        )  # fmt: skip
        return tokens
    way = "take a smaller model or type"
    if tokens:
        way = f"take a context of at most {tokens} tokens ({flags}) or a smaller type"
    elif promised and needs.weights + needs.buffers + _SPARE <= limit.nbytes + promised:
        way = f"take a shorter context ({flags}) for all models, or smaller ones"
    if needs.total - needs.context + needs.q8_0_context <= limit.nbytes:
        way += ", or store keys and values in Q8_0 (-ctk q8_0 -ctv q8_0)"
    raise LcpuError(
        f"{path}: needs {size_text(needs.total)} of memory (weights {size_text(needs.weights)}, context of "
        f"{needs.tokens} tokens {size_text(needs.context)}, buffers {size_text(needs.buffers + _SPARE)}), but only "
        f"{limit}: {way}; --no-memory-check loads it anyway"
    )


def spare_bytes(needs: Needs, *, promised: int) -> int | None:
    """What may be spent on more than a model needs: half of what is left beside it. None if that is not known."""
    limit = room()
    return None if limit is None else max(0, limit.nbytes - promised - needs.total) // 2


def _group_rooms(folder: Path) -> list[int]:
    """What each limit of a group leaves. Version 2: memory.max and memory.high; version 1: memory.limit_in_bytes."""
    stat = _stat(folder / "memory.stat")
    rooms = []
    for limit, used, prefix in (("memory.max", "memory.current", ""), ("memory.high", "memory.current", ""),
                                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")):
        numbers = read_limit(folder / limit, folder / used)
        if numbers is not None and len(numbers) == 2:
            most, taken = numbers
            if prefix:  # the groups around it may be out of sight
                most = min(most, stat.get("hierarchical_memory_limit", most))
            dropped = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
            rooms.append(max(0, most - max(0, taken - dropped)))
    return rooms


def _stat(path: Path) -> dict[str, int]:
    """The lines "name number" of a file; none if there is no such file."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except (OSError, ValueError):
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _machine_room() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None
