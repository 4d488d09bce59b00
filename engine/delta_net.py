"""Operations of layers that keep a state: the builder's, for gated delta nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import states
from ..kernels.jit import address_of
from .builder import Builder
from .rows import Rows


def _state(b: Builder, nbytes: int) -> dict[str, Any]:
    """The operands of an instruction that has a state of so many bytes in each slot."""
    pool, batch = b.pool.states, b.batch
    first = pool.add(nbytes)
    place: Callable[[], int] = lambda: address_of(pool.array) + first  # noqa: E731
    return {"count": batch.counts.ctypes.data + 8 * 4, "spans": batch.spans, "saves": batch.saves, "states": place,
            "state_bytes": lambda: pool.slot_bytes}


def convolve(b: Builder, x: Rows, name: str, taps: int, *, silu: bool = True) -> Rows:
    """A causal convolution of each channel, or SiLU of that. name: of its weight, [channels][taps]."""
    weight = b.tensors.flat(name, x.width, taps).reshape(x.width, taps)
    out = b.new_rows("convolved", x.width, x.count)
    b.program.add(states.convolve, x=x.array, out=out.array, stride=x.stride, vectors=x.vectors,
                  weight=np.ascontiguousarray(weight.T), taps=taps, silu=silu, **_state(b, 4 * (taps - 1) * x.width))
    return out


def delta_net(b: Builder, qkv: Rows, alpha: Rows, beta: Rows, layer: str, key_heads: int, value_heads: int,
              head_dim: int) -> Rows:
    """The gated delta rule. Queries and keys become unit vectors; alpha and beta give decays and what is written."""
    stride, epsilon = qkv.stride, b.h.norm_epsilon
    for first, factor in ((0, head_dim**-0.5), (key_heads, 1.0)):
        b.program.add(states.unit_heads, count=qkv.count, x=qkv.array[:, first * head_dim :], stride=stride,
                      heads=key_heads, head_dim=head_dim, epsilon=epsilon, factor=float(factor))
    b.program.add(states.decays, count=alpha.count, alpha=alpha.array, beta=beta.array, stride=alpha.stride,
                  a=b.tensors.vector(f"{layer}ssm_a", value_heads), heads=value_heads,
                  dt=b.tensors.vector(f"{layer}ssm_dt.bias", value_heads))
    out = b.new_rows("delta_net", value_heads * head_dim, qkv.count)
    scratch_bytes = states.delta_scratch_bytes(head_dim)
    b.program.add(states.delta_net, qkv=qkv.array, qkv_stride=stride, decay=alpha.array, beta=beta.array,
                  gate_stride=alpha.stride, out=out.array, out_stride=out.stride, key_heads=key_heads,
                  value_heads=value_heads, head_dim=head_dim, scratch=b.scratch("delta_net", scratch_bytes),
                  scratch_bytes=scratch_bytes, **_state(b, 4 * value_heads * head_dim * head_dim))
    return out


def take_heads(b: Builder, x: Rows, heads: int) -> Rows:
    """The first half of each head of x."""
    head_dim = x.width // heads // 2
    out = b.new_rows("heads", heads * head_dim, x.count)
    b.program.add(states.take_heads, count=x.count, x=x.array, stride=x.stride, out=out.array, out_stride=out.stride,
                  heads=heads, head_dim=head_dim, step=8 * head_dim)
    return out


def multiply_by_second_half(b: Builder, x: Rows, both: Rows, heads: int) -> Rows:
    """x * sigmoid(the second half of each head of `both`), in x's place."""
    head_dim = x.width // heads
    b.program.add(states.multiply_by_sigmoid, count=x.count, x=x.array, stride=x.stride, gate=both.array[:, head_dim:],
                  gate_stride=both.stride, heads=heads, head_dim=head_dim, gate_step=8 * head_dim)
    return x.changed()
