"""Q8_0: blocks of 32 values, one float16 scale and an int8 a value (ggml's block_q8_0).

In a panel, a block is the scales of all rows, then eight vectors: values 4i .. 4i + 3 of every row. They are stored
SIGNED_OFFSET too large, where the processor's dot product wants them unsigned.
"""

from numba import float32, int8, uint8

from ..activations import BIAS, SCALE, Int8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import inverse, largest_magnitude
from ..jit import device, inlined
from ..simd import BY_RUNS, LANES, SIGNED_OFFSET, add_to_bytes, begin_block, dot4_signed, dot_run_signed, get_f16
from ..simd import get_u16, get_u8, load_f32, panel_bytes, panel_f16, panel_vectors, prefetch_address, prefetch_direct
from ..simd import put_f16, put_f32, put_u16, put_u8, round_half_away, scale_add, splat_f32, store_f32, store_i8
from ..simd import store_tile, to_i32, to_matrix, to_rows, zeros
from ..wide import wide_blocks
from .format import make_format
from .q4_0 import scale_alone

_BYTES = 34
_PANEL_BLOCK = _BYTES * LANES
_ACTIVATION = Int8Blocks(offset=SIGNED_OFFSET)
_TO_SIGNED = -SIGNED_OFFSET
_STEP = _ACTIVATION.step


@device
def _put_codes(x, block, scale):
    for i in range(0, 32, LANES):
        store_i8(block + 2 + i, to_i32(round_half_away(load_f32(x + 4 * i) * splat_f32(inverse(scale)))))


@device
def _put_nearest(x, block):
    """For values of the block's scale: others might need codes that there are not."""
    _put_codes(x, block, get_f16(block))


@device
def quantize_block(x, block):
    scale = largest_magnitude(x, 32) / float32(127.0)
    put_f16(block, scale)
    _put_codes(x, block, scale)


@device
def dequantize_block(block, out):
    scale = get_f16(block)
    for i in range(32):
        put_f32(out + 4 * i, scale * float32(int8(get_u8(block + 2 + i))))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    for i in range(32):
        target = panel + LANES * (2 + 4 * (i // 4)) + 4 * lane + i % 4
        put_u8(target, uint8(get_u8(block + 2 + i) + SIGNED_OFFSET))


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    for _ in range(blocks):
        prefetch_direct(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PANEL_BLOCK)
        dots = begin_block(acc, x + BIAS, x_stride)
        if BY_RUNS:
            codes = panel_vectors(acc, panel + 2 * LANES, panel_stride, 8)
            dots = dot_run_signed(dots, codes, x, x_stride)
        else:
            for i in range(8):
                codes = panel_bytes(acc, panel + LANES * (2 + 4 * i), panel_stride)
                dots = dot4_signed(dots, codes, x + 4 * i, x_stride)
        acc = scale_add(acc, dots, panel_f16(acc, panel, panel_stride), x + SCALE, x_stride)
        panel += _PANEL_BLOCK
        x += _STEP
    return to_rows(acc)


@inlined
def unpack_block(panel, codes, scales):
    like = zeros(1, 1)
    store_f32(scales, panel_f16(like, panel, 0))
    for i in range(8):
        packed = panel_bytes(like, panel + LANES * (2 + 4 * i), 0)
        store_tile(add_to_bytes(packed, _TO_SIGNED), codes + 4 * LANES * i, 0, 0)


FORMAT = make_format("q8_0", 8, 32, _BYTES, _ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     pack_block=pack_block, tile=tile, wide=wide_blocks("q8_0", _PANEL_BLOCK, unpack_block),
                     grid=Grid(32, scale_alone, whole_levels("q8_0", -127, 127), _put_nearest))
