"""The peak rates of this machine: how fast it reads memory, and how fast it multiplies int8 and float32 numbers.

Benchmarks give their results as shares of these. They are measured with the operations that matmuls use, so they hold
for the SIMD path in use: no kernel on that path can be faster. Other programs disturb some of the measurements, so the
fastest counts, and who wants a peak to compare with measures several times (`engine.peaks`).
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass

import numpy as np
from numba import float32

from .jit import Kernel, bind, hole, inlined, kernel, template
from .memory import zeros as zeroed
from .program import Program
from .simd import ISA, LANES, atomic_add, dot2_bf16, dot4, fma_tokens, load_tile, panel_bytes, panel_f32, partial_sums
from .simd import begin_tiles, clear_tile, end_tiles, multiply_tiles, prefetch_unpacked, read_tile, splat_f32
from .simd import store_f32, store_tile, write_tile, zeros, zeros_f32, zeros_i32
from .team import Team

_VECTOR = 4 * LANES
MEMORY = 512 << 20  # bytes to read, one window after another: several times a last-level cache
_WINDOW = 128 << 20  # bytes that are timed together: another program may disturb one of them
_PIECE = 1 << 20  # bytes that a thread reads at a time
_STREAMS = 8  # places that it reads from in turn: some processors are faster with several streams, others with one
_PANELS, _TOKENS = 2, 6  # 12 sums hide the latency of every processor's multiply-add, and fit in 16 registers
_MOST_TOKENS = 8  # what memory has room for: as many bytes as registers of 16 rows are read from and written to
_STEPS = 64  # of 4 int8, 2 bfloat16 or 1 float32 products for each sum: their operands stay in the first-level cache
_RESULTS = _PANELS * _MOST_TOKENS * _VECTOR  # bytes of a thread's
_SWEEPS = 16  # passes over these operands before a thread takes more work
_PASSES = 2  # measurements of reading each window
_SHORT_PASSES = 10  # measurements of computing ...
_SHORT_PASS_SECONDS = 0.005  # ... of about this length each


@dataclass(frozen=True)
class Peaks:
    """The rates that `threads` threads reached. A multiplication and an addition are two operations."""

    threads: int
    bandwidth: float  # bytes read from memory per second; 0 if it was not measured
    int8: float  # operations per second on int8 numbers
    float32: float
    bf16: float  # the same as float32 on processors without an instruction for bfloat16

    def best(self, other: Peaks) -> Peaks:
        """The higher of both of each rate."""
        return Peaks(self.threads, *map(max, astuple(self)[1:], astuple(other)[1:]))


@kernel
def write_memory(work, thread, threads, buffer, pieces):
    """Fill the buffer with ones: pages that were never written all share one page of zeros."""
    piece = atomic_add(work, 1)
    while piece < pieces:
        for at in range(0, _PIECE, _VECTOR):
            store_f32(buffer + piece * _PIECE + at, splat_f32(float32(1.0)))
        piece = atomic_add(work, 1)


streams = start = load = dot = hole()


@template
def _read(work, thread, threads, buffer, pieces, out):
    """out[thread] = the sum of what the thread has read, so that the compiler cannot leave out a load."""
    sums = zeros(streams, 1)
    size = _PIECE // streams
    piece = atomic_add(work, 1)
    while piece < pieces:
        source = buffer + piece * _PIECE
        for at in range(0, size, _VECTOR):
            prefetch_unpacked(sums, source + at, size, 1)
            sums = sums + load_tile(sums, source + at, size, 0)
        piece = atomic_add(work, 1)
    store_tile(sums, out + thread * _STREAMS * _VECTOR, _VECTOR, 0)


READ_MEMORY = [kernel(bind(_read, f"read_{count}_streams", streams=count)) for count in (1, _STREAMS)]


@inlined
def _whole_numbers(like):
    return partial_sums(zeros_i32(like))


@template
def _multiply(work, thread, threads, weights, x, x_stride, panel_stride, shares, out):
    """Multiply and add numbers in the first-level cache, as a matmul's inner loop does."""
    sums = start(zeros(_PANELS, _TOKENS))
    while atomic_add(work, 1) < shares:
        for _ in range(_SWEEPS):
            for step in range(_STEPS):
                panel = load(sums, weights + step * _VECTOR, panel_stride)
                sums = dot(sums, panel, x + 4 * step, x_stride)
    store_tile(sums, out + thread * _RESULTS, _VECTOR, _PANELS * _VECTOR)


multiply_int8 = kernel(bind(_multiply, "multiply_int8", start=_whole_numbers, load=panel_bytes, dot=dot4))
multiply_bf16 = kernel(bind(_multiply, "multiply_bf16", start=zeros_f32, load=panel_bytes, dot=dot2_bf16))
multiply_float32 = kernel(bind(_multiply, "multiply_float32", start=zeros_f32, load=panel_f32, dot=fma_tokens))


@kernel
def multiply_int8_tiles(work, thread, threads, weights, x, x_stride, panel_stride, shares, out):
    """The same with registers of 16 rows: two of weights and two of tokens, whose four products are summed up."""
    tiles = begin_tiles(64)
    clear_tile(tiles, 0)
    while atomic_add(work, 1) < shares:
        for _ in range(_SWEEPS * _STEPS):
            read_tile(tiles, 4, x, 64)
            read_tile(tiles, 5, x + 1024, 64)
            read_tile(tiles, 6, weights, 64)
            read_tile(tiles, 7, weights + 1024, 64)
            multiply_tiles(tiles, 0, 4, 6)
            multiply_tiles(tiles, 1, 4, 7)
            multiply_tiles(tiles, 2, 5, 6)
            multiply_tiles(tiles, 3, 5, 7)
    write_tile(tiles, 0, out + thread * _RESULTS, 64)
    end_tiles()


def measure(threads: int, *, memory: bool = True) -> Peaks:
    """Measure once, in half a second. memory: whether MEMORY bytes may be taken for a moment; else bandwidth is 0."""
    with Team(threads) as team:
        lanes = _PANELS * _TOKENS * LANES * _STEPS * _SWEEPS  # in one share; each has one or more products
        float32 = _rate(team, multiply_float32, 2 * lanes)
        return Peaks(
            threads,
            bandwidth=_bandwidth(team) if memory else 0.0,
            int8=_int8_rate(team, 2 * 4 * lanes),
            float32=float32,
            bf16=_rate(team, multiply_bf16, 2 * 2 * lanes) if ISA.bf16 else float32,
        )


def _int8_rate(team: Team, share_operations: int) -> float:
    """With the tile registers of a processor that has them."""
    if ISA.tile_registers == "amx":
        return _rate(team, multiply_int8_tiles, 2 * 4 * 16 * 16 * 64 * _STEPS * _SWEEPS)
    return _rate(team, multiply_int8, share_operations)


def _bandwidth(team: Team) -> float:
    buffer = zeroed((MEMORY,), np.uint8, huge_pages=True)
    out = np.zeros((team.threads, _STREAMS * _VECTOR), np.uint8)
    writing = Program()
    writing.add(write_memory, buffer=buffer, pieces=MEMORY // _PIECE)
    team.run(writing.finish())
    times = []
    for read in _PASSES * READ_MEMORY:
        for first in range(0, MEMORY, _WINDOW):
            reading = Program()
            reading.add(read, buffer=buffer[first:], pieces=_WINDOW // _PIECE, out=out)
            times.append(_fastest(team, reading.finish(), 1))
    return _WINDOW / min(times)


def _rate(team: Team, multiply: Kernel, share_operations: int) -> float:
    """Operations per second of a kernel. share_operations: how many operations one share of its work has."""
    weights = np.ones((_PANELS, _STEPS * LANES), np.float32)
    x = np.ones((_MOST_TOKENS, _STEPS), np.float32)
    out = np.zeros((team.threads, _RESULTS), np.uint8)
    shares = 16 * team.threads
    while True:
        program = Program()
        program.add(multiply, weights=weights, x=x, x_stride=x.strides[0], panel_stride=weights.strides[0],
                    shares=shares, out=out)
        if _fastest(team, program.finish(), 1) >= _SHORT_PASS_SECONDS:
            return shares * share_operations / _fastest(team, program, _SHORT_PASSES)
        shares *= 2


def _fastest(team: Team, program: Program, runs: int) -> float:
    """Seconds of the fastest run, which other processes have disturbed least."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        team.run(program)
        times.append(time.perf_counter() - start)
    return min(times)
