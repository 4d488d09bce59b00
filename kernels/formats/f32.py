"""F32: plain float32 values, each a block of its own."""

from ..activations import Float32
from ..jit import device
from ..simd import get_f32, panel_f32, put_f32
from .floats import float_decoder, float_tile
from .format import FLOAT_PANELS, make_format


@device
def quantize_block(x, block):
    put_f32(block, get_f32(x))


@device
def dequantize_block(block, out):
    put_f32(out, get_f32(block))


@device
def pack_block(block, panel, lane):
    put_f32(panel + 4 * lane, get_f32(block))


tile = float_tile("f32", 4, panel_f32)

FORMAT = make_format("f32", 0, 1, 4, Float32(),
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     dequantize_blocks=float_decoder("f32", 4, panel_f32, dequantize_block),
                     pack_block=pack_block, tile=tile, panels=FLOAT_PANELS)
