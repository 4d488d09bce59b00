"""Products of 16 tokens at a time, by registers that hold 16 rows of 64 bytes (AMX).

A panel's codes are unpacked once, to int8, for all tokens of a piece of work: one run of blocks after another, so that
they stay in a near cache. Sums of integers are exact, and what follows them is what a format's tile does, in the same
order: so a token's results are the same by either way, and decoding may use the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .activations import LARGE_BYTES, RUN, SCALE, Int8Blocks
from .jit import bind, device, hole, inlined, template  # before Numba itself, whose errors it explains
from numba import int32

from .matmul import WIDE_TOKENS
from .simd import HIGH_SHIFT, ISA, LANES, TILE_CODES, TILE_CODES_2, TILE_HALF_CODES, TILE_HALF_TOKENS, TILE_SUMS, TILE_SUMS_2
from .simd import TILE_TOKENS, alloca, begin_tiles, clear_tile, end_tiles, high_plane, load_f32, load_tile
from .simd import low_plane, multiply_tiles, panel_bytes, read_tile, scale_add, select_or_zero, splat_i32, store_f32
from .simd import store_tile, write_tile, zeros, zeros_i32

_LEAST = 9  # tokens: fewer are faster in other tiles
_MOST = 256  # tokens that share unpacked codes
_VECTOR = 4 * LANES
_CODES = 36 << 10  # bytes of unpacked codes and scales
_SUMS = 4 * LANES * WIDE_TOKENS  # bytes of the sums of a panel and 16 tokens
_ALL_SUMS = _MOST // WIDE_TOKENS * _SUMS
_HALF = WIDE_TOKENS // 2

panel = unpack = multiply = result = hole()  # see `wide_multiplier`
header_bytes = block_bytes = values_at = values_bytes = run = hole()  # run: blocks that are unpacked at a time


@template
def _panel(tiles, weights, x, x_stride, tokens, blocks, codes, sums):
    """sums[t] = weights . x[t] for a panel and all tokens."""
    for at in range(0, (tokens + WIDE_TOKENS - 1) // WIDE_TOKENS * _SUMS, _VECTOR):
        store_f32(sums + at, zeros(1, 1))
    source, values = weights + header_bytes, x + values_at
    while blocks > 0:
        count = min(blocks, run)
        unpack(source, codes, count)
        for group in range(0, (tokens + WIDE_TOKENS - 1) // WIDE_TOKENS):
            multiply(tiles, source, codes, values + group * WIDE_TOKENS * x_stride, x_stride, sums + group * _SUMS,
                     count)
        source += count * block_bytes
        values += count * values_bytes
        blocks -= count


@template
def _wide(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate):
    """As matmul's `_multiply`, for all tokens but a last few. Returns how many."""
    left = tokens % WIDE_TOKENS
    taken = tokens if left >= _LEAST else tokens - left
    if taken == 0:
        return 0
    tiles, codes, sums = begin_tiles(), alloca(_CODES), alloca(_ALL_SUMS)
    for start in range(0, taken, _MOST):
        count, source = min(taken - start, _MOST), x + start * x_stride
        for i in range(first, last):
            weight = weights + i * panel_stride
            panel(tiles, weight, source, x_stride, count, blocks, codes, sums)
            for token in range(0, count, _HALF):
                target = out + (start + token) * out_stride + _VECTOR * i
                values = result(weight, source + token * x_stride, x_stride, sums + token * _VECTOR)
                before = select_or_zero(accumulate, load_tile(values, target, 0, out_stride))
                store_tile(before + values, target, 0, out_stride)
    end_tiles()
    return taken


@inlined
def _float_sums(weights, x, x_stride, sums):
    return load_tile(zeros(1, _HALF), sums, 0, _VECTOR)


def wide_multiplier(name: str, *, block_bytes: int, values_bytes: int, unpack: Callable[..., Any],
                    multiply: Callable[..., Any], codes_bytes: int, result: Callable[..., Any] = _float_sums,
                    header_bytes: int = 0, values_at: int = 0) -> Callable[..., Any] | None:
    """The way of a format with tile registers; None on paths without them.

    header_bytes, block_bytes: of a panel, before its blocks and of each. values_at, values_bytes: the same of a row of
    activations.
    unpack(blocks of a panel, codes, count): to `codes_bytes` bytes for each block.
    multiply(tiles, blocks, codes, x, x_stride, sums, count): sums[t] += the blocks . x[t], for 16 tokens; sums begin as
    zeros, and each takes 4 bytes for a row.
    result(panel, x, x_stride, sums): the results of 8 tokens from their sums, as a tile [1][8] of float32.
    """
    if not ISA.tile_registers:
        return None
    one = bind(_panel, f"wide_panel_{name}", unpack=unpack, multiply=multiply, header_bytes=header_bytes,
               block_bytes=block_bytes, values_at=values_at, values_bytes=values_bytes, run=_CODES // codes_bytes)
    return device(bind(_wide, f"wide_{name}", panel=device(one), result=result))


# ---- blocks of 32 values with a scale of their own: Int8Blocks ----

_HALF_CODES = 32 * LANES  # bytes of the codes of a block
BLOCK_CODES = _HALF_CODES + _VECTOR  # and of their scales
_ACTIVATION_BYTES = Int8Blocks().block_bytes

unpack_block = hole()


@template
def _unpack_blocks(source, codes, count):
    for _ in range(count):
        unpack_block(source, codes, codes + _HALF_CODES)
        source += block_bytes
        codes += BLOCK_CODES


@device
def _multiply_blocks(tiles, source, codes, x, x_stride, sums, count):
    products = alloca(_SUMS)
    acc = load_tile(zeros(1, WIDE_TOKENS), sums, 0, _VECTOR)
    for _ in range(count):
        clear_tile(tiles, TILE_SUMS)
        read_tile(tiles, TILE_HALF_TOKENS, x, x_stride)
        read_tile(tiles, TILE_HALF_CODES, codes, _VECTOR)
        multiply_tiles(tiles, TILE_SUMS, TILE_HALF_TOKENS, TILE_HALF_CODES)
        write_tile(tiles, TILE_SUMS, products, _VECTOR)
        dots = load_tile(zeros_i32(acc), products, 0, _VECTOR)
        acc = scale_add(acc, dots, load_f32(codes + _HALF_CODES), x + SCALE, x_stride)
        codes += BLOCK_CODES
        x += _ACTIVATION_BYTES
    store_tile(acc, sums, 0, _VECTOR)


def wide_blocks(name: str, block_bytes: int, unpack_block: Callable[..., Any]) -> Callable[..., Any] | None:
    """For formats with blocks of 32 values, whose products are summed up and multiplied by one scale.

    unpack_block(block of a panel, codes, scales): 8 vectors of signed codes, in order, and one of float32 scales.
    """
    unpack = bind(_unpack_blocks, f"unpack_{name}", block_bytes=block_bytes, unpack_block=unpack_block)
    return wide_multiplier(name, block_bytes=block_bytes, values_bytes=_ACTIVATION_BYTES,
                           unpack=device(unpack), multiply=_multiply_blocks, codes_bytes=BLOCK_CODES)


# ---- blocks of 256 values with integer scales for groups of them: LargeInt8Blocks ----

_PLANE = 64 * LANES  # bytes of 64 values of a panel
_PARTS = 4  # of so many values
LARGE_CODES = 2 * _PARTS * _PLANE

unpack_values = add_block = part_bytes = hole()


@template
def _unpack_large(source, codes, count):
    for _ in range(count):
        part = source + header_bytes
        for _ in range(_PARTS):
            unpack_values(part, codes, codes + _PLANE)
            part += part_bytes
            codes += 2 * _PLANE
        source += block_bytes


@template
def _multiply_large(tiles, source, codes, x, x_stride, sums, count):
    low, high, shift = alloca(_SUMS), alloca(_SUMS), splat_i32(int32(HIGH_SHIFT))
    for _ in range(count):
        clear_tile(tiles, TILE_SUMS)
        clear_tile(tiles, TILE_SUMS_2)
        for part in range(_PARTS):
            read_tile(tiles, TILE_TOKENS, x + RUN * part, x_stride)
            read_tile(tiles, TILE_CODES, codes, _VECTOR)
            read_tile(tiles, TILE_CODES_2, codes + _PLANE, _VECTOR)
            multiply_tiles(tiles, TILE_SUMS, TILE_TOKENS, TILE_CODES)
            multiply_tiles(tiles, TILE_SUMS_2, TILE_TOKENS, TILE_CODES_2)
            codes += 2 * _PLANE
        write_tile(tiles, TILE_SUMS, low, _VECTOR)
        write_tile(tiles, TILE_SUMS_2, high, _VECTOR)
        for token in range(0, WIDE_TOKENS, _HALF):
            at = token * _VECTOR
            acc = load_tile(zeros(1, _HALF), sums + at, 0, _VECTOR)
            total = load_tile(zeros_i32(acc), low + at, 0, _VECTOR)
            total = total + (load_tile(zeros_i32(acc), high + at, 0, _VECTOR) << shift)
            acc = add_block(acc, total, source, 0, x + token * x_stride, x_stride)
            store_tile(acc, sums + at, 0, _VECTOR)
        source += block_bytes
        x += LARGE_BYTES


offset = hole()


@template
def _split_products(scales, which, low, high, first, last):
    like = zeros(1, 1)
    for i in range(first, last):
        codes = panel_bytes(like, low + _VECTOR * i, 0)
        store_tile(high_plane(codes, scales, which, offset), high + _VECTOR * i, 0, 0)
        store_tile(low_plane(codes, scales, which, offset), low + _VECTOR * i, 0, 0)


def product_splitter(offset: int) -> Callable[..., Any]:
    """split(scales, which, low, high, first, last): codes to both planes of (code - offset) * scale.

    Vectors `first` to `last` of codes lie where their low planes go. scales, which: as `simd.low_plane` takes them.
    """
    return inlined(bind(_split_products, f"split_products_{offset}", offset=offset))


def wide_large_blocks(name: str, block_bytes: int, header_bytes: int, unpack_values: Callable[..., Any],
                      add_block: Callable[..., Any]) -> Callable[..., Any] | None:
    """For formats with blocks of 256 values in four equal parts, after a header.

    unpack_values(part of a block, low, high): codes times their integer scales, as two planes of 16 vectors, in order:
    low + (high << HIGH_SHIFT), signed bytes both.
    add_block(acc, total, block, panel stride, x, x_stride): acc + the block's part of the result, from its sums.
    """
    unpack = bind(_unpack_large, f"unpack_{name}", block_bytes=block_bytes, header_bytes=header_bytes,
                  part_bytes=(block_bytes - header_bytes) // _PARTS, unpack_values=unpack_values)
    multiply = bind(_multiply_large, f"multiply_large_{name}", block_bytes=block_bytes, add_block=add_block)
    return wide_multiplier(name, block_bytes=block_bytes, values_bytes=LARGE_BYTES, unpack=device(unpack),
                           multiply=device(multiply), codes_bytes=LARGE_CODES)


# ---- whole rows of integers: Int8Rows ----


@device
def multiply_rows(tiles, source, codes, x, x_stride, sums, count):
    """`multiply` for blocks of 128 signed codes, whose sums of products stay integers."""
    read_tile(tiles, TILE_SUMS, sums, _VECTOR)
    for _ in range(2 * count):
        read_tile(tiles, TILE_TOKENS, x, x_stride)
        read_tile(tiles, TILE_CODES, codes, _VECTOR)
        multiply_tiles(tiles, TILE_SUMS, TILE_TOKENS, TILE_CODES)
        codes += _PLANE
        x += 64
    write_tile(tiles, TILE_SUMS, sums, _VECTOR)
