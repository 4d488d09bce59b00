"""Pages of F16: keys and values as float16, in the layout of F16 weights."""

import numpy as np
from numba import float32

from ..formats.floats import float_tile
from ..isa import ISAS
from ..jit import device
from ..matmul import multiplier, padded_width
from ..simd import ISA, LANES, alloca, get_u16, load_f32, maximum, minimum, panel_f16, prefetch_pages, put_u16
from ..simd import round_f16, splat_f32, store_f16, store_f32
from .page_type import NOBODY, POSITIONS, PageType, inverse_sum

_VECTOR = 4 * LANES
_HALVES = 2 * LANES
_LARGEST = float32(65504.0)
_VALUE_PANEL = 2 * LANES * POSITIONS


@device
def _finite(x):
    """Saturate: an infinity in a page would turn weights of exactly zero into NaN. A NaN stays one."""
    return minimum(maximum(x, splat_f32(-_LARGEST)), splat_f32(_LARGEST))


@device
def store_key(keys, position, x, head_dim, factors):
    halves = alloca(_HALVES)
    target = keys + 2 * (position // LANES * LANES * head_dim + position % LANES)
    for first in range(0, head_dim, LANES):
        store_f16(halves, _finite(load_f32(x + 4 * first)))
        for d in range(first, min(first + LANES, head_dim)):
            put_u16(target + 2 * LANES * d, get_u16(halves + 2 * (d - first)))


@device
def store_value(values, position, x, head_dim, value_bytes):
    for d in range(0, head_dim, LANES):  # past the end of a head, panels have room, and nothing reads it
        store_f16(values + d // LANES * _VALUE_PANEL + 2 * LANES * position, _finite(load_f32(x + 4 * d)))


@device
def put_query(x, out, head_dim, scale, factors):
    """As in llama.cpp, a query is rounded to float16, and then scaled."""
    for d in range(0, head_dim, LANES):
        store_f32(out + 4 * d, round_f16(load_f32(x + 4 * d)) * splat_f32(scale))


# A page is used several times at once: what is good for registers counts more than what is good for reading memory.
tile = float_tile("f16_pages", 2, panel_f16, prefetch_pages)
multiply = multiplier(tile, "f16_pages", ISAS[ISA.name].tile_panels)


@device
def weighted_mean(values, value_bytes, weights, scaled, out, weights_stride, out_stride, rows, panels, positions,
                  accumulate, ahead):
    """As in llama.cpp, weights are rounded to float16 once they are divided by their sum."""
    for row in range(rows):
        inverse = splat_f32(inverse_sum(out + row * out_stride, panels))
        for i in range(row * weights_stride, row * weights_stride + 4 * positions, _VECTOR):
            store_f32(weights + i, round_f16(load_f32(weights + i) * inverse))
    multiply(values, weights, out, weights_stride, out_stride, rows, 0, panels, _VALUE_PANEL, positions, accumulate,
             ahead)


def key_owners(head_dim: int) -> np.ndarray:
    """[panel][dimension][position of the panel][2 bytes]"""
    panels = np.arange(POSITIONS).reshape(-1, 1, LANES, 1)
    return np.broadcast_to(panels, (len(panels), head_dim, LANES, 2)).reshape(-1)


def value_owners(head_dim: int) -> np.ndarray:
    """[panel][position][dimension of the panel][2 bytes], with whole vectors for the last dimensions"""
    dimensions = np.arange(padded_width(head_dim)).reshape(-1, 1, LANES, 1)
    owners = np.where(dimensions < head_dim, np.arange(POSITIONS).reshape(1, -1, 1, 1), NOBODY)
    return np.broadcast_to(owners, (*owners.shape[:3], 2)).reshape(-1)


PAGES = PageType(
    "f16",
    multiple=1,
    balanced=False,
    key_block=1,
    value_size=2,
    scale_size=0,
    key_bytes=lambda head_dim: 2 * head_dim * POSITIONS,
    value_bytes=lambda head_dim: 2 * padded_width(head_dim) * POSITIONS,
    key_owners=key_owners,
    value_owners=value_owners,
    query_bytes=lambda head_dim: 4 * padded_width(head_dim),
    store_key=store_key,
    store_value=store_value,
    put_query=put_query,
    multiply_keys=multiply,
    weighted_mean=weighted_mean,
)
