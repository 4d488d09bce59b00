"""What the float formats share: each value is a block of its own, and a panel is a vector of them for each k."""

from collections.abc import Callable
from typing import Any

from ..jit import bind, device
from ..simd import LANES, fma_tokens, zeros_f32

RUN = 32  # products that are summed before they are added to the total: short sums round less


def _tile(acc, panel, panel_stride, x, x_stride, blocks):
    while blocks > 0:
        sums = zeros_f32(acc)
        for _ in range(min(blocks, RUN)):
            sums = fma_tokens(sums, load(acc, panel, panel_stride), x, x_stride)  # noqa: F821
            panel += step  # noqa: F821
            x += 4
        acc = acc + sums
        blocks -= RUN
    return acc


def float_tile(name: str, value_bytes: int, load: Callable[..., Any]) -> Callable[..., Any]:
    """The tile of a format whose values take `value_bytes` and that `load` turns into float32 vectors of panels."""
    return device(bind(_tile, f"tile_{name}", load=load, step=value_bytes * LANES))
