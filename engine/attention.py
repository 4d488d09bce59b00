"""Attention: a layer keeps keys and values in the pages of sequences, and its queries, or a later one's, see them.

`Builder.attention` does both for layers that keep their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.attention import SHARES, SPAN, attention, partial_size, scratch_size, store
from ..kernels.jit import address_of
from ..kernels.pages import POSITIONS
from .batch import QUERY_ROWS
from .hyperparameters import Hyperparameters
from .key_balance import KeyBalance
from .page_pool import LayerPlace
from .rows import Rows

if TYPE_CHECKING:
    from .builder import Builder

LARGEST_CONTEXT = 1 << 24  # positions of a sequence


@dataclass(frozen=True)
class Kept:
    """Keys and values that a layer has stored."""

    place: LayerPlace
    operands: dict[str, Any]  # of instructions


@dataclass(frozen=True)
class Attended:
    """What the attention of a layer reads."""

    window: int  # how many positions a query sees; 0: all
    width: int  # of a token's queries
    position_bytes: int  # of the keys and values of one position, without what pages have beside them


def keep(b: Builder, k: Rows, v: Rows, layer: str, head_dim: int) -> Kept:
    """Store k and v of a layer in its place of the sequences' pages. layer: how the names of its tensors begin."""
    pool, heads = b.pool, k.width // head_dim
    place = pool.add_layer(heads, head_dim)
    kept = Kept(place, {"tables": b.batch.tables, "table_bytes": b.batch.tables.strides[0],
                        "pages": lambda: address_of(pool.pages) + place.first, "page_bytes": lambda: pool.page_bytes,
                        "key_bytes": place.key_bytes, "value_bytes": place.value_bytes,
                        "balance": _key_factors(b, k, layer, heads) if pool.keys.balanced else 0})
    b.program.add(store(pool.keys, pool.values), name="store", count=k.count, positions=b.batch.positions,
                  slots=b.batch.slots, k=k.array, v=v.array, stride=k.stride, heads=heads, head_dim=head_dim,
                  **kept.operands)
    return kept


def attend(b: Builder, q: Rows, kept: Kept, *, window: int = 0, cap: float = 0.0, scale: float | None = None,
           sinks: str | None = None) -> Rows:
    """Let every query see what is kept of its sequence, up to itself. Operands as in `Builder.attention`."""
    pool, heads, head_dim = b.pool, kept.place.heads, kept.place.head_dim
    b.attended.append(Attended(window, q.width, kept.place.position_bytes))
    group = b.h.head_count // heads
    rows = max(QUERY_ROWS, queries_per_job(b.h) * group)
    scratch_bytes, partial_bytes = scratch_size(pool.keys, rows, head_dim), partial_size(rows, head_dim)
    most_spans = -(-pool.most * POSITIONS // SPAN)
    out = b.new_rows("attention", q.width, q.count)
    b.program.add(attention(pool.keys, pool.values), name="attention", count=b.jobs, jobs=b.batch.jobs,
                  deepest=b.deepest, q=q.array, out=out.array, stride=q.stride, kv_heads=heads, group=group,
                  head_dim=head_dim, query_bytes=pool.keys.query_bytes(head_dim),
                  key_blocks=head_dim // pool.keys.key_block, scratch_bytes=scratch_bytes,
                  scratch=b.scratch("attention", scratch_bytes), partial_bytes=partial_bytes,
                  partials=b.scratch("spans", SHARES * most_spans * partial_bytes), most_spans=most_spans,
                  finished=b.scratch("finished", SHARES * 64), window=window or LARGEST_CONTEXT,
                  cap=float(cap), scale=head_dim**-0.5 if scale is None else scale,
                  sinks=b.tensors.vector(sinks, b.h.head_count) if sinks else 0, **kept.operands)
    return out


def _key_factors(b: Builder, k: Rows, layer: str, heads: int) -> np.ndarray:
    """Those of a layer, float32 [kv_heads][2][head_dim], which the model fills in once it can compute."""
    head_dim, width = k.width // heads, b.h.embedding_length

    def vector(name: str, width: int) -> np.ndarray | None:
        return b.tensors.vector(layer + name, width)[:width] if b.has(layer + name) else None

    norm, info = None, b.file.tensors.get(f"{layer}attn_k_norm.weight")  # of a head, of all, or of each of them
    if info is not None:
        norm = b.tensors.flat(info.name, *info.shape)
        if len(norm) not in (head_dim, heads * head_dim):
            norm = b.tensors.vector(info.name, head_dim)  # which raises
    factors = np.ones((heads, 2, head_dim), np.float32)
    matrix = b.matrix(f"{layer}attn_k.weight", heads * head_dim, width)
    pairs, step, distance = b.pairs.get(k.memory, (0, 1, 0))
    b.balances.append(KeyBalance(factors, matrix, vector("attn_norm.weight", width),
                                 vector("attn_k.bias", heads * head_dim), norm, pairs, step, distance))
    return factors


def queries_per_job(h: Hyperparameters) -> int:
    """How many tokens attention takes at once, to have QUERY_ROWS query heads for each KV head."""
    return max(1, QUERY_ROWS // (h.head_count // h.head_count_kv))
