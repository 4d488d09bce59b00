"""Products of 16 tokens at a time, by registers that hold 16 rows of 64 bytes (AMX).

A panel's codes are unpacked once, to int8, for all tokens of a piece of work: one run of blocks after another, so that
they stay in a near cache. Sums of integers are exact, and what follows them is what a format's tile does, in the same
order: so a token's results are the same by either way, and decoding may use the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .activations import LARGE_BYTES, ROW_VALUES, RUN, SCALE, Int8Blocks
from .jit import bind, device, hole, inlined, template  # before Numba itself, whose errors it explains
from numba import int32

from .matmul import LEAST_WIDE, WIDE_TOKENS
from .simd import HIGH_SHIFT, ISA, LANES, alloca, begin_tiles, clear_tile, end_tiles, high_plane, load_f32, load_tile
from .simd import low_plane, multiply_tiles, panel_bytes, read_tile, scale_add, select_or_zero, splat_i32, store_f32
from .simd import store_tile, write_tile, zeros, zeros_i32

_FROM = 33  # tokens: for fewer, unpacking codes to memory costs more than it saves (Emerald Rapids)
_MOST = 256  # tokens that share unpacked codes
_VECTOR = 4 * LANES
_CODES = 36 << 10  # bytes of unpacked codes and scales, of all panels that are multiplied together
_SUMS = WIDE_TOKENS * _VECTOR  # bytes of the sums of a panel and 16 tokens
_PANEL_SUMS = _MOST // WIDE_TOKENS * _SUMS
_ALL_SUMS = 4 * _PANEL_SUMS  # of as many panels as are multiplied together, at most
_HALF = WIDE_TOKENS // 2
_X, _X2, _W, _W2 = 4, 5, 6, 7  # registers of tokens and of weights; those of sums are 0 to 3

multiply_panels = unpack = multiply = result = hole()  # see `_multiplier`
header_bytes = block_bytes = codes_bytes = values_at = values_bytes = depth = panels = run = hole()


@template
def _multiply_panels(tiles, weights, panel_stride, x, x_stride, tokens, blocks, codes, sums):
    """sums = weights . x for a few panels and all tokens."""
    groups = (tokens + WIDE_TOKENS - 1) // WIDE_TOKENS
    for panel in range(panels):
        for at in range(0, groups * _SUMS, _VECTOR):
            store_f32(sums + panel * _PANEL_SUMS + at, zeros(1, 1))
    source, values = weights + header_bytes, x + values_at
    while blocks > 0:
        count = min(blocks, run)
        for panel in range(panels):
            unpack(source + panel * panel_stride, codes + panel * run * codes_bytes, count)
        multiply(tiles, source, codes, values, x_stride, sums, groups, count)
        source += count * block_bytes
        values += count * values_bytes
        blocks -= count


@template
def _wide(weights, x, out, x_stride, out_stride, tokens, first, last, panel_stride, blocks, accumulate):
    """As matmul's `_multiply`, for all tokens but a last few. Returns how many."""
    if tokens < _FROM:
        return 0
    left = tokens % WIDE_TOKENS
    taken = tokens if left >= LEAST_WIDE else tokens - left
    tiles, codes, sums = begin_tiles(depth), alloca(_CODES), alloca(_ALL_SUMS)
    for start in range(0, taken, _MOST):
        count, source = min(taken - start, _MOST), x + start * x_stride
        for i in range(first, last, panels):
            weight, target = weights + i * panel_stride, out + start * out_stride + _VECTOR * i
            multiply_panels(tiles, weight, panel_stride, source, x_stride, count, blocks, codes, sums)
            for panel in range(panels):
                for token in range(0, count, _HALF):
                    at = target + token * out_stride + _VECTOR * panel
                    values = result(weight + panel * panel_stride, source + token * x_stride, x_stride,
                                    sums + panel * _PANEL_SUMS + token * _VECTOR)
                    before = select_or_zero(accumulate, load_tile(values, at, 0, out_stride))
                    store_tile(before + values, at, 0, out_stride)
    end_tiles()
    return taken


@inlined
def _float_sums(weights, x, x_stride, sums):
    return load_tile(zeros(1, _HALF), sums, 0, _VECTOR)


def _multiplier(name: str, *, block_bytes: int, values_bytes: int, unpack: Callable[..., Any],
                multiply: Callable[..., Any], codes_bytes: int, result: Callable[..., Any] = _float_sums,
                header_bytes: int = 0, values_at: int = 0, depth: int = 64,
                panels: int = 1, run: int = 0) -> Callable[..., Any] | None:
    """The way of a format with tile registers; None on paths without them.

    header_bytes, block_bytes: of a panel, before its blocks and of each. values_at, values_bytes: the same of a row of
    activations. depth: values that a product of registers sums up. panels: that are multiplied together.
    run: blocks that are unpacked at a time, by default as many as there is room for.
    unpack(blocks of a panel, codes, count): to `codes_bytes` bytes for each block.
    multiply(tiles, blocks, codes, x, x_stride, sums, groups, count): sums[panel][t] += the blocks . x[t], for groups of
    16 tokens. Sums begin as zeros, and each takes 4 bytes for a row.
    result(panel, x, x_stride, sums): the results of 8 tokens from their sums, as a tile [1][8] of float32.
    """
    if not ISA.tile_registers:
        return None
    several = bind(_multiply_panels, f"wide_panels_{name}", unpack=unpack, multiply=multiply, header_bytes=header_bytes,
                   block_bytes=block_bytes, codes_bytes=codes_bytes, values_at=values_at, values_bytes=values_bytes,
                   panels=panels, run=run or _CODES // codes_bytes)
    return device(bind(_wide, f"wide_{name}", multiply_panels=device(several), result=result, depth=depth,
                       panels=panels))


# ---- blocks of 32 values with a scale of their own: Int8Blocks ----

_HALF_CODES = 32 * LANES  # bytes of the codes of a block
_BLOCK_CODES = _HALF_CODES + _VECTOR  # and of their scales
_ACTIVATION_BYTES = Int8Blocks().block_bytes
_PANELS, _BLOCKS = 4, 16  # panels that are multiplied together, and blocks of each
_PRODUCTS = 4 * _SUMS  # bytes of the sums of so many blocks

unpack_block = hole()


@template
def _unpack_blocks(source, codes, count):
    for _ in range(count):
        unpack_block(source, codes, codes + _HALF_CODES)
        source += block_bytes
        codes += _BLOCK_CODES


@inlined
def _multiply_block(tiles, sums, tokens, codes, weights, x, x_stride):
    """The sums of a block for 16 tokens, in registers that are named by literal numbers."""
    clear_tile(tiles, sums)
    read_tile(tiles, tokens, x, x_stride)
    read_tile(tiles, codes, weights, _VECTOR)
    multiply_tiles(tiles, sums, tokens, codes)


@inlined
def _add_block(acc, products, weights, x, x_stride):
    dots = load_tile(zeros_i32(acc), products, 0, _VECTOR)
    return scale_add(acc, dots, load_f32(weights + _HALF_CODES), x + SCALE, x_stride)


@device
def _add_blocks(tiles, acc, weights, x, x_stride, products, count):
    """acc + the part of `count` blocks of a panel in the results of 16 tokens. Four products hide their latency."""
    whole = count // 4 * 4
    for _ in range(0, whole, 4):
        second, third, fourth = weights + _BLOCK_CODES, weights + 2 * _BLOCK_CODES, weights + 3 * _BLOCK_CODES
        x2, x3, x4 = x + _ACTIVATION_BYTES, x + 2 * _ACTIVATION_BYTES, x + 3 * _ACTIVATION_BYTES
        _multiply_block(tiles, 0, _X, _W, weights, x, x_stride)
        _multiply_block(tiles, 1, _X2, _W2, second, x2, x_stride)
        _multiply_block(tiles, 2, _X, _W, third, x3, x_stride)
        _multiply_block(tiles, 3, _X2, _W2, fourth, x4, x_stride)
        write_tile(tiles, 0, products, _VECTOR)
        write_tile(tiles, 1, products + _SUMS, _VECTOR)
        write_tile(tiles, 2, products + 2 * _SUMS, _VECTOR)
        write_tile(tiles, 3, products + 3 * _SUMS, _VECTOR)
        acc = _add_block(acc, products, weights, x, x_stride)
        acc = _add_block(acc, products + _SUMS, second, x2, x_stride)
        acc = _add_block(acc, products + 2 * _SUMS, third, x3, x_stride)
        acc = _add_block(acc, products + 3 * _SUMS, fourth, x4, x_stride)
        weights += 4 * _BLOCK_CODES
        x += 4 * _ACTIVATION_BYTES
    for _ in range(whole, count):
        _multiply_block(tiles, 0, _X, _W, weights, x, x_stride)
        write_tile(tiles, 0, products, _VECTOR)
        acc = _add_block(acc, products, weights, x, x_stride)
        weights += _BLOCK_CODES
        x += _ACTIVATION_BYTES
    return acc


@device
def _multiply_blocks(tiles, source, codes, x, x_stride, sums, groups, count):
    """Four panels for each group of tokens, whose values stay in the first-level cache meanwhile."""
    products = alloca(_PRODUCTS)
    for group in range(groups):
        for panel in range(_PANELS):
            target = sums + group * _SUMS + panel * _PANEL_SUMS
            acc = load_tile(zeros(1, WIDE_TOKENS), target, 0, _VECTOR)
            acc = _add_blocks(tiles, acc, codes + panel * _BLOCKS * _BLOCK_CODES, x + group * WIDE_TOKENS * x_stride,
                              x_stride, products, count)
            store_tile(acc, target, 0, _VECTOR)


def wide_blocks(name: str, block_bytes: int, unpack_block: Callable[..., Any]) -> Callable[..., Any] | None:
    """For formats with blocks of 32 values, whose products are summed up and multiplied by one scale.

    unpack_block(block of a panel, codes, scales): 8 vectors of signed codes, in order, and one of float32 scales.
    """
    unpack = bind(_unpack_blocks, f"unpack_{name}", block_bytes=block_bytes, unpack_block=unpack_block)
    return _multiplier(name, block_bytes=block_bytes, values_bytes=_ACTIVATION_BYTES, unpack=device(unpack),
                       multiply=_multiply_blocks, codes_bytes=_BLOCK_CODES, depth=32, panels=_PANELS, run=_BLOCKS)


# ---- blocks of 256 values with integer scales for groups of them: LargeInt8Blocks ----

_PLANE = 64 * LANES  # bytes of 64 values of a panel
_PARTS = 4  # of so many values
_LARGE_CODES = 2 * _PARTS * _PLANE

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


@inlined
def _clear_sums(tiles):
    clear_tile(tiles, 0)
    clear_tile(tiles, 1)
    clear_tile(tiles, 2)
    clear_tile(tiles, 3)


@template
def _add_large_block(low, high, source, x, x_stride, sums):
    """sums += the block's part of the results of 16 tokens, from their sums of both planes."""
    shift = splat_i32(int32(HIGH_SHIFT))
    for token in range(0, WIDE_TOKENS, _HALF):
        at = token * _VECTOR
        acc = load_tile(zeros(1, _HALF), sums + at, 0, _VECTOR)
        total = load_tile(zeros_i32(acc), low + at, 0, _VECTOR)
        total = total + (load_tile(zeros_i32(acc), high + at, 0, _VECTOR) << shift)
        store_tile(add_block(acc, total, source, 0, x + token * x_stride, x_stride), sums + at, 0, _VECTOR)


add_large_block = hole()


@template
def _multiply_large(tiles, source, codes, x, x_stride, sums, groups, count):
    """Two groups of tokens at a time: four chains of products hide each other's latency."""
    low, high, low2, high2 = alloca(_SUMS), alloca(_SUMS), alloca(_SUMS), alloca(_SUMS)
    for group in range(0, groups, 2):
        both = group + 1 < groups
        weights, block, target = codes, source, sums + group * _SUMS
        values = x + group * WIDE_TOKENS * x_stride
        second = values + WIDE_TOKENS * x_stride if both else values
        for _ in range(count):
            _clear_sums(tiles)
            for part in range(_PARTS):
                read_tile(tiles, _X, values + RUN * part, x_stride)
                read_tile(tiles, _W, weights, _VECTOR)
                read_tile(tiles, _W2, weights + _PLANE, _VECTOR)
                multiply_tiles(tiles, 0, _X, _W)
                multiply_tiles(tiles, 1, _X, _W2)
                if both:
                    read_tile(tiles, _X2, second + RUN * part, x_stride)
                    multiply_tiles(tiles, 2, _X2, _W)
                    multiply_tiles(tiles, 3, _X2, _W2)
                weights += 2 * _PLANE
            write_tile(tiles, 0, low, _VECTOR)
            write_tile(tiles, 1, high, _VECTOR)
            if both:
                write_tile(tiles, 2, low2, _VECTOR)
                write_tile(tiles, 3, high2, _VECTOR)
                add_large_block(low2, high2, block, second, x_stride, target + _SUMS)
            add_large_block(low, high, block, values, x_stride, target)
            block += block_bytes
            values += LARGE_BYTES
            second += LARGE_BYTES


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
    add = bind(_add_large_block, f"add_large_block_{name}", add_block=add_block)
    multiply = bind(_multiply_large, f"multiply_large_{name}", block_bytes=block_bytes, add_large_block=device(add))
    return _multiplier(name, block_bytes=block_bytes, values_bytes=LARGE_BYTES, unpack=device(unpack),
                           multiply=device(multiply), codes_bytes=_LARGE_CODES)


# ---- whole rows of integers: Int8Rows ----


_RUN_CODES = 16 << 10  # bytes of the codes of a panel that are multiplied together


@device
def _multiply_rows(tiles, source, codes, x, x_stride, sums, groups, count):
    """Two panels, and two groups of tokens at a time: four chains of products hide each other's latency."""
    for group in range(0, groups, 2):
        both, target = group + 1 < groups, sums + group * _SUMS
        values = x + group * WIDE_TOKENS * x_stride
        second = values + WIDE_TOKENS * x_stride if both else values
        read_tile(tiles, 0, target, _VECTOR)
        read_tile(tiles, 1, target + _PANEL_SUMS, _VECTOR)
        read_tile(tiles, 2, target + _SUMS, _VECTOR)
        read_tile(tiles, 3, target + _PANEL_SUMS + _SUMS, _VECTOR)
        for step in range(2 * count):
            read_tile(tiles, _X, values + 64 * step, x_stride)
            read_tile(tiles, _W, codes + _PLANE * step, _VECTOR)
            read_tile(tiles, _W2, codes + _PLANE * step + _RUN_CODES, _VECTOR)
            multiply_tiles(tiles, 0, _X, _W)
            multiply_tiles(tiles, 1, _X, _W2)
            if both:
                read_tile(tiles, _X2, second + 64 * step, x_stride)
                multiply_tiles(tiles, 2, _X2, _W)
                multiply_tiles(tiles, 3, _X2, _W2)
        write_tile(tiles, 0, target, _VECTOR)
        write_tile(tiles, 1, target + _PANEL_SUMS, _VECTOR)
        if both:
            write_tile(tiles, 2, target + _SUMS, _VECTOR)
            write_tile(tiles, 3, target + _PANEL_SUMS + _SUMS, _VECTOR)


def wide_rows(name: str, block_bytes: int, header_bytes: int, unpack: Callable[..., Any],
              result: Callable[..., Any]) -> Callable[..., Any] | None:
    """For formats with blocks of 128 codes without a scale, whose sums over a row are integers.

    unpack, result: as in `_multiplier`. Codes are signed, and those of a block are 32 vectors, in order.
    """
    return _multiplier(name, header_bytes=header_bytes, block_bytes=block_bytes, values_at=ROW_VALUES, values_bytes=128,
                       unpack=unpack, multiply=_multiply_rows, codes_bytes=2 * _PLANE, result=result, panels=2,
                       run=_RUN_CODES // (2 * _PLANE))
