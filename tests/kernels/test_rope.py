"""Rotary position embedding, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.rope import rope

from . import reference
from .running import few, head_dims, int64, padded, run, same_bits


@pytest.mark.parametrize("halves", [False, True], ids=["neighbours", "halves"])
@few
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 20), heads=st.integers(1, 5), head_dim=head_dims,
       part=st.sampled_from([1, 1, 2]), threads=st.integers(1, 3))
def test_rope(halves, seed, tokens, heads, head_dim, part, threads):
    random = np.random.default_rng(seed)
    pairs = max(1, head_dim // 2 // part)  # the rest of a head is not rotated
    x = random.standard_normal((tokens, heads, head_dim), dtype=np.float32)
    positions = random.integers(0, 50, tokens)
    angles = random.uniform(0, 100, (50, pairs))
    table = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    rows = padded(x.reshape(tokens, -1))
    step, distance = (1, pairs) if halves else (2, 1)
    run(rope, threads=threads, count=int64(tokens), positions=positions, x=rows, x_stride=rows.strides[0],
        heads=heads, head_dim=head_dim, table=table, pairs=pairs, step=step, distance=distance)
    got = rows[:tokens, : heads * head_dim].reshape(x.shape)
    np.testing.assert_allclose(got, reference.rope(x, positions, angles, halves), rtol=0, atol=2e-6)
    assert same_bits(got[..., 2 * pairs :].copy(), x[..., 2 * pairs :].copy())
    assert not rows[tokens:].any()
