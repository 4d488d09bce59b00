"""F32: plain float32 values, each a block of its own."""

from ..activations import FLOAT_RUN, Float32
from ..jit import device
from ..simd import LANES, fma_tokens, get_f32, panel_f32, put_f32, zeros_f32
from .format import make_format

_STEP = 4 * LANES


@device
def dequantize_block(block, out):
    put_f32(out, get_f32(block))


@device
def pack_block(block, panel, lane):
    put_f32(panel + 4 * lane, get_f32(block))


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    while blocks > 0:
        sums = zeros_f32(acc)
        for _ in range(min(blocks, FLOAT_RUN)):
            sums = fma_tokens(sums, panel_f32(acc, panel, panel_stride), x, x_stride)
            panel += _STEP
            x += 4
        acc = acc + sums
        blocks -= FLOAT_RUN
    return acc


FORMAT = make_format("f32", 0, 1, 4, Float32(),
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile)
