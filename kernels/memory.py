"""Large zeroed arrays, page-aligned, and on huge pages where wanted and the system has them."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np

from .errors import LcpuError

_HUGE_PAGE = 2 << 20


_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}


def zeros(shape: tuple[int, ...], dtype: Any, *, huge_pages: bool = False) -> np.ndarray:
    """A zeroed array of the given shape. Its pages take no memory until they are written.

    huge_pages: for what is streamed whole; memory is then taken 2 MiB at a time.

    Raises LcpuError if the system does not have so much.
    """
    dtype = np.dtype(dtype)
    nbytes = max(1, math.prod(shape) * dtype.itemsize)
    try:
        buffer = mmap.mmap(-1, nbytes, **_PRIVATE)  # shared memory, the default, has no huge pages
    except (OSError, OverflowError, MemoryError):
        raise LcpuError(f"the system does not give {size_text(nbytes)} of memory in one piece: take a shorter context "
                        "(-c) or a smaller model, or raise the limit (ulimit -v)") from None
    if huge_pages and nbytes >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(buffer, dtype, math.prod(shape)).reshape(shape)


def size_text(nbytes: int) -> str:
    """A number of bytes for an error: "1.4 GiB", "600 MiB", "0.2 MiB"."""
    if nbytes >= 1 << 30:
        return f"{nbytes / 2**30:.1f} GiB"
    return f"{nbytes / 2**20:.0f} MiB" if nbytes >= 1 << 20 else f"{nbytes / 2**20:.1f} MiB"
