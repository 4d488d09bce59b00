"""The types a GGUF file is made of: metadata values and tensor blocks.

Source: ggml/include/gguf.h (value types), ggml/include/ggml.h and ggml/src/ggml-common.h (tensor types).
I2_S is bitnet.cpp's; upstream ggml keeps its id, 36, unused (before, it was that of IQ4_NL_4_4).
"""

import math
from dataclasses import dataclass

import numpy as np

UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9

# The fixed-size metadata value types, by id.
VALUE_DTYPES: dict[int, np.dtype] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    UINT32: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    BOOL: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}


@dataclass(frozen=True)
class TensorType:
    """How a tensor is stored: rows are cut into blocks of `block_values` values, `block_bytes` bytes each."""

    name: str
    block_values: int
    block_bytes: int
    tail_bytes: int = 0  # after the last block: I2_S keeps the scale of the tensor there, padded to 32 bytes
    successor: str = ""  # of a type that llama.cpp has dropped: what to use instead

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a whole tensor; the last dimension of `shape` must be a multiple of `block_values`."""
        return math.prod(shape) // self.block_values * self.block_bytes + self.tail_bytes


TENSOR_TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    4: TensorType("Q4_2", 16, 10, successor="Q4_0"),
    5: TensorType("Q4_3", 16, 12, successor="Q4_1"),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 40),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    31: TensorType("Q4_0_4_4", 32, 18, successor="Q4_0"),
    32: TensorType("Q4_0_4_8", 32, 18, successor="Q4_0"),
    33: TensorType("Q4_0_8_8", 32, 18, successor="Q4_0"),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    36: TensorType("I2_S", 128, 32, tail_bytes=32),
    37: TensorType("IQ4_NL_4_8", 32, 18, successor="IQ4_NL"),
    38: TensorType("IQ4_NL_8_8", 32, 18, successor="IQ4_NL"),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}
