"""Activations in the form that a matmul takes: int8 for integer weights, rounded to float16 or bfloat16 for those.

Rounding is as in llama.cpp's CPU backend, so that a model gives the same text in both.

Where instructions multiply matrices (simd.PAIRS), rows of int8 lie in memory two at a time: pieces of 8 bytes of one
and of the other alternate. `spread` tells how far a byte of a row is from its first one. The sums that such an
instruction gives are of two tokens and two rows of weights: so scales and biases are there twice, one after the other.
"""

from dataclasses import dataclass

from .jit import device, inlined, row_kernel  # before Numba itself, whose errors it explains
from numba import float32, int32, uint16

from .simd import BIAS_BASE, BIAS_LANES, LANES, PAIRS, PIECE, absolute, fma, get_i64, load_f32, maximum, nearest_f16
from .simd import put_f32, put_i32, put_u16, reduce_add, reduce_add_i32, reduce_max, rint, round_f16, splat_f32
from .simd import splat_i32, store_bf16, store_f32, store_i8, to_i32


def _spread(byte: int) -> int:
    """How far a byte of an int8 row is from the row's first one."""
    return byte + byte // PIECE * PIECE if PAIRS else byte


spread = inlined(_spread)
AT = tuple(_spread(byte) for byte in range(129))  # spread(byte), as constants

BLOCK, LARGE_BLOCK = 32, 256  # values of a block of Int8Blocks and of LargeInt8Blocks
_NUMBER = PIECE if PAIRS else 4  # bytes that a scale takes
_BIAS = PIECE if PAIRS else 4 * BIAS_LANES  # that a bias of Int8Blocks takes, as `begin_block` loads it
_RUN = 64 + PIECE + (4 * PIECE if PAIRS else 0)  # of 64 values of LargeInt8Blocks with their biases
_TWO_SUMS = _NUMBER
_LARGE = 4 * _RUN + _NUMBER + 4 * _TWO_SUMS

# Where numbers are, in bytes from the first value of a block of Int8Blocks: its scale; its first bias or its sum.
SCALE, BIAS, SUM = _spread(32), _spread(32 + _NUMBER), _spread(32 + _NUMBER)
BIAS_BYTES = _spread(_BIAS)  # from one bias to the next
# From the first value of a block of LargeInt8Blocks: the next 64 values; biases, and what sums begin with, of the 64
# before; scale and sums of the block; the next block. TWO_STARTS, TWO_SUMS: from two groups' numbers to the next ones.
RUN, BIASES, STARTS, TWO_STARTS = _spread(_RUN), _spread(64), _spread(64 + (PIECE if PAIRS else 0)), 32 if PAIRS else 4
LARGE_SCALE, SUMS, TWO_SUMS = _spread(4 * _RUN), _spread(4 * _RUN + _NUMBER), _spread(_TWO_SUMS)
LARGE_BYTES = _spread(_LARGE)
ROW_SCALE, ROW_BIAS, ROW_VALUES = 0, _spread(_NUMBER), _spread(2 * _NUMBER)  # in a row of Int8Rows
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

    A bias is what vectors of sums begin with.

    Unsigned weights are stored with `offset` added. Adding the bias to a sum of products takes the offset out again.
    With `summed`, there is one float32, scale * sum, instead of the biases: for formats with an offset in each block.
    """

    offset: int = 0
    group: int = 32
    summed: bool = False

    @property
    def block_bytes(self) -> int:
        return BLOCK + _NUMBER + (_NUMBER if self.summed else _BIAS * (BLOCK // self.group))

    @property
    def step(self) -> int:
        """Bytes from a block to the next."""
        return _spread(self.block_bytes)

    def row_bytes(self, width: int) -> int:
        return width // BLOCK * self.block_bytes


@dataclass(frozen=True)
class LargeInt8Blocks:
    """256 int8 values, a bias after each 64 of them, their float32 scale, and for each 32 of them -1 times their sum.

    A bias is four int16, -32 times the sum of each 16 values. Sums are int16, too. Where rows lie in pairs, biases are
    there once more, as int32.

    Formats whose blocks have integer scales for groups of values multiply and add integers up to the end of a block.
    Magnitudes of 16 neighbours add up to MOST_OF_16 at most, so that their products with weights of -32 to 31 have sums
    of 16 bits. Few blocks need a larger scale for it than max |x| / 127: 16 of their values are half as large as the
    largest on average.
    """

    def row_bytes(self, width: int) -> int:
        return width // LARGE_BLOCK * _LARGE


@dataclass(frozen=True)
class Int8Rows:
    """One scale and one bias for the whole row, as in Int8Blocks, then the int8 values. BitNet b1.58 is trained so."""

    offset: int

    def row_bytes(self, width: int) -> int:
        return 2 * _NUMBER + width


@dataclass(frozen=True)
class BFloat16Pairs:
    """Values rounded to bfloat16. An odd number of values is padded with a zero."""

    def row_bytes(self, width: int) -> int:
        return 2 * -(-width // LANES) * LANES


INT8 = (Int8Blocks, LargeInt8Blocks, Int8Rows)  # whose rows lie two at a time where PAIRS is true
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
def row_address(rows, row, row_bytes):
    """Of a row's first byte."""
    if PAIRS:
        return rows + (row - row % 2) * row_bytes + row % 2 * PIECE
    return rows + row * row_bytes


@device
def _quantize_half(x, out, inverse):
    total = splat_i32(int32(0))
    for i in range(_HALF):
        value = to_i32(rint(load_f32(x + 4 * LANES * i) * inverse))
        store_i8(out + spread(LANES * i), value)
        total = total + value
    return reduce_add_i32(total)


@device
def _put_bias(address, bias):
    for lane in range(_BIAS // 4):
        put_i32(address + 4 * lane, int32(BIAS_BASE + bias))


@device
def _put_number(address, number):
    put_f32(address, number)
    if PAIRS:
        put_f32(address + 4, number)


@device
def _put_integer(address, number):
    put_i32(address, number)
    if PAIRS:
        put_i32(address + 4, number)


@device
def quantize_block(x, out, offset, group, summed):
    """value = 127 x / max |x| rounded half to even, scale = max |x| / 127 rounded to float16.

    A NaN or an infinity among the values makes the scale NaN.
    """
    peak, nan_or_zero = _peak(x, _VECTORS, float32(0.0))
    scale = nearest_f16(peak / float32(127.0) + nan_or_zero)
    inverse = splat_f32(float32(127.0) / peak if peak > 0 else float32(0.0))
    first = _quantize_half(x, out, inverse)
    second = _quantize_half(x + 2 * BLOCK, out + spread(BLOCK // 2), inverse)
    _put_number(out + SCALE, scale)
    if summed:
        _put_number(out + SUM, scale * float32(first + second))
    elif group == BLOCK:
        _put_bias(out + BIAS, -offset * (first + second))
    else:
        _put_bias(out + BIAS, -offset * first)
        _put_bias(out + BIAS + BIAS_BYTES, -offset * second)


@row_kernel
def quantize(work, thread, threads, count, x, x_stride, out, block_bytes, blocks, offset, group, summed):
    """float32 rows [count][32 * blocks], `x_stride` bytes apart, to rows of blocks at `out`."""
    for token in range(thread, get_i64(count), threads):
        source = x + token * x_stride
        target = row_address(out, token, blocks * block_bytes)
        for _ in range(blocks):
            quantize_block(source, target, offset, group, summed)
            source += 4 * BLOCK
            target += spread(block_bytes)


@device
def _large_values(x, out, inverse):
    """Store values and sums of a large block. Return the largest sum of magnitudes of 16 values, a whole number."""
    before, largest = int32(0), float32(0.0)
    for group in range(LARGE_BLOCK // 16):
        total, magnitudes = splat_i32(int32(0)), splat_f32(float32(0.0))
        for i in range(16 * group, 16 * group + 16, LANES):
            rounded = rint(load_f32(x + 4 * i) * splat_f32(inverse))
            value = to_i32(rounded)
            store_i8(out + group // 4 * RUN + spread(i % 64), value)
            total, magnitudes = total + value, magnitudes + absolute(rounded)
        largest = max(largest, reduce_add(magnitudes))
        half = reduce_add_i32(total)
        put_u16(out + RUN * (group // 4) + BIASES + 2 * (group % 4), uint16(-32 * half))
        if PAIRS:
            _put_integer(out + RUN * (group // 4) + STARTS + TWO_STARTS // 2 * (group % 4), int32(-32 * half))
        if group % 2:
            put_u16(out + SUMS + TWO_SUMS * (group // 4) + group % 4 - 1, uint16(-half - before))
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
    _put_number(out + LARGE_SCALE, (float32(1.0) / inverse if peak > _NEGLIGIBLE else float32(0.0)) + nan_or_zero)


@row_kernel
def quantize_large(work, thread, threads, count, x, x_stride, out, blocks):
    """float32 rows [count][256 * blocks], `x_stride` bytes apart, to rows of LargeInt8Blocks at `out`."""
    for token in range(thread, get_i64(count), threads):
        target = row_address(out, token, blocks * _LARGE)
        for block in range(blocks):
            _quantize_large_block(x + token * x_stride + 4 * LARGE_BLOCK * block, target + LARGE_BYTES * block)


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
        store_i8(out + ROW_VALUES + spread(LANES * i), value)
        total = total + value
    _put_number(out + ROW_SCALE, peak / float32(127.0) + nan_or_zero)
    _put_integer(out + ROW_BIAS, int32(-offset * reduce_add_i32(total)))


@row_kernel
def quantize_rows(work, thread, threads, count, x, x_stride, out, out_stride, vectors, offset):
    """float32 rows of whole vectors, `x_stride` bytes apart, to Int8Rows."""
    for token in range(thread, get_i64(count), threads):
        _quantize_row(x + token * x_stride, row_address(out, token, out_stride), vectors, offset)


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
