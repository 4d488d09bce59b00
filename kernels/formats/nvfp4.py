"""NVFP4: blocks of 64 values in 4 groups of 16: value = group scale (E4M3) / 2 * level, with the levels of `e2m1`.

A block is the scales of the groups, a byte each, then 8 bytes of nibbles for each group: byte i holds value i in its
low and value i + 8 in its high nibble (ggml's block_nvfp4). Scales have no sign: their top bit means nothing, and 0x7F,
E4M3's NaN, is 0. A matrix may have one more scale, in a tensor of its own.

A panel begins with that scale, times 128, for each row. Then a block is the scales of group 0 of all rows, those of
groups 1, 2 and 3, and for each group two vectors: bytes 0 to 3 and bytes 4 to 7 of every row.
"""

from numba import float32, int64, uint8

from ..activations import BIAS, BIAS_BYTES, SCALE, spread
from ..fitting import CANDIDATES, inverse, largest_magnitude
from ..jit import bind, device, hole, inlined, template
from ..simd import LANES, alloca, begin_block, bits_to_float, fma, get_i32, get_u16, get_u8, panel_e4m3, panel_f32
from ..simd import prefetch_address, prefetch_levels, put_f16, put_f32, put_i32, put_u8, scale_add_two, to_matrix
from ..simd import to_rows, zeros_f32
from .e2m1 import TABLE, VECTOR, activation, best_code, best_weighted_code, dot_16, put_levels, put_values
from .format import make_format

_BYTES = 36
_PANEL_BLOCK = _BYTES * LANES
_ACTIVATION = activation(group=16)
_STEP = _ACTIVATION.step
_NAN, _LARGEST = 0x7F, 0x7E


@device
def _half_scale(code):
    """Half of an E4M3 number without a sign."""
    exponent, mantissa = code >> 3 & 15, code & 7
    power = bits_to_float((max(1, exponent) + 127 - 11) << 23)
    return float32(mantissa + (8 if exponent else 0)) * power if code != _NAN else float32(0.0)


find_code = hole()


@template
def _fit_scale(x, weights):
    """The best scale for 16 values: of codes around that with which the largest value is 6."""
    table = alloca(TABLE)
    put_f16(table, largest_magnitude(x, 16) * float32(1 / 6 / 256))  # whose bits are those of E4M3 and 7 more
    middle = int64(get_u16(table) >> 7)
    for i in range(CANDIDATES):
        code = max(1, min(_LARGEST, middle - 7 + i))
        put_f32(table + 4 * i, _half_scale(code))
        put_f32(table + 4 * CANDIDATES + 4 * i, float32(code))
    return int64(find_code(x, weights, 16, table))


_fit = device(bind(_fit_scale, "fit_scale_nvfp4", find_code=best_code))
_fit_weighted = device(bind(_fit_scale, "fit_weighted_scale_nvfp4", find_code=best_weighted_code))


@device
def _put_group(x, block, group, code):
    put_u8(block + group, uint8(code))
    put_levels(x, block + 4 + 8 * group, inverse(_half_scale(code)), 8)


@device
def quantize_block(x, block):
    for group in range(4):
        _put_group(x + 64 * group, block, group, _fit(x + 64 * group, 0))


@device
def quantize_weighted(x, weights, block):
    for group in range(4):
        _put_group(x + 64 * group, block, group, _fit_weighted(x + 64 * group, weights + 64 * group))


@device
def dequantize_block(block, out):
    for group in range(4):
        put_values(block + 4 + 8 * group, _half_scale(int64(get_u8(block + group))), out + 64 * group, 8)


@device
def pack_block(block, panel, lane):
    for group in range(4):
        code = get_u8(block + group)
        put_u8(panel + LANES * group + lane, uint8(code & 127 if code != _NAN else 0))
    for i in range(8):
        put_i32(panel + 4 * LANES + VECTOR * i + 4 * lane, get_i32(block + 4 + 4 * i))


@device
def _panel_factor(end):
    """Loaded scales lack 2 ** 8, and their halves are needed."""
    return float32(128.0)


@inlined
def _dot_group(acc, panel, panel_stride, x, x_stride, half):
    """The products of 16 values, in this half of an activation's block."""
    total = begin_block(acc, x + BIAS + BIAS_BYTES * half, x_stride)
    return dot_16(total, panel, panel_stride, x + spread(16 * half), x_stride)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    acc, end = to_matrix(acc), panel + panel_stride
    factor, sums = panel_f32(acc, panel, panel_stride), zeros_f32(acc)
    panel += 4 * LANES
    for _ in range(blocks):
        prefetch_levels(acc, prefetch_address(acc, panel, end, panel_stride), panel_stride, _PANEL_BLOCK)
        for pair in range(2):
            codes, scales = panel + 4 * LANES + 4 * VECTOR * pair, panel + 2 * LANES * pair
            first = _dot_group(acc, codes, panel_stride, x, x_stride, 0)
            second = _dot_group(acc, codes + 2 * VECTOR, panel_stride, x, x_stride, 1)
            sums = scale_add_two(sums, first, second, panel_e4m3(acc, scales, panel_stride),
                                 panel_e4m3(acc, scales + LANES, panel_stride), x + SCALE, x_stride)
            x += _STEP
        panel += _PANEL_BLOCK
    return to_rows(fma(sums, factor, acc))


FORMAT = make_format("nvfp4", 40, 64, _BYTES, _ACTIVATION,
                     quantize_block=quantize_block, dequantize_block=dequantize_block, pack_block=pack_block,
                     tile=tile, quantize_weighted=quantize_weighted, row_factor=_panel_factor)
