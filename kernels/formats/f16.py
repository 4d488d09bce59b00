"""F16: IEEE half precision, each value a block of its own. The KV cache has the same layout."""

from ..activations import Float32
from ..jit import device
from ..simd import get_f16, get_f32, get_u16, panel_f16, put_f16, put_f32, put_u16
from .floats import float_decoder, float_tile
from .format import FLOAT_PANELS, make_format


@device
def quantize_block(x, block):
    put_f16(block, get_f32(x))


@device
def dequantize_block(block, out):
    put_f32(out, get_f16(block))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))


tile = float_tile("f16", 2, panel_f16)

FORMAT = make_format("f16", 1, 1, 2, Float32(rounded=True),
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     dequantize_blocks=float_decoder("f16", 2, panel_f16, dequantize_block),
                     pack_block=pack_block, tile=tile, panels=FLOAT_PANELS)
