"""Which pages a sequence has, which it shares, and what other texts have computed.

Whole pages whose tokens are computed form a tree: a page's children are those that followed it in some text. A new
sequence walks down the tree with its own tokens, shares the whole pages that it meets, and copies the one that it has
in part, which may be the last page of a text that still goes on. Pages that no sequence uses stay until their room is
needed, least recently used ones first.

In a model with states, a text shares pages up to a check point (`state_cache`). There is one at the last whole page of
a prompt, where a text left what others had computed, and where a text ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

from ..kernels.pages import POSITIONS
from .state_cache import StateCache


@dataclass(eq=False)
class Node:
    """A page in the tree, and the tokens that it holds after those of its parents."""

    page: int
    tokens: tuple[int, ...]  # fewer than POSITIONS only in the last page of a text
    parent: Node | None = None
    children: dict[tuple[int, ...], Node] = field(default_factory=dict)
    users: int = 0  # sequences that have it in their table
    last_used: int = 0


@dataclass(eq=False)
class PageTable:
    """The pages of one sequence, from position 0 on."""

    pages: list[int] = field(default_factory=list)
    shared: list[Node] = field(default_factory=list)  # the first of them, which are in the tree
    computed: int = 0  # positions whose keys and values are there
    slots: list[int] = field(default_factory=list)  # of states
    states: dict[int, int] = field(default_factory=dict)  # slots that hold one, by their positions
    marks: set[int] = field(default_factory=set)  # positions at which others may want to go on
    rest: tuple[int, ...] = ()  # tokens of the page after the shared ones, as far as they were recorded

    @property
    def room(self) -> int:
        return len(self.pages) * POSITIONS

    def go_back(self, positions: int) -> None:
        """Forget what comes after so many positions, which must not be within the shared pages."""
        self.computed = self.reachable(positions)
        self.states = {at: slot for at, slot in self.states.items() if at <= positions}
        self.rest = self.rest[: self.computed - len(self.shared) * POSITIONS]

    def clear(self) -> None:
        self.pages, self.shared, self.computed, self.rest = [], [], 0, ()
        self.slots, self.states, self.marks = [], {}, set()

    def reachable(self, positions: int) -> int:
        """How many positions there are after `go_back`."""
        return max((at for at in self.states if at <= positions), default=0) if self.slots else positions

    def until_mark(self, tokens: int) -> int:
        """How many of so many next tokens a step takes: it ends at a mark, so that the state there can be kept."""
        return min([tokens, *(at - self.computed for at in self.marks if at > self.computed)])

    @property
    def step_states(self) -> tuple[int, int] | None:
        """The slots that the next step reads and writes; None for a model without states."""
        if not self.slots:
            return None
        read = self.states.get(self.computed, -1)
        return read, next(slot for slot in self.slots if slot != read)

    def settle(self, start: int, end: int, slots: tuple[int, int] | None) -> None:
        """A step has computed positions from start to end, with such states; `computed` says what of it counts. Where
        no state is kept of that position, go back to the last one before it."""
        if slots is not None:
            self.states = ({start: slots[0]} if start else {}) | {end: slots[1]}
            self.go_back(self.computed)


@dataclass(frozen=True)
class _Part:
    """A page that holds some of the next tokens of a text."""

    size: int  # how many
    page: int
    node: Node | None = None  # None: the page of a text that goes on


class PageCache:
    """Hands out the pages of a pool by number. It never touches their memory but by `copy`(source, target)."""

    def __init__(self, pages: int, copy: Callable[[int, int], None], states: StateCache | None = None) -> None:
        self._count, self._copy, self._clock = pages, copy, 0
        self.states = states or StateCache(0, 0, copy)
        self._open: WeakSet[PageTable] = WeakSet()
        self.reset()

    def reset(self) -> None:
        """Forget all pages: every table is as if nothing of its text had been computed."""
        self._free = list(range(self._count))[::-1]  # the lowest numbers first: untouched memory stays so
        self.states.reset()
        self._root = Node(-1, ())
        for table in self._open:
            table.clear()

    def open(self, ids: Sequence[int]) -> PageTable:
        """A table for a text, with what is known of its beginning: at most all but the last token."""
        return self._opened(ids, self._known_pages(ids))

    def open_where_room(self, ids: Sequence[int], more: int) -> PageTable | None:
        """As `open`; None if there are not enough pages for all of the text, and so many more."""
        known = self._known_pages(ids)
        shared = self._usable(known)
        available = self.available() - sum(node.users == 0 for node in shared)
        if not self.states.has_room or available < -(-len(ids) // POSITIONS) - len(shared) + more:
            return None
        return self._opened(ids, known)

    def _opened(self, ids: Sequence[int], known: list[Node]) -> PageTable:
        table = PageTable(shared=self._usable(known))
        for node in table.shared:
            self._use(node)
            table.pages.append(node.page)
        self._open.add(table)
        start = table.computed = len(table.pages) * POSITIONS
        part = self._part(table.shared, ids[start:-1])
        before, after = (self.states.slot_of(node) for node in (table.shared[-1] if start else None, part.node))
        self._begin_with_part(table, part, ids[start:-1])
        if self.states.slots:
            table.slots = self.states.begin(after if table.computed > start else before)
            table.states = {table.computed: table.slots[0]} if table.computed else {}
            marks = (len(known) * POSITIONS, (len(ids) - 1) // POSITIONS * POSITIONS)
            table.marks = {at for at in marks if at > table.computed}
        return table

    def find(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """(pages that hold the beginning of a text, how many of its tokens that is). To read them before anything
        else happens, as nothing keeps them."""
        shared = self._known_pages([*ids, -1])
        part = self._part(shared, ids[len(shared) * POSITIONS :])
        pages = [node.page for node in shared] + [part.page] * (part.size > 0)
        return pages, len(shared) * POSITIONS + part.size

    def _known_pages(self, ids: Sequence[int]) -> list[Node]:
        """The whole pages that hold the beginning of a text, without its last token."""
        nodes, node = [], self._root
        for end in range(POSITIONS, len(ids), POSITIONS):
            child = node.children.get(tuple(ids[end - POSITIONS : end]))
            if child is None:
                break
            nodes.append(child)
            node = child
        return nodes

    def _usable(self, known: list[Node]) -> list[Node]:
        """Of known pages, those that a new text can share."""
        if not self.states.has_room:
            return []
        return known[: max((number for number, node in enumerate(known, 1) if self.states.is_kept(node)), default=0)]

    def _begin_with_part(self, table: PageTable, part: _Part, rest: Sequence[int]) -> None:
        """Take along what a page holds of the tokens that come next: a copy, or the page itself if it holds nothing
        else."""
        page: int | None
        if part.size == 0:
            return
        if part.node is not None and part.size == len(part.node.tokens) and _is_spare(part.node):
            self._forget(part.node)
            page = part.page
        else:
            page = self._copied(part)
        if page is not None:
            table.pages.append(page)
            table.computed += part.size
            table.rest = tuple(rest[: part.size])  # at once: texts that begin now, too, may want to copy it

    def _part(self, shared: list[Node], rest: Sequence[int]) -> _Part:
        """The page that holds most of the tokens that come after the shared pages."""
        children = (shared[-1] if shared else self._root).children.values()
        parts = [_Part(common_prefix(child.tokens, rest), child.page, child) for child in children]
        if self.states.slots:  # a text goes on where the state is known, at the end of a page's tokens
            parts = [part for part in parts if part.node and part.size == len(part.node.tokens)
                     and self.states.is_kept(part.node) and self.states.has_room]
        else:
            parts += [_Part(common_prefix(other.rest, rest), other.pages[len(shared)])
                      for other in self._beside(shared)]
        return max(parts, key=lambda part: part.size, default=_Part(0, -1))

    def _beside(self, shared: list[Node]) -> Iterator[PageTable]:
        """The texts that still go on and share these pages, no more and no less."""
        return (other for other in self._open if other.rest and other.shared == shared)

    def _copied(self, part: _Part) -> int | None:
        """A page with the same in it; that page itself if it is the last one that is left; None if there is none."""
        node = part.node
        if node is not None:
            self._use(node)  # so that its page is not given to us
        page = self._take()
        if node is not None:
            node.users -= 1
        if page is not None:
            self._copy(part.page, page)
        elif node is not None and _is_spare(node):
            self._forget(node)
            page = part.page
        return page

    def grow(self, table: PageTable, positions: int) -> bool:
        """Give a table room for so many positions. False if there are not enough pages; it then keeps what it got."""
        if self.states.slots and not table.slots:
            self._open.add(table)
            table.slots = self.states.begin(None)
            if not table.slots:
                return False
        while table.room < positions:
            page = self._take()
            if page is None:
                return False
            self._open.add(table)
            table.pages.append(page)
        return True

    def record(self, table: PageTable, ids: Sequence[int]) -> None:
        """ids[: table.computed] are there to stay: let others find the whole pages among them."""
        while (len(table.shared) + 1) * POSITIONS <= table.computed:
            index = len(table.shared)
            node = self._insert(table.shared[-1] if index else self._root, table.pages[index],
                                tuple(ids[index * POSITIONS : (index + 1) * POSITIONS]))
            self._use(node)
            table.shared.append(node)
            table.pages[index] = node.page
        table.rest = tuple(ids[len(table.shared) * POSITIONS : table.computed])
        if table.computed in table.marks:
            self.states.keep(table.shared[-1], table.states[table.computed])

    def close(self, table: PageTable, ids: Sequence[int]) -> None:
        """The sequence ends, or gives its pages up. What they hold can be found until they are needed."""
        self.record(table, ids)
        index = len(table.shared)
        used = index + bool(table.rest)
        left = list(table.shared)
        if table.rest:
            node = self._insert(table.shared[-1] if index else self._root, table.pages[index], table.rest)
            self._use(node)
            left.append(node)
        self._clock += 1
        for node in left:
            node.users -= 1
            node.last_used = self._clock
        self._free += table.pages[used:][::-1]
        ends_there = bool(left) and (not table.rest or left[-1].tokens == table.rest)
        self.states.end(table.slots, left[-1] if ends_there else None, table.states.get(table.computed))
        table.clear()
        self._open.discard(table)

    def available(self) -> int:
        """Pages that could be had now."""
        return len(self._free) + sum(node.users == 0 for node in self._nodes(self._root))

    def _insert(self, parent: Node, page: int, tokens: tuple[int, ...]) -> Node:
        """A page in the tree; if its tokens are there already, that page, and this one is free."""
        for child in list(parent.children.values()):
            if child.tokens[: len(tokens)] == tokens:
                self._free.append(page)
                return child
            if child.tokens == tokens[: len(child.tokens)] and _is_spare(child):
                self._forget(child)  # the beginning of ours
                self._free.append(child.page)
        node = parent.children[tokens] = Node(page, tokens, parent)
        return node

    def _use(self, node: Node) -> None:
        self._clock += 1
        node.users += 1
        node.last_used = self._clock

    def _take(self) -> int | None:
        """A free page, or that of the least recently used node that nobody uses."""
        if self._free:
            return self._free.pop()
        unused = [node for node in self._nodes(self._root) if _is_spare(node)]
        if not unused:
            return None
        oldest = min(unused, key=lambda node: node.last_used)
        self._forget(oldest)
        return oldest.page

    def _forget(self, node: Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.tokens]
        self.states.drop(node)

    def _nodes(self, node: Node) -> Iterator[Node]:
        """All below a node."""
        waiting = list(node.children.values())
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            yield node


def _is_spare(node: Node) -> bool:
    """Whether the page can be given to another text."""
    return node.users == 0 and not node.children


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items from the start on are equal."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), size)
