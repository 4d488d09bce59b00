"""Q5_K: blocks of 256 values in 8 groups of 32: value = scale * group scale * 5 bits - offset scale * group offset.

Scales and offsets are stored as in Q4_K, then 32 bytes of fifth bits (bit g of byte i is that of value i of group g),
then 128 bytes of low nibbles, in the order of Q4_K (ggml's block_q5_K).

In a panel, a block is as in Q4_K but for the codes of a group, five vectors of a byte a value: values 4 v .. 4 v + 3 of
every row in the low 5 bits of vector v, for v < 5. The other 12 values are in the high 3 bits of these vectors, as
`_pack_codes` says: it takes fewer operations to put few codes together than to add a fifth bit to each.
"""

from numba import float32, int32, uint8

from ..activations import AT
from ..fitting import ramp, weigh_256, with_own_weights
from ..jit import device, inlined
from ..simd import LANES, add_first, add_second, bits, dot_run, get_u8, panel_bytes, put_f32, put_u8, rint
from ..simd import room_in_first, room_in_second, splat_f32, splat_i32, store_i8, store_tile, to_i32, zero_sums, zeros
from .q4_k import codes_of, fit_weighted_groups, make_grouped_format, scale_and_offset

_BYTES = 176
_FIFTH = 16  # byte offset of the fifth bits
_NIBBLES = 48
_VECTOR = 4 * LANES


@device
def _split(code):
    """The fifth bit and the nibble of float32 codes."""
    fifth = rint((code - splat_f32(float32(7.5))) * splat_f32(float32(1 / 16)))
    return to_i32(fifth), to_i32(code - fifth * splat_f32(float32(16.0)))


@device
def _put_codes(x, block):
    top = float32(31.0)
    for i in range(0, 32, LANES):
        fifth = splat_i32(int32(0))
        for pair in range(4):
            low_bit, low = _split(codes_of(x, block, 2 * pair, i, top))
            high_bit, high = _split(codes_of(x, block, 2 * pair + 1, i, top))
            fifth = fifth | (low_bit | (high_bit << splat_i32(int32(1)))) << splat_i32(int32(2 * pair))
            store_i8(block + _NIBBLES + 32 * pair + i, low | (high << splat_i32(int32(4))))
        store_i8(block + _FIFTH + i, fifth)


@device
def quantize_weighted(x, weights, block):
    fit_weighted_groups(x, weights, block, float32(31.0), ramp(float32(28.5), float32(0.4)))
    _put_codes(x, block)


quantize_block = with_own_weights("q5_k", weigh_256, quantize_weighted)


@device
def dequantize_block(block, out):
    for group in range(8):
        scale, offset = scale_and_offset(block, group)
        for i in range(32):
            nibble = get_u8(block + _NIBBLES + 32 * (group // 2) + i) >> (4 * (group % 2)) & 15
            fifth = get_u8(block + _FIFTH + i) >> group & 1
            put_f32(out + 128 * group + 4 * i, scale * float32(nibble | fifth << 4) - offset)


@device
def _code(block, group, i):
    nibble = get_u8(block + _NIBBLES + 32 * (group // 2) + i) >> (4 * (group % 2)) & 15
    return nibble | (get_u8(block + _FIFTH + i) >> group & 1) << 4


@device
def _pack_codes(block, group, panel, lane):
    for i in range(4):
        v5, v6, v7 = _code(block, group, 20 + i), _code(block, group, 24 + i), _code(block, group, 28 + i)
        at = panel + 4 * lane + i
        put_u8(at, uint8(_code(block, group, i) | v5 << 5))
        put_u8(at + _VECTOR, uint8(_code(block, group, 4 + i) | (v7 >> 3 & 1) << 5 | (v5 >> 3) << 6))
        put_u8(at + 2 * _VECTOR, uint8(_code(block, group, 8 + i) | v6 << 5))
        put_u8(at + 3 * _VECTOR, uint8(_code(block, group, 12 + i) | (v7 >> 4) << 5 | (v6 >> 3) << 6))
        put_u8(at + 4 * _VECTOR, uint8(_code(block, group, 16 + i) | v7 << 5))


@inlined
def _vectors(like, panel, panel_stride):
    return (panel_bytes(like, panel, panel_stride), panel_bytes(like, panel + _VECTOR, panel_stride),
            panel_bytes(like, panel + 2 * _VECTOR, panel_stride), panel_bytes(like, panel + 3 * _VECTOR, panel_stride),
            panel_bytes(like, panel + 4 * _VECTOR, panel_stride))


@inlined
def _first_half(sums, a, b, c, d, x, x_stride):
    return dot_run(sums, (bits(a, 0, 31), bits(b, 0, 31), bits(c, 0, 31), bits(d, 0, 31)), x, x_stride)


@inlined
def _second_half(sums, a, b, c, d, e, x, x_stride):
    return dot_run(sums, (bits(e, 0, 31), bits(a, 5, 7) | bits(b, 3, 24), bits(c, 5, 7) | bits(d, 3, 24),
                          bits(e, 5, 7) | bits(b, 2, 8) | bits(d, 1, 16)), x + AT[16], x_stride)


@inlined
def _add_codes(total, scales, panel, panel_stride, x, x_stride):
    a, b, c, d, e = _vectors(total, panel, panel_stride)
    sums = _first_half(zero_sums(total), a, b, c, d, x, x_stride)
    total, sums = room_in_first(total, sums, scales)
    total = add_first(total, _second_half(sums, a, b, c, d, e, x, x_stride), scales)
    a, b, c, d, e = _vectors(total, panel + 5 * _VECTOR, panel_stride)
    sums = _first_half(zero_sums(total), a, b, c, d, x + AT[32], x_stride)
    total, sums = room_in_second(total, sums, scales)
    return add_second(total, _second_half(sums, a, b, c, d, e, x + AT[32], x_stride), scales)


@inlined
def _unpack_codes(panel, out):
    a, b, c, d, e = _vectors(zeros(1, 1), panel, 0)
    store_tile(bits(a, 0, 31), out, 0, 0)
    store_tile(bits(b, 0, 31), out + _VECTOR, 0, 0)
    store_tile(bits(c, 0, 31), out + 2 * _VECTOR, 0, 0)
    store_tile(bits(d, 0, 31), out + 3 * _VECTOR, 0, 0)
    store_tile(bits(e, 0, 31), out + 4 * _VECTOR, 0, 0)
    store_tile(bits(a, 5, 7) | bits(b, 3, 24), out + 5 * _VECTOR, 0, 0)
    store_tile(bits(c, 5, 7) | bits(d, 3, 24), out + 6 * _VECTOR, 0, 0)
    store_tile(bits(e, 5, 7) | bits(b, 2, 8) | bits(d, 1, 16), out + 7 * _VECTOR, 0, 0)


FORMAT = make_grouped_format("q5_k", 13, _BYTES, 20, quantize_block=quantize_block,
                             quantize_weighted=quantize_weighted, dequantize_block=dequantize_block,
                             pack_codes=_pack_codes, add_codes=_add_codes, unpack_codes=_unpack_codes,
                             put_codes=_put_codes, top=31)
