"""Blocks to float32: bit for bit what the gguf package says."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.formats import FORMATS, Format

from . import reference
from .running import UNDER_TEST, every_format, few, int64, padded, put_scales, random_blocks, run, same_bits

scaled = [f for f in UNDER_TEST if f.block > 1 and f.name != "i2_s"]  # with a scale in each block
quantized = pytest.mark.parametrize("format", scaled, ids=lambda f: f.name)

EXTREME_SCALES = np.array([0.0, -0.0, 2.0**-24, -(2.0**-24), 2.0**-14 - 2.0**-24, 2.0**-14, 65504, -65504], np.float16)


def dequantized(format: Format, raw: np.ndarray, indices: np.ndarray, threads: int = 1) -> np.ndarray:
    """Rows of a table as float32."""
    blocks = raw.shape[1] // format.block_bytes
    width = blocks * format.block
    out = padded(np.zeros((len(indices), width), np.float32), spare=1)
    out[:] = np.nan
    run(format.dequantize, threads=threads, count=int64(len(indices)), indices=indices.astype(np.int64), table=raw,
        blocks=blocks, block_bytes=format.block_bytes, block_values=format.block, out=out, out_stride=out.strides[0])
    assert not out[:-1, width:].any()  # padding is cleared
    assert np.isnan(out[-1]).all()  # nothing past the last row is written
    return out[:-1, :width].copy()


@every_format
@few
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), blocks=st.integers(1, 4), threads=st.integers(1, 3))
def test_rows_of_a_table(format, seed, rows, blocks, threads):
    random = np.random.default_rng(seed)
    raw = random_blocks(format, rows, blocks * format.block, random)
    indices = random.integers(0, rows, random.integers(1, 20))
    assert same_bits(dequantized(format, raw, indices, threads), reference.dequantize(format, raw)[indices])


@quantized
def test_every_kind_of_scale(format):
    random = np.random.default_rng(1)
    bits = np.concatenate([EXTREME_SCALES.view(np.uint16), random.integers(0, 1 << 16, 3000).astype(np.uint16)])
    scales = bits.view(np.float16)
    scales = scales[np.isfinite(scales)]
    raw = random.integers(0, 256, (len(scales), format.block_bytes), dtype=np.uint8)
    put_scales(format, raw, scales)
    assert same_bits(dequantized(format, raw, np.arange(len(raw))), reference.dequantize(format, raw))


@pytest.mark.parametrize("format", [f for f in FORMATS.values() if f.name[:3] in ("iq1", "iq2", "iq3")],
                         ids=lambda f: f.name)
def test_every_point_of_a_grid_with_every_sign(format):
    """Blocks that differ in each 16 bits from each other, so that every number of a point occurs in every place."""
    random = np.random.default_rng(0)
    raw = np.arange(1 << 16, dtype=np.uint16)[:, None] ^ random.integers(0, 1 << 16, format.block_bytes // 2, np.uint16)
    raw = raw.view(np.uint8)
    put_scales(format, raw, np.full(len(raw), 0.5, np.float16))
    assert same_bits(dequantized(format, raw, np.arange(len(raw))), reference.dequantize(format, raw))


def test_every_byte_of_q8_0():
    format = FORMATS[8]
    raw = np.zeros((8, 34), np.uint8)
    put_scales(format, raw, np.full(8, -0.5, np.float16))
    raw[:, 2:] = np.arange(256).reshape(8, 32)
    out = dequantized(format, raw, np.arange(8))
    assert same_bits(out.ravel(), np.arange(256).astype(np.uint8).view(np.int8) * np.float32(-0.5))
    assert out.max() == 64  # -128 is a value like any other


@pytest.mark.parametrize("type_id", [1, 30], ids=["f16", "bf16"])
def test_every_half(type_id):
    raw = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(256, -1)
    out = dequantized(FORMATS[type_id], raw, np.arange(256))
    wanted = reference.dequantize(FORMATS[type_id], raw)
    nan = np.isnan(wanted)
    assert (np.isnan(out) == nan).all()
    assert same_bits(out[~nan], wanted[~nan])  # a NaN may have another payload


@pytest.mark.parametrize("format", [f for f in UNDER_TEST if f.name not in ("i2_s", "q2_0")],
                         ids=lambda f: f.name)  # these are not in gguf
def test_name_and_sizes_are_those_of_gguf(format):
    kind = gguf.GGMLQuantizationType(format.type_id)
    assert kind.name.lower() == format.name
    assert gguf.GGML_QUANT_SIZES[kind] == (format.block, format.block_bytes)
