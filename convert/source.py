"""The tensors of a checkpoint where they lie in its files: mapped, read when asked for, never whole models at once."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..kernels.errors import LcpuError

# The data types of safetensors, which the tensors of PyTorch files are called by as well. NumPy has no bfloat16 and no
# floats of 8 bits: these are read as whole numbers.
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "BOOL": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
}
FLOATS = ("F64", "F32", "F16", "BF16")
SMALL_FLOATS = ("F8_E4M3", "F8_E5M2", "F8_E8M0")  # weights and scales of quantized checkpoints


class MappedFile:
    """A file in memory as far as it is looked at."""

    def __init__(self, path: Path) -> None:
        """Raises LcpuError if the file cannot be read."""
        self.path = path
        try:
            with path.open("rb") as file:
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise LcpuError(f"{path}: no such file: the checkpoint is not whole; download it again") from None
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise LcpuError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        self.size = len(self.buffer)

    def release(self, offset: int, nbytes: int) -> None:
        """Give the memory of these bytes back to the system; touching them again reads them again."""
        page = mmap.PAGESIZE
        start, end = offset // page * page, min(self.size, -(-(offset + nbytes) // page) * page)
        if hasattr(mmap, "MADV_DONTNEED") and end > start:
            self.buffer.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        with suppress(BufferError):  # arrays still look into it: it is unmapped when the last of them goes
            self.buffer.close()


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of a checkpoint. Without a file, it is known by its description only."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of DTYPES
    file: MappedFile | None
    offset: int  # of its first value, in bytes
    strides: tuple[int, ...] | None = None  # in values; None: rows one after another

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def array(self) -> np.ndarray:
        """The values, [shape], a read-only view of the file; of bfloat16, the bits as uint16."""
        assert self.file is not None
        dtype = DTYPES[self.dtype]
        strides = None if self.strides is None else tuple(stride * dtype.itemsize for stride in self.strides)
        return np.ndarray(self.shape, dtype, self.file.buffer, self.offset, strides)

    def release(self) -> None:
        """Give back the memory that `array` took."""
        if self.file is not None and self.strides is None:
            self.file.release(self.offset, self.nbytes)


def as_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values of a SourceTensor of one of the FLOATS or SMALL_FLOATS, as a new float32 array."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return _float8_values(dtype)[values] if dtype in SMALL_FLOATS else values.astype(np.float32)


@cache
def _float8_values(dtype: str) -> np.ndarray:
    """What the 256 codes of an 8-bit float stand for: float32 [256].

    E4M3 is that of machine learning ("fn"): no infinities, and 127 and 255 are NaN. E8M0 is 2 ** (code - 127).
    Source: OCP Microscaling Formats (MX) 1.0 and OCP 8-bit Floating Point Specification.
    """
    codes = np.arange(256)
    if dtype == "F8_E5M2":
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "F8_E8M0":
        return np.where(codes == 255, np.nan, np.ldexp(1.0, codes - 127)).astype(np.float32)
    exponents, fractions = codes >> 3 & 15, codes & 7
    values = np.where(exponents > 0, np.ldexp(8.0 + fractions, exponents - 10), np.ldexp(1.0 * fractions, -9))
    values[codes & 127 == 127] = np.nan
    return np.where(codes & 128, -values, values).astype(np.float32)
