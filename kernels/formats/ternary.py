"""The panel layout that the formats of 2 bits share whose blocks have a scale: value = scale * (2 bits - 1).

In a panel, a block is the scales of all rows, then for each 32 values two vectors: 16 values of every row, bits 2 p of
byte j for value 4 p + j.
"""

from collections.abc import Callable
from typing import Any

from numba import float32, int32, int64

from ..activations import BIAS, SCALE, Int8Blocks, spread
from ..jit import bind, device, hole, template
from ..simd import LANES, add_partial_sums, alloca, begin_block, bits, dot_run, get_f16, get_f32, get_u16, panel_bytes
from ..simd import panel_f16, partial_sums, prefetch_address, prefetch_unpacked, put_i32, put_u16, scale_add, to_matrix
from ..simd import to_rows
from .format import Format, make_format

_ACTIVATION = Int8Blocks(offset=1)
_STEP = _ACTIVATION.step
_CODES = 8 * LANES  # panel bytes of 32 values


dequantize_block = scale_at = groups = value_bytes = hole()  # groups: of 32 values


@template
def _pack_block(block, panel, lane):
    scale = get_f16(block + scale_at)
    put_u16(panel + 2 * lane, get_u16(block + scale_at))
    values = alloca(value_bytes)
    dequantize_block(block, values)
    for i in range(2 * groups):
        codes = int64(0)
        for at in range(16):
            digit = get_f32(values + 64 * i + 4 * at) / scale
            code = int64(digit + float32(1.5)) if -3 < digit < 3 else 1  # not for a NaN
            codes |= code << (8 * (at % 4) + 2 * (at // 4))
        put_i32(panel + 2 * LANES + 4 * LANES * i + 4 * lane, int32(codes))


@template
def _tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        panel += 2 * LANES
        for _ in range(groups):
            prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _CODES)
            total = begin_block(acc, x + BIAS, x_stride)
            partial = partial_sums(total)
            for i in range(2):
                packed = panel_bytes(acc, panel + 4 * LANES * i, panel_stride)
                values = x + spread(16 * i)
                partial = dot_run(partial, (bits(packed, 0, 3), bits(packed, 2, 3), bits(packed, 4, 3),
                                            bits(packed, 6, 3)), values, x_stride)
            acc = scale_add(acc, add_partial_sums(total, partial), scale, x + SCALE, x_stride)
            panel += _CODES
            x += _STEP
    return to_rows(acc)


def make_ternary_format(name: str, type_id: int, block: int, block_bytes: int, scale_at: int, *,
                        quantize_block: Callable[..., Any], dequantize_block: Callable[..., Any],
                        quantize_weighted: Callable[..., Any] | None = None) -> Format:
    """A format whose blocks have their scale at byte `scale_at`."""
    groups = block // 32
    pack_block = bind(_pack_block, f"pack_block_{name}", dequantize_block=dequantize_block, scale_at=scale_at,
                      groups=groups, value_bytes=4 * block)
    return make_format(name, type_id, block, block_bytes, _ACTIVATION, quantize_block=quantize_block,
                       quantize_weighted=quantize_weighted, dequantize_block=dequantize_block,
                       pack_block=device(pack_block), tile=device(bind(_tile, f"tile_{name}", groups=groups)),
                       panel_block_bytes=2 + block // 4)
