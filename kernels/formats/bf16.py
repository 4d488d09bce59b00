"""BF16: the high half of a float32, each value a block of its own."""

from numba import int64, uint16

from ..activations import Float32
from ..jit import device
from ..simd import bits_to_float, get_i32, get_u16, panel_bf16, put_f32, put_u16
from .floats import float_decoder, float_tile
from .format import make_format


@device
def quantize_block(x, block):
    """Rounded half to even; a NaN stays one."""
    bits = int64(get_i32(x)) & 0xFFFFFFFF
    if bits & 0x7FFFFFFF > 0x7F800000:
        put_u16(block, uint16(bits >> 16 | 0x40))
    else:
        put_u16(block, uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16))


@device
def dequantize_block(block, out):
    put_f32(out, bits_to_float(int64(get_u16(block)) << 16))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))


tile = float_tile("bf16", 2, panel_bf16)

FORMAT = make_format("bf16", 30, 1, 2, Float32(),
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     dequantize_blocks=float_decoder("bf16", 2, panel_bf16, dequantize_block),
                     pack_block=pack_block, tile=tile)
