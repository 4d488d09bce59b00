"""IQ4_NL: blocks of 32 values, one float16 scale and 4 bits a value: value = scale * LEVELS[nibble].

A block has the layout of Q4_0 (ggml's block_iq4_nl), and so has a panel.
"""

from numba import float32

from ..activations import Int8Blocks
from ..error_feedback import Grid, listed_levels
from ..fitting import inverse, weigh_32, with_own_weights
from ..jit import device
from ..simd import SIGNED_OFFSET, get_f16, get_u8, panel_f16, put_f16, put_f32
from ..weighted_fitting import best_scale_finder
from .format import make_format
from .levels import level_tile, level_writer, nearest_level, signed_dot
from .q4_0 import pack_block, scale_alone

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # ggml's kvalues_iq4nl
ACTIVATION = Int8Blocks(offset=SIGNED_OFFSET)
_BYTES = 18

nearest, _nearest_number = nearest_level(LEVELS)
nearest_alone = listed_levels("iq4_nl", LEVELS)
best_scale = best_scale_finder("iq4_nl", nearest, LEVELS, 45.0, 32)
put_levels = level_writer("iq4_nl", _nearest_number)
dot_levels = signed_dot("iq4_nl", LEVELS)


@device
def _put_codes(x, block):
    put_levels(x, block + 2, inverse(get_f16(block)), 16)


@device
def quantize_weighted(x, weights, block):
    put_f16(block, best_scale(x, weights, 32))
    _put_codes(x, block)


@device
def put_values(nibbles, scale, out):
    """32 values of 16 bytes of nibbles."""
    for i in range(16):
        byte = get_u8(nibbles + i)
        put_f32(out + 4 * i, scale * float32(LEVELS[byte & 15]))
        put_f32(out + 64 + 4 * i, scale * float32(LEVELS[byte >> 4]))


quantize_block = with_own_weights("iq4_nl", weigh_32, quantize_weighted)


@device
def dequantize_block(block, out):
    put_values(block + 2, get_f16(block), out)


FORMAT = make_format("iq4_nl", 20, 32, _BYTES, ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block, pack_block=pack_block,
                     tile=level_tile("iq4_nl", ACTIVATION, dot_levels, panel_f16, 2),
                     quantize_weighted=quantize_weighted,
                     grid=Grid(32, scale_alone, nearest_alone, _put_codes))
