"""BF16: the high half of a float32, each value a block of its own."""

from numba import int64

from ..activations import FLOAT_RUN, Float32
from ..jit import device
from ..simd import LANES, bits_to_float, fma_tokens, get_u16, panel_bf16, put_f32, put_u16, zeros_f32
from .format import make_format

_STEP = 2 * LANES


@device
def dequantize_block(block, out):
    put_f32(out, bits_to_float(int64(get_u16(block)) << 16))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    while blocks > 0:
        sums = zeros_f32(acc)
        for _ in range(min(blocks, FLOAT_RUN)):
            sums = fma_tokens(sums, panel_bf16(acc, panel, panel_stride), x, x_stride)
            panel += _STEP
            x += 4
        acc = acc + sums
        blocks -= FLOAT_RUN
    return acc


FORMAT = make_format("bf16", 30, 1, 2, Float32(),
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile)
