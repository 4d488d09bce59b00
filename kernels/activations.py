"""Activations in the form that a matmul takes: int8 for integer weights, rounded to float16 or bfloat16 for those.

Rounding is as in llama.cpp's CPU backend, so that a model gives the same text in both.
"""

from dataclasses import dataclass

from .jit import device, row_kernel  # before Numba itself, whose errors it explains
from numba import float32, int32

from .simd import LANES, absolute, fma, get_i64, load_f32, maximum, nearest_f16, put_f32, put_i32
from .simd import reduce_add, reduce_add_i32, reduce_max, rint, round_f16, splat_f32, splat_i32, store_bf16, store_f32
from .simd import store_i8, to_i32

BLOCK = 32
SCALE = 32  # byte offset of a block's scale, after its 32 int8 values
BIAS = SUM = 36  # byte offset of its first bias, or of its sum
ROW_SCALE, ROW_BIAS, ROW_VALUES = 0, 4, 8  # byte offsets in a row of Int8Rows
_LEAST_PEAK = float32(1e-5)  # lower bound of a row's largest magnitude (BitNet's training code)
_VECTORS = BLOCK // LANES
_HALF = _VECTORS // 2


@dataclass(frozen=True)
class Float32:
    """float32 values, unchanged or rounded to the nearest float16 value."""

    rounded: bool = False


@dataclass(frozen=True)
class Int8Blocks:
    """32 int8 values, their float32 scale, and for each `group` of them an int32 bias, -offset * their sum.

    Unsigned weights are stored with `offset` added. Adding the bias to a sum of products takes the offset out again.
    With `summed`, there is one float32, scale * sum, instead of the biases: for formats with an offset in each block.
    """

    offset: int = 0
    group: int = 32
    summed: bool = False

    @property
    def block_bytes(self) -> int:
        return BIAS + 4 * (BLOCK // self.group)

    def row_bytes(self, width: int) -> int:
        return width // BLOCK * self.block_bytes


@dataclass(frozen=True)
class Int8Rows:
    """One scale and one bias for the whole row, as in Int8Blocks, then the int8 values. BitNet b1.58 is trained so."""

    offset: int

    def row_bytes(self, width: int) -> int:
        return ROW_VALUES + width


@dataclass(frozen=True)
class BFloat16Pairs:
    """Values rounded to bfloat16. An odd number of values is padded with a zero."""

    def row_bytes(self, width: int) -> int:
        return 2 * -(-width // LANES) * LANES


Activation = Float32 | BFloat16Pairs | Int8Blocks | Int8Rows


@device
def _quantize_half(x, out, inverse):
    total = splat_i32(int32(0))
    for i in range(_HALF):
        value = to_i32(rint(load_f32(x + 4 * LANES * i) * inverse))
        store_i8(out + LANES * i, value)
        total = total + value
    return reduce_add_i32(total)


@device
def quantize_block(x, out, offset, group, summed):
    """value = 127 x / max |x| rounded half to even, scale = max |x| / 127 rounded to float16.

    A NaN or an infinity among the values makes the scale NaN.
    """
    largest = splat_f32(float32(0.0))
    nan_or_zero = splat_f32(float32(0.0))  # NaN once a value is not finite, since infinity * 0 is NaN
    for i in range(_VECTORS):
        value = load_f32(x + 4 * LANES * i)
        largest = maximum(absolute(value), largest)
        nan_or_zero = fma(value, splat_f32(float32(0.0)), nan_or_zero)
    peak = reduce_max(largest)
    scale = nearest_f16(peak / float32(127.0) + reduce_add(nan_or_zero))
    inverse = splat_f32(float32(127.0) / peak if peak > 0 else float32(0.0))
    first = _quantize_half(x, out, inverse)
    second = _quantize_half(x + 2 * BLOCK, out + BLOCK // 2, inverse)
    put_f32(out + SCALE, scale)
    if summed:
        put_f32(out + SUM, scale * float32(first + second))
    elif group == BLOCK:
        put_i32(out + BIAS, int32(-offset * (first + second)))
    else:
        put_i32(out + BIAS, int32(-offset * first))
        put_i32(out + BIAS + 4, int32(-offset * second))


@row_kernel
def quantize(work, thread, threads, count, x, x_stride, out, block_bytes, blocks, offset, group, summed):
    """float32 rows [count][32 * blocks], `x_stride` bytes apart, to contiguous rows of blocks at `out`."""
    for token in range(thread, get_i64(count), threads):
        source = x + token * x_stride
        target = out + token * blocks * block_bytes
        for _ in range(blocks):
            quantize_block(source, target, offset, group, summed)
            source += 4 * BLOCK
            target += block_bytes


@device
def _quantize_row(x, out, vectors, offset):
    """value = x * (127 / max |x|) rounded half to even, scale = max |x| / 127.

    A NaN or an infinity among the values makes the scale NaN.
    """
    largest, nan_or_zero = splat_f32(_LEAST_PEAK), splat_f32(float32(0.0))
    for i in range(vectors):
        value = load_f32(x + 4 * LANES * i)
        largest = maximum(absolute(value), largest)
        nan_or_zero = fma(value, splat_f32(float32(0.0)), nan_or_zero)
    peak = reduce_max(largest)
    inverse = splat_f32(float32(127.0) / peak)
    total = splat_i32(int32(0))
    for i in range(vectors):
        value = to_i32(rint(load_f32(x + 4 * LANES * i) * inverse))
        store_i8(out + ROW_VALUES + LANES * i, value)
        total = total + value
    put_f32(out + ROW_SCALE, peak / float32(127.0) + reduce_add(nan_or_zero))
    put_i32(out + ROW_BIAS, int32(-offset * reduce_add_i32(total)))


@row_kernel
def quantize_rows(work, thread, threads, count, x, x_stride, out, out_stride, vectors, offset):
    """float32 rows of whole vectors, `x_stride` bytes apart, to Int8Rows."""
    for token in range(thread, get_i64(count), threads):
        _quantize_row(x + token * x_stride, out + token * out_stride, vectors, offset)


@row_kernel
def round_to_bf16(work, thread, threads, count, x, x_stride, out, out_stride, vectors):
    """float32 rows of whole vectors, `x_stride` bytes apart, to bfloat16."""
    for token in range(thread, get_i64(count), threads):
        for i in range(vectors):
            store_bf16(out + token * out_stride + 2 * LANES * i, load_f32(x + token * x_stride + 4 * LANES * i))


@row_kernel
def round_rows(work, thread, threads, count, x, out, stride, vectors):
    """out = x rounded to the nearest float16 value, still stored as float32."""
    for token in range(thread, get_i64(count), threads):
        for i in range(vectors):
            at = token * stride + 4 * LANES * i
            store_f32(out + at, round_f16(load_f32(x + at)))
