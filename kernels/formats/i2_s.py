"""I2_S: ternary values in blocks of 128, 2 bits a value: value = scale of the tensor * (code - 1). Code 3 reads as 0.

Byte i of a block's 32 holds values i, i + 32, i + 64 and i + 96, from its high bits down (bitnet.cpp). The tensor has
one scale, a float32 after its last block. A panel is the scales of all rows, then for each block eight vectors: bytes
4i .. 4i + 3 of every row.
"""

from numba import float32, int32

from ..activations import AT, ROW_BIAS, ROW_SCALE, ROW_VALUES, Int8Rows, spread
from ..jit import device, inlined
from ..simd import BY_RUNS, ISA, LANES, absolute, add_partial_sums, add_to_bytes, bits, dot4, dot_run, fma, get_f32
from ..simd import get_i32, get_u8, init_from_bias, load_f32, load_tile, maximum, minimum, opaque, panel_bytes
from ..simd import panel_f32, panel_vectors, partial_sums, prefetch_address, prefetch_unpacked, put_f32, put_i32
from ..simd import scale_add, splat_f32, splat_i32, store_i8, store_tile, to_i32, to_matrix, to_rows, zeros, zeros_i32
from ..wide import wide_rows
from .format import make_format

_BYTES = 32
_PANEL_BLOCK = _BYTES * LANES
_VECTOR = 4 * LANES
_FOUR = 4 * _VECTOR
_CODES = 128 * LANES  # bytes of a block's codes, unpacked
_CHAIN = 4  # vectors whose products go to the same partial sums
_ZEROS = 0x55555555  # a code of 1 in every place
LEAST = 1.0000001e-06  # the lowest float32 magnitude that does not become 0: bitnet.cpp compares with a float64 1e-6


@device
def _code(x):
    """The code of each value of a vector, by its sign: 0, 1 or 2."""
    value, one, huge = load_f32(x), splat_f32(float32(1.0)), splat_f32(float32(1e20))
    excess = absolute(value) - splat_f32(float32(LEAST))
    counts = minimum(one, maximum(splat_f32(float32(0.0)), fma(excess, huge, one)))
    sign = minimum(one, maximum(splat_f32(float32(-1.0)), value * huge))
    return to_i32(fma(sign, counts, one))


@device
def quantize_block(x, block):
    """The values are -scale, 0 or scale."""
    for i in range(0, 32, LANES):
        codes = splat_i32(int32(0))
        for plane in range(4):
            codes = (codes << splat_i32(int32(2))) | _code(x + 4 * (32 * plane + i))
        store_i8(block + i, codes)


@device
def dequantize_block(block, out):
    """-1, 0 and 1: without the scale."""
    for i in range(128):
        code = get_u8(block + i % 32) >> (6 - 2 * (i // 32)) & 3
        put_f32(out + 4 * i, float32(code - 1) if code != 3 else float32(0.0))


@device
def pack_block(block, panel, lane):
    for i in range(8):
        codes = get_i32(block + 4 * i)
        threes = codes & codes >> 1 & _ZEROS
        put_i32(panel + 4 * LANES * i + 4 * lane, int32(codes & ~(threes << 1)))  # 3 becomes 1


@device
def scale_behind(end):
    """The scale of the tensor."""
    return get_f32(end)


@inlined
def _dot_four(sums, panel, panel_stride, x, x_stride):
    """sums + the products of four vectors."""
    a, b, c, d = panel_vectors(sums, panel, panel_stride, 4)
    sums = dot_run(sums, (bits(a, 6, 3), bits(b, 6, 3), bits(c, 6, 3), bits(d, 6, 3)), x, x_stride)
    sums = dot_run(sums, (bits(a, 4, 3), bits(b, 4, 3), bits(c, 4, 3), bits(d, 4, 3)), x + AT[32], x_stride)
    sums = dot_run(sums, (bits(a, 2, 3), bits(b, 2, 3), bits(c, 2, 3), bits(d, 2, 3)), x + AT[64], x_stride)
    return dot_run(sums, (bits(a, 0, 3), bits(b, 0, 3), bits(c, 0, 3), bits(d, 0, 3)), x + AT[96], x_stride)


@inlined
def _vectors():
    """How many a block has. On Arm LLVM may not know: registers suffice for one chain at a time."""
    if BY_RUNS:
        return opaque(8)
    return 8


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    weight_scale = panel_f32(acc, panel, panel_stride)
    panel += 4 * LANES
    values = x + ROW_VALUES
    acc = to_matrix(acc)
    total = init_from_bias(acc, x + ROW_BIAS, x_stride)
    for _ in range(blocks):
        upcoming = prefetch_address(acc, panel, end, panel_stride)
        for start in range(0, _vectors(), _CHAIN):
            partial = partial_sums(total)
            if BY_RUNS:
                prefetch_unpacked(acc, upcoming + _VECTOR * start, panel_stride, _FOUR)
                codes, own = panel + _VECTOR * start, values + spread(4 * start)
                partial = _dot_four(partial, codes, panel_stride, own, x_stride)
            else:
                for i in range(start, start + _CHAIN):
                    prefetch_unpacked(acc, upcoming + _VECTOR * i, panel_stride, _VECTOR)
                    packed = panel_bytes(acc, panel + _VECTOR * i, panel_stride)
                    partial = dot4(partial, bits(packed, 6, 3), values + 4 * i, x_stride)
                    partial = dot4(partial, bits(packed, 4, 3), values + 32 + 4 * i, x_stride)
                    partial = dot4(partial, bits(packed, 2, 3), values + 64 + 4 * i, x_stride)
                    partial = dot4(partial, bits(packed, 0, 3), values + 96 + 4 * i, x_stride)
            total = add_partial_sums(total, partial)
        panel += _PANEL_BLOCK
        values += AT[128]
    return to_rows(scale_add(acc, total, weight_scale, x + ROW_SCALE, x_stride))


@device
def unpack_blocks(source, codes, count):
    """32 vectors of signed codes in order, for each block."""
    like = zeros(1, 1)
    for _ in range(count):
        for i in range(8):
            packed = panel_bytes(like, source + _VECTOR * i, 0)
            store_tile(add_to_bytes(bits(packed, 6, 3), -1), codes + _VECTOR * i, 0, 0)
            store_tile(add_to_bytes(bits(packed, 4, 3), -1), codes + _VECTOR * (8 + i), 0, 0)
            store_tile(add_to_bytes(bits(packed, 2, 3), -1), codes + _VECTOR * (16 + i), 0, 0)
            store_tile(add_to_bytes(bits(packed, 0, 3), -1), codes + _VECTOR * (24 + i), 0, 0)
        source += _PANEL_BLOCK
        codes += _CODES


@inlined
def _scaled(panel, x, x_stride, sums):
    total = load_tile(zeros_i32(zeros(1, 8)), sums, 0, _VECTOR)
    return scale_add(zeros(1, 8), total, panel_f32(zeros(1, 1), panel, 0), x + ROW_SCALE, x_stride)


WIDE = wide_rows("i2_s", _PANEL_BLOCK, 4 * LANES, unpack_blocks, _scaled)
FORMAT = make_format("i2_s", 36, 128, _BYTES, Int8Rows(offset=1),
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     pack_block=pack_block, tile=tile, row_factor=scale_behind, wide=WIDE,
                     panels=(1, 2, 2, 4) if ISA.arm else ISA.tile_panels)
