"""Pages of many texts: none is lost, none is two things at once, and what is found again is what was computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from lcpu.engine import page_cache
from lcpu.engine.page_cache import Node, PageCache, PageTable

SIZE = 4  # positions of a page, in these tests
IDS = st.lists(st.integers(0, 1), min_size=1, max_size=18)


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_cache, "POSITIONS", SIZE)
        yield


@dataclass(eq=False)
class Text:
    """A sequence as the scheduler has it."""

    ids: list[int]
    table: PageTable
    history: set[int] = field(default_factory=set)


class Pages(RuleBasedStateMachine):
    """A page's memory holds, for each position, the tokens that its keys and values depend on: all up to it."""

    texts = Bundle("texts")

    @initialize(pages=st.integers(5, 16))
    def begin(self, pages: int) -> None:
        self.count = pages
        self.memory: list[list[tuple[int, ...]]] = [[()] * SIZE for _ in range(pages)]
        self.cache = PageCache(pages, self.copy)
        self.open: list[Text] = []
        self.now = self.copies = 0
        self.used: dict[Node, int] = {}  # when a text last had a page

    def copy(self, source: int, target: int) -> None:
        self.memory[target] = list(self.memory[source])
        self.copies += 1

    # ---- what a scheduler does ----

    @rule(target=texts, ids=IDS)
    def begin_text(self, ids: list[int]) -> Text:
        known = self.longest_known(ids)
        could_copy = self.cache.available() > known[1]  # beside the pages that it is going to share
        before = {node: self.used[node] for node in self.nodes()}
        copies = self.copies
        table = self.cache.open(ids)
        copied = [node for node in self.nodes() if node.last_used == self.cache._clock]  # the page that was copied
        if self.copies > copies:  # else a page that is gone has become the text's own
            self.check_given_up(before, copied)
        assert table.computed == known[0] if could_copy else table.computed <= known[0]
        assert table.computed < len(ids)
        text = Text(list(ids), table)
        self.open.append(text)
        self.touch([*table.shared, *copied])
        return text

    @rule(ids=IDS)
    def find(self, ids: list[int]) -> None:
        """All that is known, which is only looked at."""
        pages, known = self.cache.find(ids)
        assert known == self.longest_known([*ids, -1])[0]
        assert len(pages) == -(-known // SIZE)
        for position in range(known):
            assert self.memory[pages[position // SIZE]][position % SIZE] == tuple(ids[: position + 1])

    @rule(text=texts, count=st.integers(1, 9), drafted=st.integers(0, 3), seed=st.integers(0, 3))
    def compute(self, text: Text, count: int, drafted: int, seed: int) -> None:
        """The next tokens, and perhaps some that are then taken back."""
        if text not in self.open:
            return
        table = text.table
        while len(text.ids) < table.computed + count:
            text.ids.append((len(text.ids) * 7 + seed) // 3 % 2)
        end = table.computed + count + drafted
        while not self.grow(table, end):
            others = [other for other in self.open if other is not text]
            if not others:
                return
            self.end(others[-1])
        self.write(table, [*text.ids[: table.computed + count], *[9] * drafted], end)
        table.computed += count
        self.cache.record(table, text.ids)
        self.touch(table.shared)

    def grow(self, table: PageTable, positions: int) -> bool:
        before = {node: self.used[node] for node in self.nodes()}
        grown = self.cache.grow(table, positions)
        self.check_given_up(before)
        assert grown == (table.room >= positions)
        return grown

    def write(self, table: PageTable, ids: Sequence[int], end: int) -> None:
        in_tree = {node.page for node in self.nodes()}
        for position in range(table.computed, end):
            page = table.pages[position // SIZE]
            assert page not in in_tree, "a page that others may read is written"
            self.memory[page][position % SIZE] = tuple(ids[: position + 1])

    @rule(text=texts, share=st.floats(0, 1))
    def go_back(self, text: Text, share: float) -> None:
        """As an evaluation does, within the pages that are its own. The text goes on in another way."""
        table = text.table
        if text in self.open:
            least = len(table.shared) * SIZE
            table.go_back(least + int(share * (table.computed - least)))
            text.ids = text.ids[: table.computed]

    @rule(text=consumes(texts))
    def end_text(self, text: Text) -> None:
        if text in self.open:
            self.end(text)

    def end(self, text: Text) -> None:
        self.open.remove(text)
        shared = text.table.shared
        self.cache.close(text.table, text.ids)
        assert (text.table.pages, text.table.shared, text.table.computed) == ([], [], 0)
        self.touch([*shared, *(node for node in self.nodes() if node.last_used == self.cache._clock)])

    @rule()
    def forget_all(self) -> None:
        self.cache.reset()
        assert all(text.table.pages == [] and text.table.computed == 0 for text in self.open)

    # ---- what must hold ----

    @invariant()
    def every_page_is_in_one_place(self) -> None:
        private = [page for text in self.open for page in text.table.pages[len(text.table.shared) :]]
        places = [*self.cache._free, *(node.page for node in self.nodes()), *private]
        assert sorted(places) == list(range(self.count))
        free = len(self.cache._free) + sum(node.users == 0 for node in self.nodes())
        assert self.cache.available() == free

    @invariant()
    def users_are_counted(self) -> None:
        for node in self.nodes():
            assert node.users == sum(node in text.table.shared for text in self.open)
            for child in node.children.values():
                assert child.parent is node
                assert len(node.tokens) == SIZE
                assert node.users >= child.users

    @invariant()
    def what_is_computed_is_there(self) -> None:
        for text in self.open:
            table = text.table
            assert [node.page for node in table.shared] == table.pages[: len(table.shared)]
            assert len(table.shared) * SIZE <= table.computed <= table.room
            for position in range(table.computed):
                held = self.memory[table.pages[position // SIZE]][position % SIZE]
                assert held == tuple(text.ids[: position + 1])
        for node in self.nodes():
            path = self.path(node)
            for offset in range(len(node.tokens)):
                start = len(path) - len(node.tokens) + offset + 1
                assert self.memory[node.page][offset] == path[:start]

    # ---- a second opinion ----

    def nodes(self) -> list[Node]:
        return list(self.cache._nodes(self.cache._root))

    def path(self, node: Node) -> tuple[int, ...]:
        return (self.path(node.parent) if node.parent else ()) + node.tokens

    def longest_known(self, ids: Sequence[int]) -> tuple[int, int]:
        """(how many of the first tokens somebody has computed and recorded, how many unused pages hold them)."""
        wanted = tuple(ids[:-1])
        texts = [self.path(node) for node in self.nodes()]
        texts += [tuple(text.ids[: len(text.table.shared) * SIZE]) + text.table.rest for text in self.open]
        longest = max((common(text, wanted) for text in texts), default=0)
        on_the_way = [node for node in self.nodes()
                      if node.users == 0 and common(self.path(node), wanted) > len(self.path(node)) - len(node.tokens)]
        return longest, len(on_the_way)

    def check_given_up(self, before: dict[Node, int], kept: Sequence[Node] = ()) -> None:
        """Of the pages that nobody has, those longest ago used are the first to go."""
        remaining = set(self.nodes())
        gone = [before[node] for node in before if node not in remaining]
        leaves = [before[node] for node in remaining if not node.users and not node.children and node not in kept]
        assert max(gone, default=0) <= min(leaves, default=self.now)

    def touch(self, nodes: Sequence[Node]) -> None:
        self.now += 1
        for node in [*nodes, *(node for node in self.nodes() if node not in self.used)]:
            self.used[node] = self.now


def common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


# ---- one thing at a time ----


def computed(cache: PageCache, ids: Sequence[int]) -> PageTable:
    """A table with all of a text."""
    table = cache.open(ids)
    assert cache.grow(table, len(ids))
    table.computed = len(ids)
    cache.record(table, ids)
    return table


def found(cache: PageCache, ids: Sequence[int]) -> int:
    """How much of a text is known."""
    table = cache.open([*ids, -1])
    known = table.computed
    cache.close(table, ids)
    return known


def test_the_least_recently_used_is_given_up_first() -> None:
    """A text that took long is as new as its last token."""
    cache = PageCache(3, lambda source, target: None)
    long = computed(cache, [1] * SIZE)
    cache.close(computed(cache, [2] * SIZE), [2] * SIZE)
    cache.close(computed(cache, [3] * SIZE), [3] * SIZE)
    cache.close(long, [1] * SIZE)
    assert found(cache, [2] * SIZE) == SIZE  # used again
    cache.close(computed(cache, [4] * SIZE), [4] * SIZE)
    assert [found(cache, [token] * SIZE) for token in (1, 2, 3, 4)] == [SIZE, SIZE, 0, SIZE]
    cache.close(computed(cache, [5] * SIZE), [5] * SIZE)
    assert [found(cache, [token] * SIZE) for token in (2, 4, 5, 1)] == [SIZE, SIZE, SIZE, 0]


def test_ends_of_texts_are_given_up_before_their_beginnings() -> None:
    cache = PageCache(4, lambda source, target: None)
    text = [1] * 3 * SIZE
    cache.close(computed(cache, text), text)
    cache.close(computed(cache, [2] * 2 * SIZE), [2] * 2 * SIZE)
    assert found(cache, text) == 2 * SIZE


def test_a_text_that_goes_on_is_shared_to_the_token() -> None:
    copies: list[tuple[int, int]] = []
    cache = PageCache(8, lambda source, target: copies.append((source, target)))
    text = list(range(2 * SIZE + 2))
    first = computed(cache, text)
    second = cache.open([*text, 77, 78])
    assert second.computed == len(text)
    assert second.pages[:2] == first.pages[:2]
    assert copies == [(first.pages[2], second.pages[2])]
    third = cache.open([*text[: SIZE + 1], 99, 98])
    assert (third.computed, third.pages[0]) == (SIZE + 1, first.pages[0])
    assert cache.open([9, 9, 9]).computed == 0


def test_texts_that_begin_together_share_what_the_first_takes_over() -> None:
    """It takes a page that nobody has; the others copy it from there before anything is computed."""
    copies: list[tuple[int, int]] = []
    cache = PageCache(8, lambda source, target: copies.append((source, target)))
    text = list(range(SIZE + 3))
    cache.close(computed(cache, text), text)
    first, second = cache.open([*text, 90]), cache.open([*text, 91])
    assert (first.computed, second.computed) == (SIZE + 3, SIZE + 3)
    assert copies == [(first.pages[1], second.pages[1])]
    first.go_back(SIZE + 2)
    second.go_back(SIZE)
    assert cache.open([*text, 92]).computed == SIZE + 2


def test_the_only_page_is_taken_over_in_part() -> None:
    cache = PageCache(1, lambda source, target: None)
    cache.close(computed(cache, [1] * SIZE), [1] * SIZE)
    table = cache.open([1, 1, 2])
    assert (table.computed, table.pages) == (2, [0])
    assert found(cache, [1] * SIZE) == 0


def test_when_there_is_no_page_for_a_copy() -> None:
    cache = PageCache(2, lambda source, target: None)
    text = [1] * SIZE + [2, 3]
    first = computed(cache, text)
    second = cache.open([*text, 4])
    assert (second.computed, second.pages) == (SIZE, first.pages[:1])
    assert not cache.grow(second, SIZE + 1)
    cache.close(first, text)
    assert cache.grow(second, SIZE + 1)


def test_a_text_that_needs_too_many_pages_takes_none() -> None:
    """What it shares counts as there, but not as a page that could be had for the rest."""
    cache = PageCache(4, lambda source, target: None)
    text = [1] * 2 * SIZE
    cache.close(computed(cache, text), text)
    assert cache.open_where_room([*text, *[2] * 2 * SIZE], more=1) is None
    assert cache.open_where_room([*text, *[2] * 2 * SIZE, 3], more=0) is None
    assert cache.available() == 4
    table = cache.open_where_room([*text, *[2] * 2 * SIZE], more=0)
    assert table is not None
    assert (table.computed, cache.available()) == (2 * SIZE, 2)
