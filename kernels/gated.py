"""The two matrices of a gated feed-forward layer and what follows them, as one instruction."""

from __future__ import annotations

from functools import cache

from .elementwise import ACTIVATIONS
from .formats import Format
from .jit import Kernel, bind, hole, kernel, template
from .matmul import piece_of
from .simd import LANES, atomic_add, get_i64, load_f32, store_f32

_VECTOR = 4 * LANES

activation = multiply = hole()


@template
def _gated_matmul(work, thread, threads, count, gate, up, x, out, other, x_stride, out_stride, panels, panel_stride,
                  blocks, share):
    """out = activation(gate . x) * (up . x). Both matrices have one shape and format; other: memory like that of out.

    A thread has both products of its piece in its cache, and need not wait for the others.
    """
    tokens = get_i64(count)
    first, last, token, size = piece_of(atomic_add(work, 1), threads, tokens, panels, share)
    while first < panels:
        source, a, b = x + token * x_stride, out + token * out_stride, other + token * out_stride
        multiply(gate, source, a, x_stride, out_stride, size, first, last, panel_stride, blocks, False)
        multiply(up, source, b, x_stride, out_stride, size, first, last, panel_stride, blocks, False)
        for row in range(0, size * out_stride, out_stride):
            for at in range(row + _VECTOR * first, row + _VECTOR * last, _VECTOR):
                store_f32(a + at, activation(load_f32(a + at)) * load_f32(b + at))
        first, last, token, size = piece_of(atomic_add(work, 1), threads, tokens, panels, share)


@cache
def gated_matmul(format: Format, name: str) -> Kernel:
    """The instruction for a format and an activation function of that name."""
    return kernel(bind(_gated_matmul, f"gated_{name}_{format.name}", activation=ACTIVATIONS[name],
                       multiply=format.multiply))
