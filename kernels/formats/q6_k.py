"""Q6_K: blocks of 256 values in 16 groups of 16: value = scale * group scale * (6 bits - 32).

A block is 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 group scales and a float16 scale (ggml's
block_q6_K). In a panel, a block is the float16 scales of all rows, then for each group: the int8 scales of all rows,
two vectors of nibbles (values 0-3 | 4-7 and 8-11 | 12-15 of every row) and one of the four bit pairs.
"""

from numba import float32, int8, int32, int64, uint8

from ..activations import BIAS, SCALE, Int8Blocks
from ..fitting import fit_scale, inverse, ramp
from ..jit import device
from ..simd import LANES, add_partial_sums, alloca, bits, dot4, get_f16, get_f32, get_u16, get_u8, init_from_bias
from ..simd import load_f32, maximum, minimum, panel_bytes, panel_f16, panel_i8, partial_sums, prefetch_address
from ..simd import prefetch_unpacked, put_f16, put_f32, put_u16, put_u8, rint, scale_add, splat_f32, splat_i32
from ..simd import store_i8, to_i32
from .format import make_format

_BYTES = 210
_GROUP = 13 * LANES  # panel bytes of a group
_ACTIVATION = Int8Blocks(offset=32, group=16)
_STEP = _ACTIVATION.block_bytes


@device
def _value(block, i):
    """The 6 bits of value i, as they are spread over the block: two halves of 128 values, four planes of 32 in each."""
    half, plane, byte = i // 128, i % 128 // 32, i % 32
    nibble = get_u8(block + 64 * half + 32 * (plane % 2) + byte) >> (4 * (plane // 2))
    pair = get_u8(block + 128 + 32 * half + byte) >> (2 * plane)
    return (nibble & 15) | (pair & 3) << 4


@device
def _fit_groups(x, block):
    """Choose and store the scale of the block and those of its groups."""
    fits = alloca(64)
    largest = float32(0.0)
    steps = ramp(float32(-32.9), float32(0.12))
    for group in range(16):
        scale = fit_scale(x + 64 * group, 16, steps)
        put_f32(fits + 4 * group, scale)
        largest = scale if abs(scale) > abs(largest) else largest
    put_f16(block + 208, largest / float32(-128.0))
    for group in range(16):
        scale = get_f32(fits + 4 * group) * inverse(largest) * float32(-128.0)
        put_u8(block + 192 + group, uint8(int64(min(float32(127.0), round(scale)))))


@device
def _codes(x, block, i):
    """The 6 bits of a vector of values, from i on, as two and four bits."""
    scale = get_f16(block + 208) * float32(int8(get_u8(block + 192 + i // 16)))
    code = rint(load_f32(x + 4 * i) * splat_f32(inverse(scale)))
    code = maximum(splat_f32(float32(-32.0)), minimum(splat_f32(float32(31.0)), code)) + splat_f32(float32(32.0))
    pair = rint((code - splat_f32(float32(7.5))) * splat_f32(float32(1 / 16)))
    return to_i32(pair), to_i32(code - pair * splat_f32(float32(16.0)))


@device
def quantize_block(x, block):
    _fit_groups(x, block)
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
def dequantize_block(block, out):
    scale = get_f16(block + 208)
    for i in range(256):
        group = float32(int8(get_u8(block + 192 + i // 16)))
        put_f32(out + 4 * i, scale * group * float32(_value(block, i) - 32))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 2 * lane, get_u16(block + 208))
    panel += 2 * LANES
    for group in range(16):
        put_u8(panel + lane, get_u8(block + 192 + group))
        row = panel + LANES + 4 * lane
        for i in range(4):
            v0, v1, v2, v3 = (_value(block, 16 * group + i), _value(block, 16 * group + 4 + i),
                              _value(block, 16 * group + 8 + i), _value(block, 16 * group + 12 + i))
            put_u8(row + i, uint8((v0 & 15) | (v1 & 15) << 4))
            put_u8(row + 4 * LANES + i, uint8((v2 & 15) | (v3 & 15) << 4))
            put_u8(row + 8 * LANES + i, uint8(v0 >> 4 | (v1 >> 4) << 2 | (v2 >> 4) << 4 | (v3 >> 4) << 6))
        panel += _GROUP


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    for _ in range(blocks):
        scale = panel_f16(acc, panel, panel_stride)
        panel += 2 * LANES
        for _ in range(8):
            for half in range(2):
                prefetch_unpacked(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _GROUP)
                group_scale = scale * panel_i8(acc, panel, panel_stride)
                low = panel_bytes(acc, panel + LANES, panel_stride)
                high = panel_bytes(acc, panel + 5 * LANES, panel_stride)
                pairs = panel_bytes(acc, panel + 9 * LANES, panel_stride)
                values = x + 16 * half
                sums = init_from_bias(acc, x + BIAS + 4 * half, x_stride)
                partial = partial_sums(sums)
                partial = dot4(partial, bits(low, 0, 15) | bits(pairs, -4, 48), values, x_stride)
                partial = dot4(partial, bits(low, 4, 15) | bits(pairs, -2, 48), values + 4, x_stride)
                sums = add_partial_sums(sums, partial)
                partial = partial_sums(sums)
                partial = dot4(partial, bits(high, 0, 15) | bits(pairs, 0, 48), values + 8, x_stride)
                partial = dot4(partial, bits(high, 4, 15) | bits(pairs, 2, 48), values + 12, x_stride)
                sums = add_partial_sums(sums, partial)
                acc = scale_add(acc, sums, group_scale, x + SCALE, x_stride)
                panel += _GROUP
            x += _STEP
    return acc


FORMAT = make_format("q6_k", 14, 256, _BYTES, _ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     pack_block=pack_block, tile=tile)
