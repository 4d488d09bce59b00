"""Activations in the form that a matmul takes: int8 for integer weights, rounded to float16 or bfloat16 for those.

Rounding is as in llama.cpp's CPU backend, so that a model gives the same text in both.
"""

from dataclasses import dataclass

from .jit import device, row_kernel  # before Numba itself, whose errors it explains
from numba import float32, int32, uint16

from .simd import BIAS_BASE, BIAS_LANES, LANES, absolute, fma, get_i64, load_f32, maximum, nearest_f16, put_f32
from .simd import put_i32, put_u16, reduce_add, reduce_add_i32, reduce_max, rint, round_f16, splat_f32, splat_i32
from .simd import store_bf16, store_f32, store_i8, to_i32

BLOCK = 32
SCALE = 32  # byte offset of a block's scale, after its 32 int8 values
BIAS = SUM = 36  # byte offset of its first bias, or of its sum
BIAS_BYTES = 4 * BIAS_LANES  # of a bias, as `begin_block` takes it
ROW_SCALE, ROW_BIAS, ROW_VALUES = 0, 4, 8  # byte offsets in a row of Int8Rows
LARGE_BLOCK, LARGE_BYTES = 256, 308  # values and bytes of a block of LargeInt8Blocks
RUN, BIASES = 72, 64  # bytes of 64 values with their biases, and of these values
LARGE_SCALE, SUMS = 288, 292  # byte offsets in a block of LargeInt8Blocks, after its values
MOST_OF_16 = 1023  # the largest sum of magnitudes of 16 values of LargeInt8Blocks
_NEGLIGIBLE = float32(1e-36)  # the largest peak of a large block that counts as zero: 127 / it is finite
_SHRUNK = 1006  # what such a sum is scaled down to: rounding, before and after, may add 8 twice
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

    A bias takes BIAS_BYTES: what vectors of sums begin with.

    Unsigned weights are stored with `offset` added. Adding the bias to a sum of products takes the offset out again.
    With `summed`, there is one float32, scale * sum, instead of the biases: for formats with an offset in each block.
    """

    offset: int = 0
    group: int = 32
    summed: bool = False

    @property
    def block_bytes(self) -> int:
        return BIAS + (4 if self.summed else BIAS_BYTES * (BLOCK // self.group))

    def row_bytes(self, width: int) -> int:
        return width // BLOCK * self.block_bytes


@dataclass(frozen=True)
class LargeInt8Blocks:
    """256 int8 values, a bias after each 64 of them, their float32 scale, and for each 32 of them -1 times their sum.

    A bias is four int16, -32 times the sum of each 16 values. Sums are int16, too.

    Formats whose blocks have integer scales for groups of values multiply and add integers up to the end of a block.
    Magnitudes of 16 neighbours add up to MOST_OF_16 at most, so that their products with weights of -32 to 31 have sums
    of 16 bits. Few blocks need a larger scale for it than max |x| / 127: 16 of their values are half as large as the
    largest on average.
    """

    def row_bytes(self, width: int) -> int:
        return width // LARGE_BLOCK * LARGE_BYTES


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


Activation = Float32 | BFloat16Pairs | Int8Blocks | LargeInt8Blocks | Int8Rows


@device
def _peak(x, vectors, least):
    """max |x|, at least `least`; and 0, or NaN if a value is a NaN or an infinity: infinity * 0 is NaN."""
    largest, nan_or_zero = splat_f32(least), splat_f32(float32(0.0))
    for i in range(vectors):
        value = load_f32(x + 4 * LANES * i)
        largest = maximum(absolute(value), largest)
        nan_or_zero = fma(value, splat_f32(float32(0.0)), nan_or_zero)
    return reduce_max(largest), reduce_add(nan_or_zero)


@device
def _quantize_half(x, out, inverse):
    total = splat_i32(int32(0))
    for i in range(_HALF):
        value = to_i32(rint(load_f32(x + 4 * LANES * i) * inverse))
        store_i8(out + LANES * i, value)
        total = total + value
    return reduce_add_i32(total)


@device
def _put_bias(address, bias):
    for lane in range(BIAS_LANES):
        put_i32(address + 4 * lane, int32(BIAS_BASE + bias))


@device
def quantize_block(x, out, offset, group, summed):
    """value = 127 x / max |x| rounded half to even, scale = max |x| / 127 rounded to float16.

    A NaN or an infinity among the values makes the scale NaN.
    """
    peak, nan_or_zero = _peak(x, _VECTORS, float32(0.0))
    scale = nearest_f16(peak / float32(127.0) + nan_or_zero)
    inverse = splat_f32(float32(127.0) / peak if peak > 0 else float32(0.0))
    first = _quantize_half(x, out, inverse)
    second = _quantize_half(x + 2 * BLOCK, out + BLOCK // 2, inverse)
    put_f32(out + SCALE, scale)
    if summed:
        put_f32(out + SUM, scale * float32(first + second))
    elif group == BLOCK:
        _put_bias(out + BIAS, -offset * (first + second))
    else:
        _put_bias(out + BIAS, -offset * first)
        _put_bias(out + BIAS + BIAS_BYTES, -offset * second)


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
def _large_values(x, out, inverse):
    """Store values and sums of a large block. Return the largest sum of magnitudes of 16 values, a whole number."""
    before, largest = int32(0), float32(0.0)
    for group in range(LARGE_BLOCK // 16):
        total, magnitudes = splat_i32(int32(0)), splat_f32(float32(0.0))
        for i in range(16 * group, 16 * group + 16, LANES):
            rounded = rint(load_f32(x + 4 * i) * splat_f32(inverse))
            value = to_i32(rounded)
            store_i8(out + i + group // 4 * (RUN - 64), value)
            total, magnitudes = total + value, magnitudes + absolute(rounded)
        largest = max(largest, reduce_add(magnitudes))
        half = reduce_add_i32(total)
        put_u16(out + RUN * (group // 4) + BIASES + 2 * (group % 4), uint16(-32 * half))
        if group % 2:
            put_u16(out + SUMS + group - 1, uint16(-half - before))
        before = half
    return largest


@device
def _quantize_large_block(x, out):
    """value = x * inverse rounded half to even, scale = 1 / inverse; inverse = 127 / max |x|, or less for MOST_OF_16.

    A NaN or an infinity among the values makes the scale NaN.
    """
    peak, nan_or_zero = _peak(x, LARGE_BLOCK // LANES, float32(0.0))
    inverse = float32(127.0) / peak if peak > _NEGLIGIBLE else float32(0.0)
    largest = _large_values(x, out, inverse)
    if largest > float32(MOST_OF_16):
        inverse *= float32(_SHRUNK) / largest
        _large_values(x, out, inverse)
    put_f32(out + LARGE_SCALE, (float32(1.0) / inverse if peak > _NEGLIGIBLE else float32(0.0)) + nan_or_zero)


@row_kernel
def quantize_large(work, thread, threads, count, x, x_stride, out, blocks):
    """float32 rows [count][256 * blocks], `x_stride` bytes apart, to contiguous rows of LargeInt8Blocks at `out`."""
    for token in range(thread, get_i64(count), threads):
        for block in range(blocks):
            _quantize_large_block(x + token * x_stride + 4 * LARGE_BLOCK * block,
                                  out + (token * blocks + block) * LARGE_BYTES)


@device
def _quantize_row(x, out, vectors, offset):
    """value = x * (127 / max |x|) rounded half to even, scale = max |x| / 127.

    A NaN or an infinity among the values makes the scale NaN.
    """
    peak, nan_or_zero = _peak(x, vectors, _LEAST_PEAK)
    inverse = splat_f32(float32(127.0) / peak)
    total = splat_i32(int32(0))
    for i in range(vectors):
        value = to_i32(rint(load_f32(x + 4 * LANES * i) * inverse))
        store_i8(out + ROW_VALUES + LANES * i, value)
        total = total + value
    put_f32(out + ROW_SCALE, peak / float32(127.0) + nan_or_zero)
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
