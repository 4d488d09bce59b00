"""Large zeroed arrays, page-aligned, on huge pages where the system has them."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np

from .errors import LcpuError

_HUGE_PAGE = 2 << 20


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A zeroed array of the given shape. Its pages take no memory until they are written.

    Raises LcpuError if the system does not have so much.
    """
    dtype = np.dtype(dtype)
    nbytes = max(1, math.prod(shape) * dtype.itemsize)
    try:
        buffer = mmap.mmap(-1, nbytes)
    except (OSError, OverflowError, MemoryError):
        raise LcpuError(f"not enough memory for {nbytes / 2**30:.1f} GiB in one piece: "
                        "a smaller context or model needs less") from None
    if nbytes >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(buffer, dtype, math.prod(shape)).reshape(shape)
