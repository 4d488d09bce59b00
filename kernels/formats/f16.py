"""F16: IEEE half precision, each value a block of its own. The KV cache has the same layout."""

from ..activations import FLOAT_RUN, Float32
from ..jit import device
from ..simd import LANES, fma_tokens, get_f16, get_u16, panel_f16, put_f32, put_u16, zeros_f32
from .format import make_format

_STEP = 2 * LANES


@device
def dequantize_block(block, out):
    put_f32(out, get_f16(block))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    while blocks > 0:
        sums = zeros_f32(acc)
        for _ in range(min(blocks, FLOAT_RUN)):
            sums = fma_tokens(sums, panel_f16(acc, panel, panel_stride), x, x_stride)
            panel += _STEP
            x += 4
        acc = acc + sums
        blocks -= FLOAT_RUN
    return acc


FORMAT = make_format("f16", 1, 1, 2, Float32(rounded=True),
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile)
