"""BF16: the high half of a float32, each value a block of its own.

In a panel, two values of a row share 32 bits. If the processor has no instruction for such pairs, a shift and a mask
make two float32 vectors of them, and activations stay float32.
"""

from numba import int64, uint16

from ..activations import BFloat16Pairs, Float32
from ..jit import device, inlined
from ..simd import ISA, LANES, bits_to_float, dot2_bf16, fma_tokens, get_i32, get_u16, panel_bf16, panel_bytes
from ..simd import panel_high_bf16, panel_low_bf16, prefetch_address, prefetch_direct, prefetch_unpacked, put_f32
from ..simd import put_u16, zeros_f32
from .floats import RUN, float_decoder
from .format import FLOAT_PANELS, make_format

_PAIRS = 4 * LANES  # panel bytes of two values of each row
_BF16 = ISA.bf16
_STEP = 4 if _BF16 else 8  # bytes of two activations
_prefetch = prefetch_direct if _BF16 else prefetch_unpacked


@device
def quantize_block(x, block):
    """Rounded half to even; a NaN stays one."""
    bits = int64(get_i32(x)) & 0xFFFFFFFF
    if bits & 0x7FFFFFFF > 0x7F800000:
        put_u16(block, uint16(bits >> 16 | 0x40))
    else:
        put_u16(block, uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16))


@device
def dequantize_block(block, out):
    put_f32(out, bits_to_float(int64(get_u16(block)) << 16))


@device
def pack_block(block, panel, lane):
    put_u16(panel + 4 * lane, get_u16(block))


@inlined
def _dot_pair(sums, panel, panel_stride, x, x_stride):
    """sums + 2 products of each row."""
    if _BF16:
        return dot2_bf16(sums, panel_bytes(sums, panel, panel_stride), x, x_stride)
    sums = fma_tokens(sums, panel_low_bf16(sums, panel, panel_stride), x, x_stride)
    return fma_tokens(sums, panel_high_bf16(sums, panel, panel_stride), x + 4, x_stride)


@device
def tile(acc, panel, panel_stride, x, x_stride, blocks):
    end = panel + panel_stride
    while blocks > 0:
        sums, upcoming = zeros_f32(acc), prefetch_address(acc, panel, end, panel_stride)
        for _ in range((min(blocks, RUN) + 1) // 2):  # an odd k is padded with a zero
            _prefetch(acc, upcoming, panel_stride, _PAIRS)
            sums = _dot_pair(sums, panel, panel_stride, x, x_stride)
            panel += _PAIRS
            upcoming += _PAIRS
            x += _STEP
        acc = acc + sums
        blocks -= RUN
    return acc


FORMAT = make_format("bf16", 30, 1, 2, BFloat16Pairs() if _BF16 else Float32(),
                     quantize_block=quantize_block, dequantize_block=dequantize_block,
                     dequantize_blocks=float_decoder("bf16", 2, panel_bf16, dequantize_block),
                     pack_block=pack_block, tile=tile, panels=FLOAT_PANELS, adjacent_blocks=2)
