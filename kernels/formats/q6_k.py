"""Q6_K: blocks of 256 values in 16 groups of 16: value = scale * group scale * (6 bits - 32).

A block is 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 group scales and a float16 scale (ggml's
block_q6_K). In a panel, a block is the float16 scales of all rows, then for each two groups their int8 scales, side by
side for each row, and for each group three vectors: values 4 v .. 4 v + 3 of every row in the low 6 bits of vector v.
Values 12 .. 15 are in the high 2 bits of the three, from their low bits up.

Sums over a block are integers, as in Q4_K.
"""

from numba import float32, int8, int32, uint8

from ..activations import AT, LARGE_BYTES, LARGE_SCALE, RUN, STARTS, TWO_STARTS, LargeInt8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import fit_weighted_scale, inverse, ramp, six_bits, weigh_256, with_own_weights
from ..jit import device, inlined
from ..simd import DOT_ELEMENT, LANES, PAIRS, add_biased_pair, add_first, add_scaled, add_second, alloca, begin_first
from ..simd import begin_second, bits, dot4, dot_run, get_f16, get_i64, get_u16, get_u8, load_f32, maximum, minimum
from ..simd import opaque, panel_bytes, panel_f16, panel_i8_pairs, prefetch_address, prefetch_grouped, put_f32, put_u16
from ..simd import put_u8, rint, room_in_first, room_in_second, splat_f32, splat_i32, store_i8, store_tile, to_f32
from ..simd import to_i32, to_matrix, to_rows, zeros, zeros_i32
from ..weighted_fitting import group_scales_fitter
from ..wide import product_splitter, wide_large_blocks
from .format import GROUPED_PANELS, make_format

_BYTES = 210
_HEADER, _PAIR = 2 * LANES, 26 * LANES  # panel bytes before the groups of a block, and of two groups
_VECTOR = 4 * LANES

split_products = product_splitter(32)


@device
def _value(block, i):
    """The 6 bits of value i, as they are spread over the block: two halves of 128 values, four planes of 32 in each."""
    half, plane, byte = i // 128, i % 128 // 32, i % 32
    nibble = get_u8(block + 64 * half + 32 * (plane % 2) + byte) >> (4 * (plane // 2))
    pair = get_u8(block + 128 + 32 * half + byte) >> (2 * plane)
    return (nibble & 15) | (pair & 3) << 4


@device
def _codes(x, block, i):
    """The 6 bits of a vector of values, from i on, as two and four bits."""
    scale = get_f16(block + 208) * float32(int8(get_u8(block + 192 + i // 16)))
    code = rint(load_f32(x + 4 * i) * splat_f32(inverse(scale)))
    code = maximum(splat_f32(float32(-32.0)), minimum(splat_f32(float32(31.0)), code)) + splat_f32(float32(32.0))
    pair = rint((code - splat_f32(float32(7.5))) * splat_f32(float32(1 / 16)))
    return to_i32(pair), to_i32(code - pair * splat_f32(float32(16.0)))


_fit_scales = group_scales_fitter("six_bits", fit_weighted_scale, six_bits, groups=16, group=16, lowest=-128,
                                  highest=127, scale_at=208)


@device
def _fit_weighted_groups(x, weights, block):
    numbers = alloca(128)
    _fit_scales(x, weights, block, numbers, ramp(float32(-34.4), float32(0.24)))
    for group in range(16):
        put_u8(block + 192 + group, uint8(get_i64(numbers + 8 * group)))


@device
def _scale_of_group(block, group):
    return get_f16(block + 208) * float32(int8(get_u8(block + 192 + group))), float32(0.0)


@device
def _put_codes(x, block):
    for half in range(2):
        for i in range(0, 32, LANES):
            at = 128 * half + i
            pair0, low0 = _codes(x, block, at)
            pair1, low1 = _codes(x, block, at + 32)
            pair2, low2 = _codes(x, block, at + 64)
            pair3, low3 = _codes(x, block, at + 96)
            four = splat_i32(int32(4))
            store_i8(block + 64 * half + i, low0 | (low2 << four))
            store_i8(block + 64 * half + 32 + i, low1 | (low3 << four))
            pairs = pair0 | (pair1 << splat_i32(int32(2))) | (pair2 << four) | (pair3 << splat_i32(int32(6)))
            store_i8(block + 128 + 32 * half + i, pairs)


@device
def quantize_weighted(x, weights, block):
    _fit_weighted_groups(x, weights, block)
    _put_codes(x, block)


quantize_block = with_own_weights("q6_k", weigh_256, quantize_weighted)


@device
def dequantize_block(block, out):
    scale = get_f16(block + 208)
    for i in range(256):
        group = float32(int8(get_u8(block + 192 + i // 16)))
        put_f32(out + 4 * i, scale * group * float32(_value(block, i) - 32))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block + 208))
    panel += _HEADER
    for pair in range(8):
        put_u16(panel + 2 * lane, get_u16(block + 192 + 2 * pair))
        for half in range(2):
            first, row = 32 * pair + 16 * half, panel + LANES * (2 + 12 * half) + 4 * lane
            for i in range(4):
                last = _value(block, first + 12 + i)
                put_u8(row + i, uint8(_value(block, first + i) | last << 6))
                put_u8(row + _VECTOR + i, uint8(_value(block, first + 4 + i) | (last >> 2) << 6))
                put_u8(row + 2 * _VECTOR + i, uint8(_value(block, first + 8 + i) | (last >> 4) << 6))
        panel += _PAIR


@inlined
def _vectors(like, panel, panel_stride):
    return (panel_bytes(like, panel, panel_stride), panel_bytes(like, panel + _VECTOR, panel_stride),
            panel_bytes(like, panel + 2 * _VECTOR, panel_stride))


@inlined
def _first_half(sums, a, b, c, x, x_stride):
    """All of them, where sums have room for it."""
    if DOT_ELEMENT != "i16":
        last = bits(a, 6, 3) | bits(b, 4, 12) | bits(c, 2, 48)
        return dot_run(sums, (bits(a, 0, 63), bits(b, 0, 63), bits(c, 0, 63), last), x, x_stride)
    return dot4(dot4(sums, bits(a, 0, 63), x, x_stride), bits(b, 0, 63), x + 4, x_stride)


@inlined
def _second_half(sums, a, b, c, x, x_stride):
    if DOT_ELEMENT != "i16":
        return sums
    sums = dot4(sums, bits(c, 0, 63), x + 8, x_stride)
    return dot4(sums, bits(a, 6, 3) | bits(b, 4, 12) | bits(c, 2, 48), x + 12, x_stride)


@inlined
def _add_codes(total, panel, panel_stride, x, biases, x_stride):
    """total + scale * 16 products, as int32, of two groups. With the biases, these fit in 16 bits."""
    scales = panel_i8_pairs(total, panel, panel_stride)
    panel += 2 * LANES
    a, b, c = _vectors(total, panel, panel_stride)
    first = _first_half(begin_first(total, biases, x_stride), a, b, c, x, x_stride)
    total, first = room_in_first(total, first, scales)
    first = _second_half(first, a, b, c, x, x_stride)
    if PAIRS:
        total = add_first(total, first, scales)
    a, b, c = _vectors(total, panel + 3 * _VECTOR, panel_stride)
    second = _first_half(begin_second(total, biases, x_stride), a, b, c, x + AT[16], x_stride)
    total, second = room_in_second(total, second, scales)
    second = _second_half(second, a, b, c, x + AT[16], x_stride)
    if PAIRS:
        return add_second(total, second, scales)
    return add_biased_pair(total, first, second, scales, biases, x_stride)


@inlined
def add_block(acc, total, header, panel_stride, x, x_stride):
    """acc + the results of a block, from its sums of products with integer scales. x: of the block."""
    return add_scaled(acc, to_f32(total) * panel_f16(acc, header, panel_stride), x + LARGE_SCALE, x_stride)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        header = panel
        panel += _HEADER
        # Without the codes' offset, 256 * 63 * 127 * 128 < 2 ** 28.
        total = zeros_i32(to_matrix(acc))
        for _ in range(opaque(4)):
            prefetch_grouped(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PAIR)
            total = _add_codes(total, panel, panel_stride, x, x + STARTS, x_stride)
            panel += _PAIR
            prefetch_grouped(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PAIR)
            total = _add_codes(total, panel, panel_stride, x + AT[32], x + STARTS + TWO_STARTS, x_stride)
            panel += _PAIR
            x += RUN
        x -= 4 * RUN
        acc = add_block(acc, to_rows(total), header, panel_stride, x, x_stride)
        x += LARGE_BYTES
    return acc


@inlined
def _unpack_group(panel, out):
    """16 codes as 4 vectors in order."""
    a, b, c = _vectors(zeros(1, 1), panel, 0)
    store_tile(bits(a, 0, 63), out, 0, 0)
    store_tile(bits(b, 0, 63), out + _VECTOR, 0, 0)
    store_tile(bits(c, 0, 63), out + 2 * _VECTOR, 0, 0)
    store_tile(bits(a, 6, 3) | bits(b, 4, 12) | bits(c, 2, 48), out + 3 * _VECTOR, 0, 0)


@device
def _unpack_values(part, low, high):
    for _ in range(2):
        scales, codes = panel_i8_pairs(zeros(1, 1), part, 0), part + 2 * LANES
        _unpack_group(codes, low)
        _unpack_group(codes + 3 * _VECTOR, low + 4 * _VECTOR)
        split_products(scales, 0, low, high, 0, 4)
        split_products(scales, 1, low, high, 4, 8)
        part += _PAIR
        low += 8 * _VECTOR
        high += 8 * _VECTOR


WIDE = wide_large_blocks("q6_k", _BYTES * LANES, _HEADER, _unpack_values, add_block)
FORMAT = make_format("q6_k", 14, 256, _BYTES, LargeInt8Blocks(),
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     pack_block=pack_block, tile=tile, panels=GROUPED_PANELS,
                     quantize_weighted=quantize_weighted, wide=WIDE,
                     grid=Grid(16, _scale_of_group, whole_levels("q6_k", -32, 31), _put_codes))
