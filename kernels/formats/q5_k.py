"""Q5_K: blocks of 256 values in 8 groups of 32: value = scale * group scale * 5 bits - offset scale * group offset.

Scales and offsets are stored as in Q4_K, then 32 bytes of fifth bits (bit g of byte i is that of value i of group g),
then 128 bytes of low nibbles, in the order of Q4_K (ggml's block_q5_K).

In a panel, a block is the two float16 of all rows, then for each group its scale and the negative of its offset, a byte
each, and the fifth bits and the nibbles as in `nibbles`.
"""

from numba import float32, int32, int64

from ..fitting import ramp
from ..jit import device, inlined
from ..simd import LANES, get_f16, get_i32, get_u8, put_f32, put_i32, rint, splat_f32, splat_i32, store_i8, to_i32
from ..simd import zeros_i32
from .nibbles import FIFTHS, NIBBLES, dot_five_bits, gather_nibbles
from .q4_k import codes_of, fit_groups, group_offset, group_scale, make_grouped_format

_BYTES = 176
_FIFTH = 16  # byte offset of the fifth bits
_NIBBLES = 48


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
def _pack_codes(block, group, panel, lane):
    word = int64(0)  # bit `group` of each byte is a fifth bit
    for i in range(8):
        word |= (int64(get_i32(block + _FIFTH + 4 * i)) >> group & 0x01010101) << i
    put_i32(panel + 4 * lane, int32(word))
    gather_nibbles(block + _NIBBLES + 32 * (group // 2), group % 2, panel + FIFTHS * LANES, lane)


@inlined
def _dot_codes(acc, panel, panel_stride, x, x_stride):
    return dot_five_bits(zeros_i32(acc), panel, panel_stride, x, x_stride)


FORMAT = make_grouped_format("q5_k", 13, _BYTES, FIFTHS + NIBBLES, quantize_block=quantize_block,
                             dequantize_block=dequantize_block, pack_codes=_pack_codes, dot_codes=_dot_codes)
