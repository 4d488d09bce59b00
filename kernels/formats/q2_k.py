"""Q2_K: blocks of 256 values in 16 groups of 16: value = scale * group scale * 2 bits - offset scale * group offset.

A block is 16 bytes with the scale (low nibble) and the offset (high nibble) of each group, 64 bytes of codes in two
halves of 128 values, and two float16 (scale, offset scale). Byte i of a half holds values i, i + 32, i + 64 and i + 96,
from its low bits up (ggml's block_q2_K).

In a panel, a block is the two float16 of all rows, four vectors with the scales and offsets of four groups each, as the
block has them, but groups 0, 2, 1, 3 of the four, and a vector of codes for each group: bits 2 p of byte j for value
4 p + j.

Sums over a block are integers, as in Q4_K.
"""

from numba import float32, int32, int64, uint8

from ..activations import AT, BIASES, LARGE_BYTES, LARGE_SCALE, RUN, LargeInt8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import inverse, ramp, weigh_256, with_own_weights
from ..jit import device, inlined
from ..simd import LANES, add_group, add_scaled, bits, dot2_i16, dot_run, even_bytes, fma, get_f16, get_i32, get_u16
from ..simd import get_u8, group_sums, load_f32, maximum, minimum, odd_bytes, opaque, panel_bytes, panel_f16
from ..simd import prefetch_address, prefetch_levels, put_f32, put_i32, put_u16, put_u8, rint, scaled, splat_f32
from ..simd import splat_i32, store_i8, to_f32, to_i32, twice_of_lane, zeros_i32
from ..weighted_fitting import group_pairs_fitter
from .format import GROUPED_PANELS, make_format

_BYTES = 84
_CODES, _SCALE, _OFFSET_SCALE = 16, 80, 82  # byte offsets
_VECTOR = 4 * LANES
_HEADER = 4 * LANES + 4 * _VECTOR  # panel bytes before the codes of a block
_FOUR = 5 * _VECTOR  # panel bytes of four groups, with those in the header
_CRUMBS = 0x03030303
_TOP = float32(3.0)


@device
def _put_pair(block, group, scale, offset):
    put_u8(block + group, uint8(scale | offset << 4))


_fit_groups = group_pairs_fitter("q2_k", _put_pair, groups=16, group=16, most=15, scale_at=_SCALE)


@device
def _scale_and_offset(block, group):
    pair = get_u8(block + group)
    return get_f16(block + _SCALE) * float32(pair & 15), get_f16(block + _OFFSET_SCALE) * float32(pair >> 4)


@device
def _codes_of(x, block, i):
    """The codes of one vector of values, from i on."""
    scale, offset = _scale_and_offset(block, i // 16)
    code = rint((load_f32(x + 4 * i) + splat_f32(offset)) * splat_f32(inverse(scale)))
    return to_i32(maximum(splat_f32(float32(0.0)), minimum(splat_f32(_TOP), code)))


@device
def _put_codes(x, block):
    for half in range(2):
        for i in range(0, 32, LANES):
            codes = splat_i32(int32(0))
            for plane in range(4):
                code = _codes_of(x, block, 128 * half + 32 * plane + i)
                codes = codes | (code << splat_i32(int32(2 * plane)))
            store_i8(block + _CODES + 32 * half + i, codes)


@device
def quantize_weighted(x, weights, block):
    _fit_groups(x, weights, block, _TOP, ramp(float32(1.6), float32(0.12)))
    _put_codes(x, block)


quantize_block = with_own_weights("q2_k", weigh_256, quantize_weighted)


@device
def dequantize_block(block, out):
    for group in range(16):
        scale, offset = _scale_and_offset(block, group)
        codes = block + _CODES + 32 * (group // 8) + 16 * (group % 2)
        for i in range(16):
            code = get_u8(codes + i) >> (2 * (group % 8 // 2)) & 3
            put_f32(out + 64 * group + 4 * i, scale * float32(code) - offset)


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block + _SCALE))
    put_u16(panel + 2 * LANES + 2 * lane, get_u16(block + _OFFSET_SCALE))
    panel += 4 * LANES + 4 * lane
    for group in range(16):
        at = panel + _VECTOR * (group // 4)
        put_u8(at + (group % 2 * 2 + group % 4 // 2), uint8(get_u8(block + group)))
        codes, shift = block + _CODES + 32 * (group // 8) + 16 * (group % 2), 2 * (group % 8 // 2)
        word = int64(0)
        for part in range(4):
            word |= (get_i32(codes + 4 * part) >> shift & _CRUMBS) << 2 * part
        put_i32(panel + _VECTOR * (4 + group), int32(word))


@inlined
def _add_codes(total, scale, panel, panel_stride, x, x_stride):
    """total + scale * 16 products of each row. On AVX2 these fit in 16 bits: 3 * MOST_OF_16 < 2 ** 15."""
    codes = panel_bytes(total, panel, panel_stride)
    sums = dot_run(group_sums(total), (scaled(bits(codes, 0, 3), scale), scaled(bits(codes, 2, 3), scale),
                                       scaled(bits(codes, 4, 3), scale), scaled(bits(codes, 6, 3), scale)), x, x_stride)
    return add_group(total, sums, scale)


@inlined
def _offsets(acc, panel, panel_stride, x, x_stride):
    """-32 * the sums of activations, times the offsets of their groups."""
    total = zeros_i32(acc)
    for i in range(4):
        codes = bits(panel_bytes(acc, panel + _VECTOR * i, panel_stride), 4, 15)
        total = dot2_i16(total, even_bytes(codes), x + RUN * i + BIASES, x_stride)
        total = dot2_i16(total, odd_bytes(codes), x + RUN * i + BIASES + 4, x_stride)
    return total


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        header = panel
        fours = panel + 4 * LANES
        panel += _HEADER
        # 256 * 3 * 127 * 15 < 2 ** 21
        total = zeros_i32(acc)
        for _ in range(opaque(4)):
            prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _FOUR)
            scales = bits(panel_bytes(acc, fours, panel_stride), 0, 15)
            total = _add_codes(total, twice_of_lane(scales, 0), panel, panel_stride, x, x_stride)
            total = _add_codes(total, twice_of_lane(scales, 2), panel + _VECTOR, panel_stride, x + AT[16], x_stride)
            total = _add_codes(total, twice_of_lane(scales, 1), panel + 2 * _VECTOR, panel_stride, x + AT[32], x_stride)
            total = _add_codes(total, twice_of_lane(scales, 3), panel + 3 * _VECTOR, panel_stride, x + AT[48], x_stride)
            fours += _VECTOR
            panel += 4 * _VECTOR
            x += RUN
        x -= 4 * RUN
        sums = to_f32(total) * panel_f16(acc, header, panel_stride)
        offset_scale = panel_f16(acc, header + 2 * LANES, panel_stride) * splat_f32(float32(1 / 32))
        sums = fma(to_f32(_offsets(acc, header + 4 * LANES, panel_stride, x, x_stride)), offset_scale, sums)
        acc = add_scaled(acc, sums, x + LARGE_SCALE, x_stride)
        x += LARGE_BYTES
    return acc


FORMAT = make_format("q2_k", 10, 256, _BYTES, LargeInt8Blocks(),
                     quantize_block=quantize_block, quantize_weighted=quantize_weighted,
                     dequantize_block=dequantize_block, pack_block=pack_block, tile=tile, panels=GROUPED_PANELS,
                     grid=Grid(16, _scale_and_offset, whole_levels("q2_k", 0, 3), _put_codes))
