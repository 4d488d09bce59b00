"""F16: IEEE half precision, each value a block of its own. The KV cache has the same layout."""

from ..activations import Float32
from ..jit import device
from ..simd import get_f16, get_u16, panel_f16, put_f32, put_u16
from .floats import float_tile
from .format import make_format


@device
def dequantize_block(block, out):
    put_f32(out, get_f16(block))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))


tile = float_tile("f16", 2, panel_f16)

FORMAT = make_format("f16", 1, 1, 2, Float32(rounded=True),
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile)
