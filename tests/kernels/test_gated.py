"""Both matrices of a gated layer and its activation at once: bit by bit what the single instructions give."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu.kernels.elementwise import GATES
from lcpu.kernels.formats import FORMATS
from lcpu.kernels.gated import gated_matmul
from lcpu.kernels.matmul import padded_width

from .running import int64, multiply, pack, padded, prepare, random_blocks, run, same_bits, vectors_of

ROWS, K = 200, 64


@pytest.mark.parametrize(("type_id", "activation"), [(0, "silu"), (2, "silu"), (8, "gelu"), (8, "relu_squared")])
@pytest.mark.parametrize(("tokens", "threads"), [(1, 1), (3, 2), (70, 3)])
def test_the_same_as_one_after_another(type_id, activation, tokens, threads):
    format, random = FORMATS[type_id], np.random.default_rng(tokens)
    gate, up = (pack(format, random_blocks(format, ROWS, K, random), K) for _ in range(2))
    x = prepare(format.activation, random.standard_normal((tokens, K), dtype=np.float32))
    width = padded_width(ROWS)  # tiles store the results of whole groups of panels
    first, second, out, other = (padded(np.zeros((tokens, width), np.float32)) for _ in range(4))
    for panels, result in ((gate, first), (up, second)):
        multiply(format, panels, x, result, K, tokens=[tokens])
    run(GATES[activation], count=int64(tokens), gate=first, up=second, up_stride=first.strides[0],
        out=first, stride=first.strides[0], vectors=vectors_of(first))
    run(gated_matmul(format, activation), threads=threads, count=int64(tokens), gate=gate, up=up, x=x, out=out,
        other=other, x_stride=x.strides[0], out_stride=out.strides[0], panels=len(gate), panel_stride=gate.strides[0],
        blocks=K // format.block, share=4)
    assert same_bits(out[:tokens, :ROWS].copy(), first[:tokens, :ROWS].copy())
    assert np.abs(out[:tokens, :ROWS]).max() > 0
