"""The forms that activations take for the matmul of a block format: rounded floats, or blocks of int8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..kernels.activations import (
    BLOCK,
    LARGE_BLOCK,
    Activation,
    BFloat16Pairs,
    Float32,
    Int8Rows,
    LargeInt8Blocks,
    quantize,
    quantize_large,
    quantize_rows,
    round_rows,
    round_to_bf16,
)
from ..kernels.program import Program
from .rows import Rows

Buffer = Callable[[str, int, int], np.ndarray]  # `Builder.buffer`


def prepare(program: Program, buffer: Buffer, x: Rows, activation: Activation) -> np.ndarray:
    """Record the instruction that gives x another form, [capacity][row bytes], in a buffer of that form."""
    if isinstance(activation, Float32):
        out = buffer("float16", x.stride, x.capacity).view(np.float32)
        program.add(round_rows, count=x.count, x=x.array, out=out, stride=x.stride, vectors=x.vectors)
        return out
    out = buffer(str(activation), activation.row_bytes(x.width), x.capacity)
    if isinstance(activation, BFloat16Pairs):
        program.add(round_to_bf16, count=x.count, x=x.array, x_stride=x.stride, out=out,
                    out_stride=out.strides[0], vectors=x.vectors)
    elif isinstance(activation, Int8Rows):
        program.add(quantize_rows, count=x.count, x=x.array, x_stride=x.stride, out=out,
                    out_stride=out.strides[0], vectors=x.vectors, offset=activation.offset)
    elif isinstance(activation, LargeInt8Blocks):
        program.add(quantize_large, count=x.count, x=x.array, x_stride=x.stride, out=out,
                    blocks=x.width // LARGE_BLOCK)
    else:
        program.add(quantize, count=x.count, x=x.array, x_stride=x.stride, out=out,
                    block_bytes=activation.block_bytes, blocks=x.width // BLOCK, offset=activation.offset,
                    group=activation.group, summed=activation.summed)
    return out
