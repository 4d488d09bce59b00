"""Q4_K: blocks of 256 values in 8 groups of 32: value = scale * group scale * nibble - offset scale * group offset.

A block is two float16 (scale, offset scale), 12 bytes of 6-bit group scales and offsets, and 128 bytes of nibbles: byte
32 p + i holds value i of group 2 p in its low nibble and value i of group 2 p + 1 in its high one (ggml's block_q4_K).

Bytes 0-3 of the 12 hold the scales of groups 0 to 3 in their low 6 bits, and bytes 4-7 their offsets. Bytes 8-11 hold
the low 4 bits of scale (low nibble) and offset (high nibble) of groups 4 to 7, whose top 2 bits are the top 2 bits of
bytes 0-3 (scale) and 4-7 (offset).

In a panel, a block is the two float16 of all rows, the offsets of groups 2 p and 2 p + 1 of all rows, two bytes for
each p, and then for each p the scales of the two groups, two bytes, and their nibbles as in `nibbles`.

The products of a group are multiplied by its scale, and the sums of its activations by its offset, as integers. Only
the sums over a block become float32. So they do not depend on the processor's instructions.
"""

from collections.abc import Callable
from typing import Any

from numba import float32, int32, uint8

from ..activations import AT, LARGE_BYTES, LARGE_SCALE, RUN, SUMS, TWO_SUMS, LargeInt8Blocks
from ..error_feedback import Grid, whole_levels
from ..fitting import inverse, ramp, weigh_256, with_own_weights
from ..jit import bind, device, hole, inlined, template
from ..simd import LANES, PAIRS, add_first, add_pair, add_scaled, add_second, bits, dot2_i16, fma, get_f16, get_u16
from ..simd import get_u8, load_f32, maximum, minimum, opaque, panel_bytes, panel_f16, panel_i8_pairs, prefetch_address
from ..simd import prefetch_grouped, put_f32, put_u16, put_u8, rint, splat_f32, splat_i32, store_i8, store_tile, to_f32
from ..simd import to_i32, to_matrix, to_rows, zero_sums, zeros, zeros_i32
from ..weighted_fitting import group_pairs_fitter
from ..wide import product_splitter, wide_large_blocks
from .format import GROUPED_PANELS, Format, make_format
from .nibbles import NIBBLES, add_nibbles, gather_nibbles

_BYTES = 144
_SCALES = 4  # byte offset of the 6-bit numbers
_CODES = 16
_HEADER = 12 * LANES  # panel bytes before the groups of a block

split_products = product_splitter(0)


@device
def group_scale(block, group):
    """The 6 bits of a group's scale."""
    if group < 4:
        return get_u8(block + _SCALES + group) & 63
    return get_u8(block + _SCALES + 4 + group) & 15 | (get_u8(block + _SCALES + group - 4) >> 6) << 4


@device
def group_offset(block, group):
    """The 6 bits of a group's offset."""
    if group < 4:
        return get_u8(block + _SCALES + 4 + group) & 63
    return get_u8(block + _SCALES + 4 + group) >> 4 | (get_u8(block + _SCALES + group) >> 6) << 4


@device
def put_group(block, group, scale, offset):
    """Store two 6-bit numbers. Store groups 0 to 3 first: groups 4 to 7 add their top bits to the same bytes."""
    if group < 4:
        put_u8(block + _SCALES + group, uint8(scale))
        put_u8(block + _SCALES + 4 + group, uint8(offset))
    else:
        put_u8(block + _SCALES + 4 + group, uint8(scale & 15 | (offset & 15) << 4))
        at = block + _SCALES + group - 4
        put_u8(at, uint8(get_u8(at) | (scale >> 4) << 6))
        put_u8(at + 4, uint8(get_u8(at + 4) | (offset >> 4) << 6))


# Chooses and stores all scales and offsets of a block whose codes are 0 .. top: (x, weights, block, top, steps).
fit_weighted_groups = group_pairs_fitter("q4_k", put_group, groups=8, group=32, most=63, scale_at=0)


@device
def scale_and_offset(block, group):
    """Of a group: a value is scale * code - offset."""
    scale = get_f16(block) * float32(group_scale(block, group))
    return scale, get_f16(block + 2) * float32(group_offset(block, group))


@device
def codes_of(x, block, group, i, top):
    """The codes of one vector of values, from i on, of a group: still float32."""
    scale, offset = scale_and_offset(block, group)
    shifted = load_f32(x + 128 * group + 4 * i) + splat_f32(offset)
    code = rint(shifted * splat_f32(inverse(scale)))
    return maximum(splat_f32(float32(0.0)), minimum(splat_f32(top), code))


@device
def _put_codes(x, block):
    top = float32(15.0)
    for pair in range(4):
        for i in range(0, 32, LANES):
            low = to_i32(codes_of(x, block, 2 * pair, i, top))
            high = to_i32(codes_of(x, block, 2 * pair + 1, i, top))
            store_i8(block + _CODES + 32 * pair + i, low | (high << splat_i32(int32(4))))


@device
def quantize_weighted(x, weights, block):
    fit_weighted_groups(x, weights, block, float32(15.0), ramp(float32(13.0), float32(0.3)))
    _put_codes(x, block)


quantize_block = with_own_weights("q4_k", weigh_256, quantize_weighted)


@device
def dequantize_block(block, out):
    for group in range(8):
        scale, offset = scale_and_offset(block, group)
        for i in range(32):
            code = get_u8(block + _CODES + 32 * (group // 2) + i) >> (4 * (group % 2)) & 15
            put_f32(out + 128 * group + 4 * i, scale * float32(code) - offset)


code_bytes = pair_bytes = pack_codes = add_codes = unpack_codes = hole()


@template
def _pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block))
    put_u16(panel + 2 * LANES + 2 * lane, get_u16(block + 2))
    for group in range(8):
        put_u8(panel + LANES * (4 + group // 2 * 2) + 2 * lane + group % 2, uint8(group_offset(block, group)))
    panel += _HEADER
    for pair in range(4):
        for i in range(2):
            put_u8(panel + 2 * lane + i, uint8(group_scale(block, 2 * pair + i)))
            pack_codes(block, 2 * pair + i, panel + LANES * (2 + i * code_bytes), lane)
        panel += pair_bytes


@inlined
def add_block(acc, total, header, panel_stride, x, x_stride):
    """acc + the results of a block, from its sums of products with integer scales. x: of the block."""
    offsets = zeros_i32(acc)
    for i in range(4):
        pair = panel_i8_pairs(acc, header + LANES * (4 + 2 * i), panel_stride)
        offsets = dot2_i16(offsets, pair, x + SUMS + TWO_SUMS * i, x_stride)
    sums = to_f32(total) * panel_f16(acc, header, panel_stride)
    sums = fma(to_f32(offsets), panel_f16(acc, header + 2 * LANES, panel_stride), sums)
    return add_scaled(acc, sums, x + LARGE_SCALE, x_stride)


@template
def _tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        header = panel
        panel += _HEADER
        # With codes of 5 bits, 256 * 31 * 127 * 63 < 2 ** 26.
        total = zeros_i32(to_matrix(acc))
        for _ in range(opaque(4)):
            prefetch_grouped(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, pair_bytes)
            scales = panel_i8_pairs(acc, panel, panel_stride)
            total = add_codes(total, scales, panel + 2 * LANES, panel_stride, x, x_stride)
            panel += pair_bytes
            x += RUN
        x -= 4 * RUN
        acc = add_block(acc, to_rows(total), header, panel_stride, x, x_stride)
        x += LARGE_BYTES
    return acc


@template
def _unpack_values(part, low, high):
    scales, codes = panel_i8_pairs(zeros(1, 1), part, 0), part + 2 * LANES
    unpack_codes(codes, low)
    unpack_codes(codes + code_bytes * LANES, low + 32 * LANES)
    split_products(scales, 0, low, high, 0, 8)
    split_products(scales, 1, low, high, 8, 16)


def make_grouped_format(name: str, type_id: int, block_bytes: int, code_bytes: int, *,
                        quantize_block: Callable[..., Any], quantize_weighted: Callable[..., Any],
                        dequantize_block: Callable[..., Any], pack_codes: Callable[..., Any],
                        add_codes: Callable[..., Any], unpack_codes: Callable[..., Any],
                        put_codes: Callable[..., Any], top: int) -> Format:
    """A format with the groups of Q4_K, whose codes take `code_bytes` of a row in a panel.

    pack_codes(block, group, panel, lane): copy the codes of a group to their place in a panel.
    add_codes(total, scales, panel, panel stride, x, x stride): total + scale * 32 products of each row, as int32, of
    two groups.
    unpack_codes(panel, out): the codes of a group as 8 vectors in order.
    put_codes(x, block): store the codes, 0 .. top, of values, for the scales that the block has.
    """
    pair_bytes = 2 * (1 + code_bytes) * LANES
    pack_block = bind(_pack_block, f"pack_block_{name}", code_bytes=code_bytes, pair_bytes=pair_bytes,
                      pack_codes=pack_codes)
    tile = bind(_tile, f"tile_{name}", pair_bytes=pair_bytes, add_codes=add_codes)
    unpack_values = bind(_unpack_values, f"unpack_values_{name}", code_bytes=code_bytes, unpack_codes=unpack_codes)
    row_bytes = 12 + 8 * (1 + code_bytes)
    wide = wide_large_blocks(name, LANES * row_bytes, _HEADER, device(unpack_values), add_block)
    return make_format(name, type_id, 256, block_bytes, LargeInt8Blocks(), quantize_block=quantize_block,
                       dequantize_block=dequantize_block, panel_block_bytes=row_bytes, pack_block=device(pack_block),
                       tile=device(tile), panels=GROUPED_PANELS, quantize_weighted=quantize_weighted, wide=wide,
                       grid=Grid(32, scale_and_offset, whole_levels(name, 0, top), put_codes))


@device
def _pack_codes(block, group, panel, lane):
    gather_nibbles(block + _CODES + 32 * (group // 2), group % 2, panel, lane)


@inlined
def _dot_codes(acc, panel, panel_stride, x, x_stride):
    """32 products. They fit in 16 bits: 15 * 2 * MOST_OF_16 < 2 ** 15."""
    return add_nibbles(zero_sums(acc), panel, panel_stride, x, x_stride)


@inlined
def _add_codes(total, scales, panel, panel_stride, x, x_stride):
    first = _dot_codes(total, panel, panel_stride, x, x_stride)
    if PAIRS:
        total = add_first(total, first, scales)
    second = _dot_codes(total, panel + NIBBLES * LANES, panel_stride, x + AT[32], x_stride)
    if PAIRS:
        return add_second(total, second, scales)
    return add_pair(total, first, second, scales)


@inlined
def _unpack_codes(panel, out):
    like = zeros(1, 1)
    for i in range(4):
        packed = panel_bytes(like, panel + 4 * LANES * i, 0)
        store_tile(bits(packed, 0, 15), out + 4 * LANES * i, 0, 0)
        store_tile(bits(packed, 4, 15), out + 4 * LANES * (4 + i), 0, 0)


FORMAT = make_grouped_format("q4_k", 12, _BYTES, NIBBLES, quantize_block=quantize_block,
                             quantize_weighted=quantize_weighted, dequantize_block=dequantize_block,
                             pack_codes=_pack_codes, add_codes=_add_codes, unpack_codes=_unpack_codes,
                             put_codes=_put_codes, top=15)
