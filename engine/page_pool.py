"""The memory of keys and values: a pool of pages of 128 positions, each with all layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.memory import zeros
from ..kernels.pages import PAGES, POSITIONS, PageType
from .hyperparameters import Hyperparameters
from .state_pool import StatePool


@dataclass(frozen=True)
class LayerPlace:
    """Where the keys and values of a layer are in a page."""

    first: int  # byte
    heads: int
    head_dim: int
    key_bytes: int  # of a head
    value_bytes: int
    position_bytes: int  # that reading one position takes, without what pages have beside it


class PagePool:
    """Pages by number, uint8 [page][layer][KV head][keys, then values].

    Which sequence has which pages is for others to know. Memory is reserved when all layers are known (`allocate`), and
    taken as pages are first used.
    """

    def __init__(self, h: Hyperparameters, context: int, tokens: int = 0, keys: str = "f16",
                 values: str = "f16") -> None:
        """context: the most positions of a sequence. tokens: of all sequences together, if more."""
        self.keys, self.values = page_type(keys, h.head_dim), page_type(values, h.head_dim)
        self.context = context
        self.most = -(-context // POSITIONS)  # pages of a sequence
        self.count = max(self.most, -(-tokens // POSITIONS))
        self.page_bytes = 0
        self._layers: list[LayerPlace] = []
        self.states = StatePool()  # of layers that have no keys and values
        self._pages: np.ndarray | None = None

    def add_layer(self, heads: int, head_dim: int) -> LayerPlace:
        """Make room for one more layer."""
        for name in (self.keys.name, self.values.name):
            page_type(name, head_dim)
        sizes = self.keys.key_bytes(head_dim), self.values.value_bytes(head_dim)
        position_bytes = heads * sum(each.value_size * head_dim + each.scale_size for each in (self.keys, self.values))
        place = LayerPlace(self.page_bytes, heads, head_dim, *sizes, position_bytes)
        self._layers.append(place)
        self.page_bytes += heads * sum(sizes)
        return place

    @property
    def sequence_bytes(self) -> int:
        """What the pages of one sequence take when its context is full."""
        return self.most * self.page_bytes

    def q8_0_sequence_bytes(self) -> int:
        """The same if keys and values were Q8_0; if heads do not fit that type, as they are now."""
        q8_0 = PAGES["q8_0"]
        if any(layer.head_dim % q8_0.multiple for layer in self._layers):
            return self.sequence_bytes
        return self.most * sum(layer.heads * (q8_0.key_bytes(layer.head_dim) + q8_0.value_bytes(layer.head_dim))
                               for layer in self._layers)

    def limit(self, nbytes: int) -> None:
        """Have at most so many bytes of pages more than one sequence needs. To be called before `allocate`."""
        nbytes -= self.states.limit(nbytes // 2)
        self.count = min(self.count, self.most + nbytes // max(1, self.page_bytes))  # 0: no layer has keys

    def allocate(self) -> None:
        """Reserve the memory. Raises LcpuError if the system does not have so much."""
        self._pages = zeros((self.count, self.page_bytes), np.uint8, huge_pages=True)
        if self.states.slot_bytes:
            self.states.allocate()

    @property
    def pages(self) -> np.ndarray:
        """uint8 [count][page_bytes]"""
        assert self._pages is not None
        return self._pages

    def copy(self, source: int, target: int) -> None:
        """Make a page hold what another holds."""
        self.pages[target] = self.pages[source]

    def first_positions(self, page: int, count: int) -> np.ndarray:
        """uint8 [page_bytes]: a page with zeros for all that does not belong to its first positions, such as what an
        earlier text left there. The page itself is as it was, and what is returned must not be changed."""
        if count == POSITIONS and all(owners.max() < count for owners in self._owners.values()):
            return self.pages[page]
        out = self.pages[page].copy()
        for layer in self._layers:
            owners = self._owners[layer.head_dim]
            heads = out[layer.first :][: layer.heads * len(owners)].reshape(layer.heads, -1)
            heads[:, owners >= count] = 0
        return out

    @cached_property
    def _owners(self) -> dict[int, np.ndarray]:
        """The position of each byte of a head's keys and values, int64 [bytes], by the head's size."""
        return {size: np.concatenate([self.keys.key_owners(size), self.values.value_owners(size)])
                for size in {layer.head_dim for layer in self._layers}}


def page_type(name: str, head_dim: int) -> PageType:
    """The type of pages of that name. Raises LcpuError for one that there is not, or that heads do not fit."""
    if name.lower() not in PAGES:
        raise LcpuError(f"cache type {name!r} is unknown: choose {' or '.join(PAGES)}")
    found = PAGES[name.lower()]
    if head_dim % found.multiple:
        raise LcpuError(f"cache type {found.name} needs heads of a multiple of {found.multiple} values, and this "
                        f"model's have {head_dim}: choose f16")
    return found
