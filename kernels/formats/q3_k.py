"""Q3_K: blocks of 256 values in 16 groups of 16: value = scale * (6 bits - 32) * (3 bits - 4).

A block is 32 bytes of third bits (bit p of byte i is that of value 32 p + i), 64 bytes of low bit pairs in the order of
Q2_K, 12 bytes of 6-bit group scales, and a float16 scale. Bytes 0-7 of the 12 hold the low 4 bits of the scales of
groups 0 to 7 (low nibbles) and 8 to 15 (high nibbles), bits 2 p of byte 8 + i the top 2 bits of group 4 p + i (ggml's
block_q3_K).

In a panel, a block is the float16 scales of all rows, three vectors with 6 bits of four groups each, and for each two
groups three vectors of codes. The 6 bits are 31 - group scale, of groups 0, 2, 1, 3 of the four; those of the last four
groups are in the high 2 bits of the three vectors, from their low bits up. Byte j of a vector of codes has values
4 p + j for p = 2 v and 2 v + 1 in its low 6 bits. Those for p = 6 and 7 are in the high 2 bits: their low bits in the
first and the second vector, their third ones in bits 6 and 7 of the last.

Sums over a block are integers, as in Q4_K.
"""

from numba import float32, int32, uint8

from ..activations import AT, BIASES, LARGE_BYTES, LARGE_SCALE, RUN, SUMS, TWO_SUMS, LargeInt8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import inverse, ramp, weigh_by_squares, weighted_scale_fitter, with_own_weights
from ..jit import device, inlined
from ..simd import LANES, SMALL_CODES, add_group, add_scaled, alloca, bits, byte_of_lane, dot2_i16, dot_run, even_bytes
from ..simd import get_f16, get_i32, get_i64, get_u16, get_u8, group_sums, load_f32, maximum, minimum, odd_bytes, opaque
from ..simd import panel_bytes, panel_f16, prefetch_address, prefetch_levels, put_f32, put_i32, put_u16, put_u8, rint
from ..simd import scaled_above, splat_f32, splat_i16, splat_i32, store_i8, subtracted_from, to_f32, to_i32
from ..simd import twice_of_lane, zeros_i32
from ..weighted_fitting import group_scales_fitter
from .format import GROUPED_PANELS, make_format

_BYTES = 110
_PAIRS, _SCALES, _SCALE = 32, 96, 108  # byte offsets
_VECTOR = 4 * LANES
_HEADER = 2 * LANES + 3 * _VECTOR  # panel bytes before the codes of a block
_TWO, _FOUR = 3 * _VECTOR, 6 * _VECTOR  # panel bytes of two and of four groups
_ONES, _CRUMBS = 0x01010101, 0x03030303
_BIAS = 124  # group scale * (code - 4) + 124 is 0 .. 252


@device
def _group_scale(block, group):
    """The 6 bits of a group's scale."""
    low = get_u8(block + _SCALES + group % 8) >> (4 * (group // 8)) & 15
    return low | (get_u8(block + _SCALES + 8 + group % 4) >> (2 * (group // 4)) & 3) << 4


@device
def _put_group_scale(block, group, scale):
    """Add 6 bits to bytes that were zeros before the first group."""
    low, high = block + _SCALES + group % 8, block + _SCALES + 8 + group % 4
    put_u8(low, uint8(get_u8(low) | (scale & 15) << (4 * (group // 8))))
    put_u8(high, uint8(get_u8(high) | (scale >> 4) << (2 * (group // 4))))


@device
def _three_bits(x):
    return minimum(splat_f32(float32(3.0)), maximum(splat_f32(float32(-4.0)), rint(x)))


_fit_scale = weighted_scale_fitter("three_bits", _three_bits, -4.0)
_fit_scales = group_scales_fitter("three_bits", _fit_scale, _three_bits, groups=16, group=16, lowest=-32, highest=31,
                                  scale_at=_SCALE)


@device
def _fit_groups(x, weights, block):
    """Choose and store the scale of the block and those of its groups."""
    numbers = alloca(128)
    _fit_scales(x, weights, block, numbers, ramp(float32(-4.9), float32(0.12)))
    for i in range(0, 12, 4):
        put_i32(block + _SCALES + i, int32(0))
    for group in range(16):
        _put_group_scale(block, group, get_i64(numbers + 8 * group) + 32)


@device
def _codes_of(x, block, i):
    """The 3 bits of a vector of values, from i on: still float32."""
    scale = get_f16(block + _SCALE) * float32(_group_scale(block, i // 16) - 32)
    return _three_bits(load_f32(x + 4 * i) * splat_f32(inverse(scale))) + splat_f32(float32(4.0))


@device
def _scale_of_group(block, group):
    return get_f16(block + _SCALE) * float32(_group_scale(block, group) - 32), float32(0.0)


@device
def _put_codes(x, block):
    for i in range(0, 32, LANES):
        thirds = splat_i32(int32(0))
        for half in range(2):
            pairs = splat_i32(int32(0))
            for plane in range(4):
                code = _codes_of(x, block, 128 * half + 32 * plane + i)
                third = rint((code - splat_f32(float32(1.5))) * splat_f32(float32(1 / 4)))
                pair = to_i32(code - third * splat_f32(float32(4.0)))
                pairs = pairs | (pair << splat_i32(int32(2 * plane)))
                thirds = thirds | (to_i32(third) << splat_i32(int32(4 * half + plane)))
            store_i8(block + _PAIRS + 32 * half + i, pairs)
        store_i8(block + i, thirds)


@device
def quantize_weighted(x, weights, block):
    _fit_groups(x, weights, block)
    _put_codes(x, block)


quantize_block = with_own_weights("q3_k", weigh_by_squares, quantize_weighted)


@device
def _four_codes(block, group, part):
    """Values 4 part .. 4 part + 3 of a group, a byte each."""
    at, plane = 16 * (group % 2) + 4 * part, group // 2
    pairs = get_i32(block + _PAIRS + 32 * (group // 8) + at) >> (2 * (plane % 4)) & _CRUMBS
    return pairs | (get_i32(block + at) >> plane & _ONES) << 2


@device
def dequantize_block(block, out):
    for group in range(16):
        scale = get_f16(block + _SCALE) * float32(_group_scale(block, group) - 32)
        for i in range(16):
            code = _four_codes(block, group, i // 4) >> (8 * (i % 4)) & 255
            put_f32(out + 64 * group + 4 * i, scale * float32(code - 4))


@device
def _scale_of_panel(block, four, place):
    """The 6 bits of the scale that comes in a `place` of a vector of four."""
    return 63 - _group_scale(block, 4 * four + place % 2 * 2 + place // 2)


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block + _SCALE))
    panel += 2 * LANES + 4 * lane
    for place in range(4):
        last = _scale_of_panel(block, 3, place)
        for four in range(3):
            high = (last >> 2 * four & 3) << 6
            put_u8(panel + _VECTOR * four + place, uint8(_scale_of_panel(block, four, place) | high))
    panel += 3 * _VECTOR
    for first in range(0, 16, 2):
        sixth, seventh = _four_codes(block, first + 1, 2), _four_codes(block, first + 1, 3)
        word = _four_codes(block, first, 0) | _four_codes(block, first, 1) << 3 | (sixth & _CRUMBS) << 6
        put_i32(panel, int32(word))
        word = _four_codes(block, first, 2) | _four_codes(block, first, 3) << 3 | (seventh & _CRUMBS) << 6
        put_i32(panel + _VECTOR, int32(word))
        tops = (sixth >> 2 & _ONES) << 6 | (seventh >> 2 & _ONES) << 7
        word = _four_codes(block, first + 1, 0) | _four_codes(block, first + 1, 1) << 3 | tops
        put_i32(panel + 2 * _VECTOR, int32(word))
        panel += _TWO


@inlined
def _add_two(total, first_scale, first_added, second_scale, second_added, panel, panel_stride, x, x_stride):
    """total + scale * codes . x, for two groups. Without SMALL_CODES, scale * (code - 4) + 124 stands for a code.

    On AVX2, sums of a group fit in 16 bits: 7 * MOST_OF_16 < 2 ** 15.
    """
    a, b = panel_bytes(total, panel, panel_stride), panel_bytes(total, panel + _VECTOR, panel_stride)
    sums = dot_run(group_sums(total), (scaled_above(bits(a, 0, 7), first_scale, first_added),
                                       scaled_above(bits(a, 3, 7), first_scale, first_added),
                                       scaled_above(bits(b, 0, 7), first_scale, first_added),
                                       scaled_above(bits(b, 3, 7), first_scale, first_added)), x, x_stride)
    total = add_group(total, sums, first_scale)
    c = panel_bytes(total, panel + 2 * _VECTOR, panel_stride)
    sixth, seventh = bits(a, 6, 3) | bits(c, 4, 4), bits(b, 6, 3) | bits(c, 5, 4)
    sums = dot_run(group_sums(total), (scaled_above(bits(c, 0, 7), second_scale, second_added),
                                       scaled_above(bits(c, 3, 7), second_scale, second_added),
                                       scaled_above(sixth, second_scale, second_added),
                                       scaled_above(seventh, second_scale, second_added)), x + AT[16], x_stride)
    return add_group(total, sums, second_scale)


@inlined
def _add_four(total, scales, panel, panel_stride, x, x_stride):
    """The same for four groups; scales: the panel's 6 bits of them, which are 31 - group scale."""
    added = bits(scales, -2, 252)
    total = _add_two(total, subtracted_from(31, twice_of_lane(scales, 0)), byte_of_lane(added, 0),
                     subtracted_from(31, twice_of_lane(scales, 2)), byte_of_lane(added, 2), panel, panel_stride,
                     x, x_stride)
    return _add_two(total, subtracted_from(31, twice_of_lane(scales, 1)), byte_of_lane(added, 1),
                    subtracted_from(31, twice_of_lane(scales, 3)), byte_of_lane(added, 3), panel + _TWO, panel_stride,
                    x + AT[32], x_stride)


@inlined
def _scales(like, panel, panel_stride):
    """Four vectors of 6 bits."""
    a, b = panel_bytes(like, panel, panel_stride), panel_bytes(like, panel + _VECTOR, panel_stride)
    c = panel_bytes(like, panel + 2 * _VECTOR, panel_stride)
    last = bits(a, 6, 3) | bits(b, 4, 12) | bits(c, 2, 48)
    return bits(a, 0, 63), bits(b, 0, 63), bits(c, 0, 63), last


@inlined
def _add_scaled_sums(total, scales, x, x_stride):
    """total + group scale * (-32 * sum of activations), of four groups."""
    total = dot2_i16(total, subtracted_from(31, even_bytes(scales)), x + BIASES, x_stride)
    return dot2_i16(total, subtracted_from(31, odd_bytes(scales)), x + BIASES + 4, x_stride)


@inlined
def _centered(total, first, second, third, fourth, x, x_stride):
    """total without what its products have too much: 124 times the activations; with SMALL_CODES, 4 * scale times."""
    if SMALL_CODES:
        sums = _add_scaled_sums(zeros_i32(total), first, x, x_stride)
        sums = _add_scaled_sums(sums, second, x + RUN, x_stride)
        sums = _add_scaled_sums(sums, third, x + 2 * RUN, x_stride)
        sums = _add_scaled_sums(sums, fourth, x + 3 * RUN, x_stride)
        return total + (sums >> splat_i32(int32(3)))
    bias = splat_i16(_BIAS)
    for i in range(4):
        total = dot2_i16(total, bias, x + SUMS + TWO_SUMS * i, x_stride)
    return total


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        header = panel
        first, second, third, fourth = _scales(acc, panel + 2 * LANES, panel_stride)
        panel += _HEADER
        # 256 * 252 * 127 < 2 ** 23
        total = zeros_i32(acc)
        for _ in range(opaque(4)):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _FOUR)
            total = _add_four(total, first, panel, panel_stride, x, x_stride)
            first, second, third, fourth = second, third, fourth, first
            panel += _FOUR
            x += RUN
        x -= 4 * RUN
        total = _centered(total, first, second, third, fourth, x, x_stride)
        acc = add_scaled(acc, to_f32(total) * panel_f16(acc, header, panel_stride), x + LARGE_SCALE, x_stride)
        x += LARGE_BYTES
    return acc


FORMAT = make_format("q3_k", 11, 256, _BYTES, LargeInt8Blocks(),
                     quantize_block=quantize_block, quantize_weighted=quantize_weighted,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile, panels=GROUPED_PANELS,
                     grid=Grid(16, _scale_of_group, whole_levels("q3_k", -4, 3), _put_codes))
