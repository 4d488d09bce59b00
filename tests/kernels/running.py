"""How tests run kernels: single instructions on a team, and matrices in the layouts that kernels take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from lcpu.kernels.activations import (
    INT8,
    Activation,
    Float32,
    Int8Blocks,
    Int8Rows,
    LargeInt8Blocks,
    quantize,
    quantize_large,
    quantize_rows,
    round_rows,
    round_to_bf16,
)
from lcpu.kernels.formats import FORMATS, Format
from lcpu.kernels.jit import Kernel, Template, bind, kernel
from lcpu.kernels.matmul import MAX_TOKENS, PANEL_GROUP, whole_groups
from lcpu.kernels.program import Program
from lcpu.kernels.simd import LANES, PAIRS
from lcpu.kernels.team import Team

TERNARY_SCALE = np.float32(0.037)  # of the whole tensor, in tests of I2_S
SCALES_AT = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82],
             "q3_k": [108], "q4_k": [0, 2], "q5_k": [0, 2],
             "q6_k": [208], "tq1_0": [52], "tq2_0": [64], "iq4_nl": [0], "iq4_xs": [0], "q1_0": [0], "q2_0": [0],
             "iq3_s": [0], "iq3_xxs": [0], "iq2_xxs": [0], "iq2_xs": [0], "iq2_s": [0],
             "iq1_s": [0]}  # byte offsets in a block
# One format of every kind of tile. A format takes a compiler seconds, so where others are not needed, these will do.
ONE_OF_EACH = [format for format in FORMATS.values() if format.name in (
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q3_k", "q4_k", "q5_k", "q6_k", "i2_s", "tq1_0", "iq4_nl",
    "mxfp4", "nvfp4", "iq3_s", "iq2_xs", "iq1_m", "q1_0")]
UNDER_TEST = ONE_OF_EACH if "LCPU_TEST_ONE_OF_EACH" in os.environ else list(FORMATS.values())
every_format = pytest.mark.parametrize("format", UNDER_TEST, ids=lambda format: format.name)
ALIGNMENT = 16  # floats: a row of activations is whole vectors on every path
few = settings(max_examples=12, deadline=None)  # the first example may wait for a compiler

head_dims = st.sampled_from([8, 16, 32, 64, 80, 96, 100, 128, 256]) | st.integers(4, 128).map(lambda half: 2 * half)

team = cache(Team)


def run(kernel: Kernel, *, threads: int = 1, **operands: Any) -> None:
    """Execute one instruction."""
    program = Program()
    program.add(kernel, **operands)
    team(threads).run(program.finish())


def operation_kernel(template: Template, name: str, operation: Any) -> Kernel:
    """A kernel of a template whose one hole is `operation`."""
    return kernel(bind(template, name, operation=operation))


def int64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal as bytes: signs of zeros count, and NaNs are equal to themselves."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def padded(x: np.ndarray, *, spare: int = MAX_TOKENS) -> np.ndarray:
    """float32 rows with zeros up to whole vectors, and spare rows after the last token."""
    tokens, width = x.shape
    rows = np.zeros((tokens + spare, -(-width // ALIGNMENT) * ALIGNMENT), np.float32)
    rows[:tokens, :width] = x
    return rows


def vectors_of(rows: np.ndarray) -> int:
    return rows.shape[1] // LANES


def random_blocks(format: Format, rows: int, k: int, random: np.random.Generator) -> np.ndarray:
    """Weights in a file's layout, uint8 [rows][bytes], about as large as those of a model. All bits of blocks occur."""
    shape = (rows, k // format.block)
    if format.block == 1:
        values = random.standard_normal(shape, dtype=np.float32)
        if format.name == "bf16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.astype({"f32": np.float32, "f16": np.float16}[format.name]).view(np.uint8)
    if format.name == "i2_s":
        size = rows * shape[1] * format.block_bytes
        raw = random.integers(0, 256, size + 32, dtype=np.uint8)
        raw[size : size + 4] = np.frombuffer(TERNARY_SCALE.tobytes(), np.uint8)
        return raw[:size].reshape(rows, -1)  # the scale stays behind it in memory, as in a file
    raw = random.integers(0, 256, (*shape, format.block_bytes), dtype=np.uint8)
    put_scales(format, raw, random.uniform(-0.01, 0.01, shape).astype(np.float16))
    return raw.reshape(rows, -1)


def put_scales(format: Format, raw: np.ndarray, scales: np.ndarray) -> None:
    """Set the scales of each block of uint8 [...][block bytes], all of them to the same."""
    if format.name == "mxfp4":  # powers of two, near the magnitudes of levels that are about ten times as large
        raw[..., 0] = 128 - 3 + np.frexp(np.maximum(abs(scales.astype(np.float32)), 1e-30))[1]
        return
    if format.name == "nvfp4":  # numbers below 2 ** -6
        raw[..., :4] = np.rint(np.minimum(abs(scales.astype(np.float32)) * 2**9, 7))[..., None]
        return
    if format.name == "iq1_m":  # a nibble of the scale is the top of each of four uint16
        for i in range(4):
            nibbles = (scales.view(np.uint16) >> 4 * i & 15).astype(np.uint8)
            raw[..., 49 + 2 * i] = raw[..., 49 + 2 * i] & 15 | nibbles << 4
        return
    for at in SCALES_AT[format.name]:
        raw[..., at : at + 2] = scales[..., None].view(np.uint8)


def pack(format: Format, raw: np.ndarray, k: int, *, threads: int = 1) -> np.ndarray:
    """uint8 [panels][bytes of a panel]"""
    rows, blocks = len(raw), k // format.block
    panels = np.zeros((whole_groups(rows), format.panel_bytes(blocks)), np.uint8)
    run(format.pack, threads=threads, source=raw, panels=panels, rows=rows, blocks=blocks,
        block_bytes=format.block_bytes)
    return panels


def prepare(activation: Activation, x: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """float32 [tokens][k] as a format's matmul takes it, with spare rows; the first axis is tokens."""
    tokens, k = x.shape
    rows = padded(x)
    if isinstance(activation, Float32):
        if activation.rounded:
            run(round_rows, threads=threads, count=int64(tokens), x=rows, out=rows, stride=rows.strides[0],
                vectors=vectors_of(rows))
        return rows
    out = np.zeros((len(rows) + len(rows) % 2, activation.row_bytes(k)), np.uint8)  # int8 rows may lie in pairs
    given = {"threads": threads, "count": int64(tokens), "x": rows, "x_stride": rows.strides[0], "out": out}
    if isinstance(activation, Int8Rows):
        run(quantize_rows, out_stride=out.strides[0], vectors=k // LANES, offset=activation.offset, **given)
    elif isinstance(activation, LargeInt8Blocks):
        run(quantize_large, blocks=k // 256, **given)
    elif isinstance(activation, Int8Blocks):
        run(quantize, block_bytes=activation.block_bytes, blocks=k // 32, offset=activation.offset,
            group=activation.group, summed=activation.summed, **given)
    else:
        run(round_to_bf16, out_stride=out.strides[0], vectors=-(-k // LANES), **given)
    return out


def row_by_row(rows: np.ndarray) -> np.ndarray:
    """int8 rows [rows][bytes], of which pieces of two may alternate in memory, each in one piece."""
    if not PAIRS:
        return rows
    return rows.reshape(len(rows) // 2, -1, 2, 8).swapaxes(1, 2).reshape(rows.shape)


def as_in_memory(rows: np.ndarray) -> np.ndarray:
    """What `row_by_row` gives, as it was."""
    if not PAIRS:
        return rows
    return rows.reshape(len(rows) // 2, 2, -1, 8).swapaxes(1, 2).reshape(rows.shape)


def place_in_row(offset: int) -> int:
    """Where a row has what lies `offset` bytes from its first one in memory."""
    return offset // 16 * 8 + offset % 16 if PAIRS else offset


def rows_from(first: int, x: np.ndarray, format: Format) -> np.ndarray:
    """x[first:], also where that begins in the middle of a pair."""
    if first % 2 and PAIRS and isinstance(format.activation, INT8):
        return as_in_memory(np.append(row_by_row(x)[first:], x[:1], axis=0))
    return x[first:]


def multiply(format: Format, panels: np.ndarray, x: np.ndarray, out: np.ndarray, k: int, *, tokens: Sequence[int],
             threads: int = 1, share: int = PANEL_GROUP, accumulate: bool = False) -> None:
    """out[t] (+)= panels . x[t], in one instruction for each number of `tokens`."""
    assert out.strides[0] >= 4 * LANES * len(panels), "a row of results has less room than the panels have rows"
    first = 0
    for count in tokens:
        run(format.matmul, threads=threads, count=int64(count), weights=panels, x=rows_from(first, x, format),
            out=out[first:], x_stride=x.strides[0], out_stride=out.strides[0], panels=len(panels),
            panel_stride=panels.strides[0], blocks=k // format.block, share=share, accumulate=accumulate)
        first += count
