"""Which states are where: those that texts go on from, and check points, which are the states after some pages.

A text that begins like another goes on from the last check point within what they share. It works on copies in slots of
its own, so a check point can be given up at any time: the least recently used one, when a text needs its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

CHECK_POINTS = 16  # that are kept at most


class StateCache:
    """Hands out the slots of a pool by number. It never touches their memory but by `copy`(source, target)."""

    def __init__(self, slots: int, each: int, copy: Callable[[int, int], None]) -> None:
        """slots: 0 for a model without states. each: that a text has."""
        self.slots, self._each, self._copy = slots, each, copy
        self.reset()

    def reset(self) -> None:
        """Forget all states."""
        self._free = list(range(self.slots))[::-1]  # the lowest numbers first: untouched memory stays so
        self._kept: dict[Hashable, int] = {}  # the slots of check points by pages, the least recently used first

    @property
    def has_room(self) -> bool:
        """Whether a text can begin."""
        return not self.slots or len(self._free) + len(self._kept) >= self._each

    def is_kept(self, page: Hashable) -> bool:
        """Whether a text can go on after a page."""
        return not self.slots or page in self._kept

    def slot_of(self, page: Hashable) -> int | None:
        """That of a check point, which counts as used now."""
        slot = self._kept.pop(page, None)
        if slot is not None:
            self._kept[page] = slot
        return slot

    def begin(self, source: int | None) -> list[int]:
        """Slots for a text, of which the first holds what `source` does, if it is given; none if there is no room."""
        if not self.slots or not self.has_room:
            return []
        taken = [self._take() for _ in range(self._each)]
        if source in taken:
            taken.sort(key=lambda slot: slot != source)
        elif source is not None:
            self._copy(source, taken[0])
        return taken

    def keep(self, page: Hashable, slot: int) -> None:
        """Make a copy of the state after a page a check point."""
        if page not in self._kept and (self._free or self._kept):
            self._make_room()
            own = self._take()
            self._copy(slot, own)
            self._kept[page] = own

    def end(self, slots: Sequence[int], page: Hashable | None = None, last: int | None = None) -> None:
        """A text needs its slots no more. The `last` of them holds the state after a page, if one is given."""
        if page is not None and last is not None and page not in self._kept:
            self._make_room()
            self._kept[page] = last
            slots = [slot for slot in slots if slot != last]
        self._free += slots[::-1]

    def drop(self, page: Hashable) -> None:
        """The page is given up."""
        if page in self._kept:
            self._free.append(self._kept.pop(page))

    def _make_room(self) -> None:
        if len(self._kept) >= CHECK_POINTS:
            self.drop(next(iter(self._kept)))

    def _take(self) -> int:
        if not self._free:
            self.drop(next(iter(self._kept)))
        return self._free.pop()
