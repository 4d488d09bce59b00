"""Large arrays: zeroed, aligned, and free until they are used."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

from lcpu.kernels.memory import zeros


@pytest.mark.parametrize("shape", [(1,), (0,), (0, 5), (3, 5, 7), (1000, 1000)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_zeros(shape, dtype):
    array = zeros(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    assert not array.any()
    assert array.ctypes.data % mmap.PAGESIZE == 0
    assert array.flags.c_contiguous
    array[...] = 1
    assert array.all()


def test_huge_pages_are_for_large_arrays_that_ask():
    small, large = zeros((10,), np.uint8, huge_pages=True), zeros((3 << 20,), np.uint8, huge_pages=True)
    large[:] = 1
    assert not small.any()
    assert large.all()


def test_arrays_do_not_overlap():
    arrays = [zeros((5000,), np.uint8) for _ in range(4)]
    for i, array in enumerate(arrays):
        array[:] = i
    assert [set(array.tolist()) for array in arrays] == [{0}, {1}, {2}, {3}]


def test_an_array_outlives_its_maker():
    view = zeros((100, 100), np.float32)[50:, 10:20]
    view += 3
    assert view.sum() == 3 * view.size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_untouched_pages_take_no_memory():
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    before = resident()
    array = zeros((256, 1 << 20), np.uint8)
    array[0, :10] = 1
    assert resident() - before < 16 << 20
    array[:] = 1
    assert resident() - before > 200 << 20
