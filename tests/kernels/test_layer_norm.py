"""Layer norms of rows and of heads, against float64."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.layer_norm import layer_norm, layer_norm_heads

from .running import few, int64, padded, run, vectors_of


def reference(x: np.ndarray, epsilon: float) -> np.ndarray:
    """Of the last dimension."""
    x = x.astype(np.float64)
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon)


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 9), width=st.integers(1, 700), threads=st.integers(1, 3))
def test_rows(seed, tokens, width, threads):
    random = np.random.default_rng(seed)
    x = (3 + random.standard_normal((tokens, width))).astype(np.float32)
    weight, bias = random.standard_normal((2, 1, width), np.float32)
    rows, out = padded(x), np.full_like(padded(x), 7)
    run(layer_norm, threads=threads, count=int64(tokens), x=rows, weight=padded(weight), bias=padded(bias), out=out,
        stride=rows.strides[0], vectors=vectors_of(rows), width=width, epsilon=1e-5)
    np.testing.assert_allclose(out[:tokens, :width], reference(x, 1e-5) * weight + bias, rtol=2e-5, atol=2e-5)
    assert not out[:tokens, width:].any()
    assert (out[tokens:] == 7).all()


@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 9), heads=st.integers(1, 5), head_dim=st.integers(2, 140),
       threads=st.integers(1, 3))
def test_heads(seed, tokens, heads, head_dim, threads):
    random = np.random.default_rng(seed)
    x = (1 + random.standard_normal((tokens, heads, head_dim))).astype(np.float32)
    weight = random.standard_normal((heads, head_dim), np.float32)
    rows = padded(x.reshape(tokens, -1))
    before = rows.copy()
    run(layer_norm_heads, threads=threads, count=int64(tokens), x=rows, weight=weight, stride=rows.strides[0],
        heads=heads, head_dim=head_dim, epsilon=1e-5)
    found = rows[:tokens, : heads * head_dim].reshape(x.shape)
    np.testing.assert_allclose(found, reference(x, 1e-5) * weight, rtol=2e-5, atol=2e-5)
    rows[:tokens, : heads * head_dim] = before[:tokens, : heads * head_dim]
    assert np.array_equal(rows, before)
