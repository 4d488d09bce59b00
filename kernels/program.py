"""A program: instructions that a team of threads executes in order, built once and run for every step."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .jit import OPERANDS, Kernel, address_of

# Byte offsets in a record. Its kernel's address comes first.
BARRIER_AT, ROWS_AT, OPERANDS_AT = 8, 16, 24
RECORD_BYTES = OPERANDS_AT + 8 * OPERANDS
COUNTER_BYTES = 64  # a cache line for each instruction's share counter


@dataclass(frozen=True)
class Instruction:
    """A kernel and its operands. barrier: whether all threads meet after it. name: what it computes, for a profile.

    row_count: of the rows that threads share, if the kernel works by rows. A single row is computed by the thread
    that comes last to the barrier before, and the others wait once instead of twice.
    """

    kernel: Kernel
    operands: dict[str, Any]
    barrier: bool
    name: str
    row_count: Any = 0


class Program:
    """Instructions as the flat int64 array `records` [instructions][RECORD_BYTES / 8], with a counter for each.

    Threads share an instruction's work by its counter: each thread takes the next piece by adding 1 to it.
    """

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self._keep: list[Any] = []
        self.records = np.zeros((0, RECORD_BYTES // 8), np.int64)
        self.counters = np.zeros((0, COUNTER_BYTES // 8), np.int64)

    def add(self, kernel: Kernel, *, barrier: bool = True, name: str = "", row_count: Any = None,
            **operands: Any) -> None:
        """Append an instruction. Operands go by name: integers, floats (as float32 bits), arrays (as addresses), and
        functions that give one of these when the program is finished.

        Without a barrier, the next instruction may start before this one has ended on every thread. There is none
        between two instructions by rows of the same count. name: by default the kernel's. row_count: by default the
        count of a kernel that works by rows.
        """
        if tuple(sorted(operands)) != tuple(sorted(kernel.operands)):
            raise TypeError(f"{kernel} was given {', '.join(operands)}")
        before = self.instructions[-1] if self.instructions else None
        if before and before.kernel.by_rows and kernel.by_rows and before.operands["count"] is operands["count"]:
            self.instructions[-1] = replace(before, barrier=False)
        if row_count is None:
            row_count = operands["count"] if kernel.by_rows else 0
        self.instructions.append(Instruction(kernel, operands, barrier, name or kernel.name, row_count))

    def _encode(self, value: Any) -> int:
        if callable(value):
            value = value()
        if isinstance(value, np.ndarray):
            self._keep.append(value)
            return address_of(value)
        if isinstance(value, float | np.floating):
            return struct.unpack("<I", struct.pack("<f", value))[0]
        return int(value)

    @property
    def kernels(self) -> list[Kernel]:
        """Each kernel once, in order of first use."""
        return list(dict.fromkeys(instruction.kernel for instruction in self.instructions))

    def finish(self) -> Program:
        """Compile what is not compiled yet and lay out the records. The last instruction always ends at a barrier."""
        self.records = np.zeros((len(self.instructions), RECORD_BYTES // 8), np.int64)
        self.counters = np.zeros((len(self.instructions), COUNTER_BYTES // 8), np.int64)
        for record, instruction in zip(self.records, self.instructions, strict=True):
            kernel = instruction.kernel
            encoded = [self._encode(instruction.operands[name]) for name in kernel.operands]
            if kernel.in_memory:
                encoded = [self._encode(np.array(encoded, np.int64))]
            fields = [kernel.address, instruction.barrier, self._encode(instruction.row_count), *encoded]
            record[: len(fields)] = fields
        if len(self.records):
            self.records[-1, 1] = True
        return self

    def part(self, start: int, end: int) -> Program:
        """Some instructions of a finished program, as one of its own: all threads meet at its end."""
        part = Program()
        part.instructions, part._keep = self.instructions[start:end], self._keep
        part.records, part.counters = self.records[start:end].copy(), self.counters[start:end].copy()
        if len(part.records):
            part.records[-1, 1] = True
        return part
