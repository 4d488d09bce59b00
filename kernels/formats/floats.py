"""What the float formats share: each value is a block of its own, and a panel is one vector of values for each k."""

from collections.abc import Callable
from typing import Any

from ..jit import bind, device, hole, template
from ..simd import BY_RUNS, LANES, fma_run, fma_tokens, prefetch_address, prefetch_ahead, prefetch_unpacked, store_f32
from ..simd import zeros, zeros_f32

RUN = 32  # products that are summed before they are added to the total: short sums round less

load = prefetch = value_bytes = dequantize_block = hole()
step = four_steps = hole()  # bytes of one and of four vectors of values in a panel


@template
def _tile(acc, panel, panel_stride, x, x_stride, blocks, *ahead):
    end = panel + panel_stride
    while blocks > 0:
        sums, upcoming = zeros_f32(acc), prefetch_address(acc, panel, end, panel_stride)
        run = min(blocks, RUN)
        if BY_RUNS:
            for _ in range(run // 4):
                prefetch(acc, upcoming, panel_stride, four_steps)
                prefetch_ahead(acc, panel, panel_stride, four_steps, ahead)
                sums = fma_run(sums, (load(acc, panel, panel_stride), load(acc, panel + step, panel_stride),
                                      load(acc, panel + 2 * step, panel_stride),
                                      load(acc, panel + 3 * step, panel_stride)), x, x_stride)
                panel += 4 * step
                upcoming += 4 * step
                x += 16
            run = run % 4
        for _ in range(run):
            prefetch(acc, upcoming, panel_stride, step)
            prefetch_ahead(acc, panel, panel_stride, step, ahead)
            sums = fma_tokens(sums, load(acc, panel, panel_stride), x, x_stride)
            panel += step
            upcoming += step
            x += 4
        acc = acc + sums
        blocks -= RUN
    return acc


def float_tile(name: str, value_bytes: int, load: Callable[..., Any],
               prefetch: Callable[..., Any] = prefetch_unpacked) -> Callable[..., Any]:
    """The tile of a format whose values take `value_bytes`; `load` loads them from panels as float32 vectors.

    It takes one more operand where memory that is to be prefetched too lies so many bytes ahead.
    """
    return device(bind(_tile, f"tile_{name}", load=load, prefetch=prefetch, step=value_bytes * LANES,
                       four_steps=4 * value_bytes * LANES))


@template
def _decode(blocks, out, count):
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store_f32(out + 4 * i, load(zeros(1, 1), blocks + value_bytes * i, 0))
    for i in range(whole, count):
        dequantize_block(blocks + value_bytes * i, out + 4 * i)
    return count


def float_decoder(name: str, value_bytes: int, load: Callable[..., Any],
                  dequantize_block: Callable[..., Any]) -> Callable[..., Any]:
    """`dequantize_blocks` of such a format: whole vectors first, then the remaining values."""
    return bind(_decode, f"decode_{name}", load=load, value_bytes=value_bytes, dequantize_block=dequantize_block)
