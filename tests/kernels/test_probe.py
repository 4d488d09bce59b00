"""The kernels that measure the machine do all of their work, and what they measure is positive."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu.kernels import probe
from lcpu.kernels.program import Program
from lcpu.kernels.simd import DOT_ELEMENT, ISA, LANES

from .running import run, team

threads_1_to_3 = pytest.mark.parametrize("threads", [1, 2, 3])
PIECES, SHARES = 5, 7
SUMS = probe._PANELS * probe._TOKENS * LANES  # 32-bit lanes that a thread adds up in
ROOM = probe._RESULTS // 4  # and what there is room for
ADDITIONS = SHARES * probe._SWEEPS * probe._STEPS  # to each of them, by all threads together


@pytest.mark.parametrize("read", probe.READ_MEMORY, ids=str)
@threads_1_to_3
def test_all_of_the_memory_is_written_and_read(threads, read):
    buffer = np.zeros((PIECES, probe._PIECE // 4), np.float32)
    run(probe.write_memory, threads=threads, buffer=buffer, pieces=PIECES)
    assert (buffer == 1).all()
    buffer[:] = np.arange(1, PIECES + 1)[:, None]  # each piece counts differently: none may stand for another
    out = np.zeros((threads, probe._STREAMS * LANES), np.float32)
    run(read, threads=threads, buffer=buffer, pieces=PIECES, out=out)
    lanes = out.sum(axis=0)[out.any(axis=0)]
    assert len(lanes) in (LANES, out.shape[1])
    assert lanes.tolist() == [buffer.sum() / len(lanes)] * len(lanes)


def operands(weight: np.ndarray, token: np.ndarray) -> dict[str, np.ndarray | int]:
    """Weights that are all one number, and activations that are all another."""
    weights = np.broadcast_to(weight, (probe._PANELS, probe._STEPS * LANES * 4 // weight.itemsize)).copy()
    x = np.broadcast_to(token, (probe._TOKENS, probe._STEPS * 4 // token.itemsize)).copy()
    return {"weights": weights, "x": x, "x_stride": x.strides[0], "panel_stride": weights.strides[0], "shares": SHARES}


@threads_1_to_3
def test_every_int8_product_counts(threads):
    sums = np.dtype(np.int16 if DOT_ELEMENT == "i16" else np.int32)
    out = np.zeros((threads, 4 * ROOM // sums.itemsize), sums)
    run(probe.multiply_int8, threads=threads, out=out, **operands(np.uint8(3), np.int8(-2)))
    expected = np.array(ADDITIONS * sums.itemsize * 3 * -2).astype(sums)  # 4 products in 32 bits, 2 in 16, which wrap
    assert (out.sum(axis=0, dtype=sums)[: 4 * SUMS // sums.itemsize] == expected).all()


@pytest.mark.skipif(not ISA.tile_registers, reason="this path has no tile registers")
def test_every_product_of_tile_registers_counts_and_nothing_is_overwritten():
    out = np.zeros((2, ROOM), np.int32)
    x, weights = np.full((2, 1024), -2, np.int8), np.full((2, 1024), 3, np.int8)
    run(probe.multiply_int8_tiles, weights=weights, x=x, x_stride=64, panel_stride=64, shares=1, out=out)
    assert (out[0, :256] == probe._SWEEPS * probe._STEPS * 64 * 3 * -2).all()
    assert not out[1].any()


@threads_1_to_3
def test_every_float_product_counts(threads):
    out = np.zeros((threads, ROOM), np.float32)
    run(probe.multiply_float32, threads=threads, out=out, **operands(np.float32(3), np.float32(0.5)))
    assert (out.sum(axis=0)[:SUMS] == ADDITIONS * 1.5).all()


@pytest.mark.skipif(not ISA.bf16, reason="this path has no instruction for bfloat16")
@threads_1_to_3
def test_every_bfloat16_product_counts(threads):
    three, half = np.uint16(0x4040), np.uint16(0x3F00)
    out = np.zeros((threads, ROOM), np.float32)
    run(probe.multiply_bf16, threads=threads, out=out, **operands(three, half))
    assert (out.sum(axis=0)[:SUMS] == ADDITIONS * 2 * 1.5).all()


@pytest.mark.parametrize("memory", [True, False])
def test_a_measurement(monkeypatch, memory):
    monkeypatch.setattr(probe, "MEMORY", 16 << 20)
    monkeypatch.setattr(probe, "_WINDOW", 8 << 20)
    found = probe.measure(2, memory=memory)
    assert found.threads == 2
    assert min(found.int8, found.float32, found.bf16) > 0
    assert (found.bandwidth > 0) == memory


def test_the_best_of_two_measurements():
    first, second = probe.Peaks(2, 10.0, 2.0, 30.0, 4.0), probe.Peaks(1, 1.0, 20.0, 3.0, 40.0)
    assert first.best(second) == probe.Peaks(2, 10.0, 20.0, 30.0, 40.0)
    assert second.best(first) == probe.Peaks(1, 10.0, 20.0, 30.0, 40.0)


def test_bandwidth_is_that_of_the_fastest_window(monkeypatch):
    """All of the memory is read, a window at a time, and one of them is not disturbed."""
    monkeypatch.setattr(probe, "MEMORY", 32 << 20)
    monkeypatch.setattr(probe, "_WINDOW", 8 << 20)
    begun = []

    def fastest(of: object, program: Program, runs: int) -> float:
        (reading,) = program.instructions
        begun.append((reading.kernel, reading.operands["buffer"].ctypes.data, reading.operands["pieces"]))
        return 0.001 if len(begun) == 7 else 0.004

    monkeypatch.setattr(probe, "_fastest", fastest)
    assert probe._bandwidth(team(2)) == (8 << 20) / 0.001
    assert len(begun) == 4 * probe._PASSES * len(probe.READ_MEMORY)
    starts = sorted({start for _, start, _ in begun})
    assert [start - starts[0] for start in starts] == [0, 8 << 20, 16 << 20, 24 << 20]
    assert {pieces * probe._PIECE for _, _, pieces in begun} == {8 << 20}
    assert {kernel for kernel, _, _ in begun} == set(probe.READ_MEMORY)


def test_rates_count_all_shares(monkeypatch):
    """Operations per second, from a clock that says how long the passes took."""
    asked = []

    def fastest(of: object, program: Program, runs: int) -> float:
        asked.append(runs)
        return 0.001 if len(asked) < 3 else 0.02

    monkeypatch.setattr(probe, "_fastest", fastest)
    rate = probe._rate(team(2), probe.multiply_int8, 10)
    assert asked == [1, 1, 1, probe._SHORT_PASSES]  # longer and longer, then often
    assert rate == 2 * 16 * 4 * 10 / 0.02
