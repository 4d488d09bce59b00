"""What formats of 4 and 5 bits share: 32 values of each row are four vectors, and their fifth bits are another one.

Byte b of a row's 16 holds value b in its low and value b + 16 in its high nibble; vector i has bytes 4 i .. 4 i + 3.
Byte j of the fifth bits holds those of values j, j + 4, .. j + 28, from its low bit up.
"""

from numba import int32

from ..jit import device, inlined
from ..simd import BY_RUNS, LANES, add_partial_sums, bits, dot4, dot_run, get_i32, panel_bytes, panel_vectors
from ..simd import partial_sums, put_i32, to_rows

NIBBLES = 16  # bytes of a row
FIFTHS = 4
_LOW = 0x0F0F0F0F
_VECTOR = 4 * LANES


@device
def copy_nibbles(source, panel, lane):
    """Copy the nibbles of a block whose order is the same in the file."""
    for i in range(4):
        put_i32(panel + _VECTOR * i + 4 * lane, get_i32(source + 4 * i))


@device
def gather_nibbles(source, high, panel, lane):
    """Gather 32 nibbles from 32 bytes: the high nibble of each if `high` is 1, the low one if it is 0."""
    shift = 4 * high
    for i in range(4):
        first, second = get_i32(source + 4 * i) >> shift & _LOW, get_i32(source + 16 + 4 * i) >> shift & _LOW
        put_i32(panel + _VECTOR * i + 4 * lane, int32(first | second << 4))


@inlined
def add_nibbles(sums, panel, panel_stride, x, x_stride):
    """sums + 32 products."""
    a, b, c, d = panel_vectors(sums, panel, panel_stride, 4)
    return dot_run(sums, (bits(a, 0, 15), bits(b, 0, 15), bits(c, 0, 15), bits(d, 0, 15),
                          bits(a, 4, 15), bits(b, 4, 15), bits(c, 4, 15), bits(d, 4, 15)), x, x_stride)


@inlined
def dot_nibbles(total, panel, panel_stride, x, x_stride):
    """total + 32 products."""
    partial = partial_sums(total)
    partial = add_nibbles(partial, panel, panel_stride, x, x_stride)
    return add_partial_sums(total, partial)


@inlined
def _dot_five_bits(total, fifths, panel, panel_stride, x, x_stride):
    a, b, c, d = panel_vectors(to_rows(total), panel, panel_stride, 4)
    first = bits(a, 0, 15) | bits(fifths, -4, 16), bits(b, 0, 15) | bits(fifths, -3, 16)
    second = bits(c, 0, 15) | bits(fifths, -2, 16), bits(d, 0, 15) | bits(fifths, -1, 16)
    third = bits(a, 4, 15) | bits(fifths, 0, 16), bits(b, 4, 15) | bits(fifths, 1, 16)
    fourth = bits(c, 4, 15) | bits(fifths, 2, 16), bits(d, 4, 15) | bits(fifths, 3, 16)
    partial = dot_run(partial_sums(total), first + second + third + fourth, x, x_stride)
    return add_partial_sums(total, partial)


@inlined
def dot_five_bits(total, panel, panel_stride, x, x_stride):
    """total + 32 products, the fifth bits in front of the nibbles."""
    fifths = panel_bytes(total, panel, panel_stride)
    panel += _VECTOR
    if BY_RUNS:
        return _dot_five_bits(total, fifths, panel, panel_stride, x, x_stride)
    partial = partial_sums(total)
    packed = panel_bytes(total, panel, panel_stride)
    partial = dot4(partial, bits(packed, 0, 15) | bits(fifths, -4, 16), x, x_stride)
    partial = dot4(partial, bits(packed, 4, 15) | bits(fifths, 0, 16), x + 16, x_stride)
    packed = panel_bytes(total, panel + _VECTOR, panel_stride)
    partial = dot4(partial, bits(packed, 0, 15) | bits(fifths, -3, 16), x + 4, x_stride)
    partial = dot4(partial, bits(packed, 4, 15) | bits(fifths, 1, 16), x + 20, x_stride)
    total = add_partial_sums(total, partial)
    partial = partial_sums(total)
    packed = panel_bytes(total, panel + 2 * _VECTOR, panel_stride)
    partial = dot4(partial, bits(packed, 0, 15) | bits(fifths, -2, 16), x + 8, x_stride)
    partial = dot4(partial, bits(packed, 4, 15) | bits(fifths, 2, 16), x + 24, x_stride)
    packed = panel_bytes(total, panel + 3 * _VECTOR, panel_stride)
    partial = dot4(partial, bits(packed, 0, 15) | bits(fifths, -1, 16), x + 12, x_stride)
    partial = dot4(partial, bits(packed, 4, 15) | bits(fifths, 3, 16), x + 28, x_stride)
    return add_partial_sums(total, partial)
