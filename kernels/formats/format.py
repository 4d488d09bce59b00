"""What a block format is: data about its blocks, and kernels made from its functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..activations import INT8, Activation
from ..error_feedback import Grid, sweeper
from ..isa import TILES
from ..jit import Kernel, bind, device, kernel, native  # before Numba itself, whose errors it explains
from numba import float32

from ..matmul import matmul, matmul_experts, multiplier
from ..rows import decode, dequantize, encode, encode_weighted, pack
from ..simd import ISA, LANES, PAIRS


def _grouped_panels() -> tuple[int, int, int, int]:
    """Panels of tiles that need an integer total beside each sum of products: 16 of both do not fit in registers.

    On Arm eight of both leave too few for weights that are unpacked once for all tokens. With products of matrices they
    do not: there the sums of a group go to the total before the next group begins.
    """
    if ISA.arm or PAIRS:
        return int(PAIRS), 1, 1, 2
    eight, four, two, one = (panels if panels * tokens < 16 else panels // 2
                             for panels, tokens in zip(ISA.tile_panels, TILES, strict=True))
    return eight, four, two, one


GROUPED_PANELS = _grouped_panels()
FLOAT_PANELS = (2, 2, 4, 4) if ISA.arm else ISA.tile_panels  # more sums, as each waits for the one before


@dataclass(frozen=True)
class Format:
    """A block format. A row takes as many bytes in a panel as in a file, unless the last three fields say otherwise."""

    name: str  # GGUF's, in lower case
    type_id: int  # GGUF's tensor type
    block: int  # values of a block
    block_bytes: int
    encode: Kernel  # (float32 address, address of blocks, count of blocks)
    decode: Kernel  # (address of blocks, float32 address, count of blocks)
    activation: Activation  # what its matmul takes
    pack: Kernel
    multiply: Callable[..., Any]  # as matmul.multiplier makes it
    matmul: Kernel
    matmul_experts: Kernel
    dequantize: Kernel
    panel_block_bytes: int  # of a row
    adjacent_blocks: int = 1  # how many blocks of a row lie side by side; a panel is padded to a multiple of it
    panel_header_bytes: int = 0  # of a row, before its blocks: 4 for a float32 that multiplies the row, or none
    weighted_encoder: Kernel | None = None  # (float32 address, that of weights, of blocks, count); None: weightless
    sweep: Kernel | None = None  # as error_feedback.sweeper makes it; None: it has no grid

    def panel_bytes(self, blocks: int) -> int:
        """Bytes of a panel of LANES rows."""
        padded = -(-blocks // self.adjacent_blocks) * self.adjacent_blocks
        return LANES * (self.panel_header_bytes + padded * self.panel_block_bytes)


@device
def _no_factor(end):
    return float32(1.0)


def make_format(name: str, type_id: int, block: int, block_bytes: int, activation: Activation, *,
                quantize_block: Callable[..., Any], dequantize_block: Callable[..., Any],
                pack_block: Callable[..., Any], tile: Callable[..., Any],
                quantize_weighted: Callable[..., Any] | None = None,
                dequantize_blocks: Callable[..., Any] | None = None, panel_block_bytes: int = 0,
                adjacent_blocks: int = 1, row_factor: Callable[..., Any] | None = None,
                panels: tuple[int, int, int, int] = ISA.tile_panels,
                wide: Callable[..., Any] | None = None, grid: Grid | None = None) -> Format:
    """A format from device functions.

    quantize_block(x, block): float32 values to one block of the file.
    dequantize_block(block, out): one block of the file to float32 values.
    dequantize_blocks(blocks, out, count): several blocks, for formats where that is faster than one by one.
    quantize_weighted(x, weights, block): as quantize_block, but each squared error counts as much as its weight, a
    positive float32; None if that makes no difference.
    pack_block(block, panel block, lane): copy one block of the file to its place in a panel.
    tile(acc, panel, panel stride, x, x stride, blocks) -> acc: acc[p][t] += panel p . row t of x, over all blocks.
    row_factor(address behind the last block): a float32 for each row, with which panels then begin.
    panels: of its tiles of 8, 4, 2 and 1 tokens.
    wide: takes many tokens before its tiles do, as `..wide` makes it.
    grid: what values a block has once its scales are fixed, for error feedback.
    """
    sizes = {"block_values": block, "block_bytes": block_bytes}
    panel_block_bytes, header_bytes = panel_block_bytes or block_bytes, 4 if row_factor else 0
    multiply = multiplier(tile, name, panels, wide, isinstance(activation, INT8))
    read = dequantize_blocks or bind(decode, f"decode_{name}", dequantize_block=dequantize_block, **sizes)
    write = native(bind(encode, f"encode_{name}", quantize_block=quantize_block, **sizes))
    weigh = quantize_weighted and native(bind(encode_weighted, f"encode_weighted_{name}",
                                              quantize_weighted=quantize_weighted, **sizes))
    return Format(
        name, type_id, block, block_bytes,
        encode=write,
        decode=native(read),
        activation=activation,
        pack=kernel(bind(pack, f"pack_{name}", pack_block=pack_block, panel_block_bytes=panel_block_bytes,
                         adjacent_blocks=adjacent_blocks, header_bytes=header_bytes,
                         row_factor=row_factor or _no_factor)),
        multiply=multiply,
        matmul=kernel(bind(matmul, f"matmul_{name}", multiply=multiply)),
        matmul_experts=kernel(bind(matmul_experts, f"matmul_experts_{name}", multiply=multiply)),
        dequantize=kernel(bind(dequantize, f"dequantize_{name}", dequantize_block=dequantize_block)),
        panel_block_bytes=panel_block_bytes,
        adjacent_blocks=adjacent_blocks,
        panel_header_bytes=header_bytes,
        weighted_encoder=weigh,
        sweep=sweeper(name, grid, block, block_bytes, quantize_block, quantize_weighted) if grid else None,
    )
