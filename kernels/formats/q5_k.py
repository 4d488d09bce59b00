"""Q5_K: blocks of 256 values in 8 groups of 32: value = scale * group scale * 5 bits - offset scale * group offset.

Scales and offsets are stored as in Q4_K, then 32 bytes of fifth bits (bit g of byte i is that of value i of group g),
then 128 bytes of low nibbles, in the order of Q4_K (ggml's block_q5_K).

In a panel, a block is the two float16 of all rows, then for each group its scale and the negative of its offset, a byte
each, and the fifth bits and the nibbles as in `nibbles`.
"""

from numba import float32, int32, int64, uint8

from ..fitting import ramp
from ..activations import SCALE, SUM
from ..jit import device
from ..simd import LANES, fma_tokens, get_f16, get_i32, get_u16, get_u8, panel_f16, panel_i8, put_f32, put_i32, put_u16
from ..simd import put_u8, rint, scale_add, splat_f32, splat_i32, store_i8, to_i32, zeros_i32
from .format import make_format
from .nibbles import FIFTHS, NIBBLES, dot_five_bits, gather_nibbles
from .q4_k import ACTIVATION, codes_of, fit_groups, group_offset, group_scale

_BYTES = 176
_FIFTH = 16  # byte offset of the fifth bits
_NIBBLES = 48
_GROUP = (2 + FIFTHS + NIBBLES) * LANES  # panel bytes of a group
_STEP = ACTIVATION.block_bytes


@device
def _split(code):
    """The fifth bit and the nibble of float32 codes."""
    fifth = rint((code - splat_f32(float32(7.5))) * splat_f32(float32(1 / 16)))
    return to_i32(fifth), to_i32(code - fifth * splat_f32(float32(16.0)))


@device
def quantize_block(x, block):
    top = float32(31.0)
    fit_groups(x, block, top, ramp(float32(28.5), float32(0.2)))
    for i in range(0, 32, LANES):
        fifth = splat_i32(int32(0))
        for pair in range(4):
            low_bit, low = _split(codes_of(x, block, 2 * pair, i, top))
            high_bit, high = _split(codes_of(x, block, 2 * pair + 1, i, top))
            fifth = fifth | (low_bit | (high_bit << splat_i32(int32(1)))) << splat_i32(int32(2 * pair))
            store_i8(block + _NIBBLES + 32 * pair + i, low | (high << splat_i32(int32(4))))
        store_i8(block + _FIFTH + i, fifth)


@device
def dequantize_block(block, out):
    for group in range(8):
        scale = get_f16(block) * float32(group_scale(block, group))
        offset = get_f16(block + 2) * float32(group_offset(block, group))
        for i in range(32):
            nibble = get_u8(block + _NIBBLES + 32 * (group // 2) + i) >> (4 * (group % 2)) & 15
            fifth = get_u8(block + _FIFTH + i) >> group & 1
            put_f32(out + 128 * group + 4 * i, scale * float32(nibble | fifth << 4) - offset)


@device
def _pack_fifths(fifths, group, panel, lane):
    """Bit `group` of each of 32 bytes."""
    word = int64(0)
    for i in range(8):
        word |= (int64(get_i32(fifths + 4 * i)) >> group & 0x01010101) << i
    put_i32(panel + 4 * lane, int32(word))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    put_u16(panel + 2 * LANES + 2 * lane, get_u16(block + 2))
    panel += 4 * LANES
    for group in range(8):
        put_u8(panel + lane, uint8(group_scale(block, group)))
        put_u8(panel + LANES + lane, uint8(-int64(group_offset(block, group))))
        _pack_fifths(block + _FIFTH, group, panel + 2 * LANES, lane)
        gather_nibbles(block + _NIBBLES + 32 * (group // 2), group % 2, panel + 6 * LANES, lane)
        panel += _GROUP


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        offset_scale = panel_f16(acc, panel + 2 * LANES, panel_stride)
        panel += 4 * LANES
        for _ in range(8):
            sums = dot_five_bits(zeros_i32(acc), panel + 2 * LANES, panel_stride, x, x_stride)
            acc = scale_add(acc, sums, scale * panel_i8(acc, panel, panel_stride), x + SCALE, x_stride)
            acc = fma_tokens(acc, offset_scale * panel_i8(acc, panel + LANES, panel_stride), x + SUM, x_stride)
            panel += _GROUP
            x += _STEP
    return acc


FORMAT = make_format("q5_k", 13, 256, _BYTES, ACTIVATION, quantize_block=quantize_block,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile,
                     panel_block_bytes=4 + 8 * _GROUP // LANES)
