"""Templates for blocks in the file's layout: pack rows into panels, dequantize and quantize."""

from numba import float32

from .jit import hole, template
from .simd import LANES, atomic_add, get_i64, put_f32

pack_block = dequantize_block = quantize_block = quantize_weighted = row_factor = hole()  # functions of a format
panel_block_bytes = adjacent_blocks = header_bytes = block_values = block_bytes = hole()  # its sizes


@template
def pack(work, thread, threads, source, panels, rows, blocks, block_bytes):
    """Pack the contiguous rows of a tensor into panels of LANES rows.

    `pack_block(block, panel block, lane)` and `panel_block_bytes` (of one row) belong to the format. In a panel,
    `adjacent_blocks` blocks of a row lie side by side. Padding stays as it is: zero. With `header_bytes`, 4 of each
    row, a panel begins with the row's factor, a float32: `row_factor(address behind the tensor's last block)`.
    """
    padded = (blocks + adjacent_blocks - 1) // adjacent_blocks * adjacent_blocks
    panel = atomic_add(work, 1)
    while panel * LANES < rows:
        first = panels + panel * LANES * (header_bytes + padded * panel_block_bytes)
        lanes = min(LANES, rows - panel * LANES)
        for lane in range(lanes if header_bytes else 0):
            put_f32(first + 4 * lane, row_factor(source + rows * blocks * block_bytes))
        first += LANES * header_bytes
        for block in range(blocks):
            position = block % adjacent_blocks
            target = first + ((block - position) * LANES + position) * panel_block_bytes
            for lane in range(lanes):
                row = panel * LANES + lane
                pack_block(source + (row * blocks + block) * block_bytes, target, lane)
        panel = atomic_add(work, 1)


@template
def dequantize(work, thread, threads, count, indices, table, blocks, block_bytes, block_values, out, out_stride):
    """out[i] = row indices[i] of a table, as float32. `dequantize_block(block, float32 address)` belongs to the format.

    The padding of out's rows is set to zero: a NaN that an earlier batch left there would spread.
    """
    wanted = get_i64(count)
    item = atomic_add(work, 1)
    while item < wanted:
        source = table + get_i64(indices + 8 * item) * blocks * block_bytes
        target = out + item * out_stride
        for block in range(blocks):
            dequantize_block(source + block * block_bytes, target + 4 * block * block_values)
        for at in range(4 * blocks * block_values, out_stride, 4):
            put_f32(target + at, float32(0.0))
        item = atomic_add(work, 1)


@template
def encode(x, blocks, count):
    """Quantize contiguous float32 values to `count` blocks. `quantize_block(x, block)` belongs to the format."""
    for i in range(count):
        quantize_block(x + 4 * block_values * i, blocks + block_bytes * i)
    return count


@template
def encode_weighted(x, weights, blocks, count):
    """The same, with a weight for each value. `quantize_weighted(x, weights, block)` belongs to the format."""
    for i in range(count):
        quantize_weighted(x + 4 * block_values * i, weights + 4 * block_values * i, blocks + block_bytes * i)
    return count


@template
def decode(blocks, out, count):
    """Dequantize `count` blocks to contiguous float32 values. `dequantize_block(block, out)` belongs to the format."""
    for i in range(count):
        dequantize_block(blocks + block_bytes * i, out + 4 * block_values * i)
    return count
