"""Which sequences a step computes: the next tokens of all that run, and pieces of prompts that wait.

Logits do not depend on the batch, so nothing here changes a text: neither who runs beside it, nor in which pieces its
prompt is computed, nor whether it had to give up its pages in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.pages import POSITIONS
from .batch import Piece
from .model import BATCH, Model
from .page_cache import PageCache, PageTable, common_prefix
from .sequence import TokenSequence
from .speculation import CostModel
from .state_cache import StateCache
from .state_pool import EACH

PARALLEL = 16  # sequences that run at once, by default


class Scheduler:
    """Runs the sequences of one model. All of it may be called from any thread; one step is computed at a time."""

    def __init__(self, model: Model, vocab_size: int, parallel: int = PARALLEL) -> None:
        """vocab_size: tokens that have a text, which may be fewer than the model has rows for."""
        self.model, self.vocab_size, self.parallel = model, vocab_size, parallel
        self.closed, states = False, model.pool.states
        self.costs = CostModel()
        self.cache = PageCache(model.pool.count, model.pool.copy, StateCache(states.slots, EACH, states.copy))
        self.evaluations: list[Evaluation] = []  # the least recently used first
        self._waiting: list[TokenSequence] = []  # the first to run first
        self._running: list[TokenSequence] = []  # the oldest first
        self._dropped: deque[TokenSequence | Evaluation] = deque()
        self._sound = True
        self._steps = 0

    @property
    def lock(self) -> RLock:
        """Held while something is computed or changed. Models that share threads share it."""
        return self.model.team.lock

    def add(self, sequence: TokenSequence) -> None:
        """Let it run as soon as there is room."""
        with self.changing():
            if sequence.finish_reason is None and sequence not in self._running and sequence not in self._waiting:
                self._waiting.append(sequence)

    def drop(self, reader: TokenSequence | Evaluation) -> None:
        """Nobody wants it any more. May be called at any time, also by a garbage collection within a step: so it is
        taken out before the next change."""
        self._dropped.append(reader)

    def advance(self, *sequences: TokenSequence) -> None:
        """Step until one of these has a token that nobody has read, or has ended."""
        while True:
            steps = self._steps
            if any(sequence.has_news for sequence in sequences):
                return
            with self.lock:
                if self._steps == steps:  # nobody else has stepped meanwhile
                    self.step()

    def step(self) -> None:
        """Schedule, compute, take in. Nothing happens if all sequences are ahead of their readers."""
        with self.lock:
            self.check_open()
            self._steps += 1
            started = time.perf_counter()
            with self.changing():
                self._admit()
                scheduled = self._schedule()
            if not scheduled:
                return
            logits = self.model.step([piece for _, piece in scheduled])
            drafting = sum(sequence.drafting_seconds for sequence, _ in scheduled)
            with self.changing():
                self._take_in(scheduled, logits, time.perf_counter() - started - drafting)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Within, what is known of sequences and pages may change. If an exception, such as that of Ctrl-C, ends a
        change half-way, all pages are given up before the next one; no text changes by that. So that no sequence is
        lost, one that goes from list to list is for a moment in both."""
        with self.lock:
            if not self._sound:
                self._give_up_all()
            self._sound = False
            self._take_out_dropped()
            yield
            self._sound = True

    def _take_out_dropped(self) -> None:
        while self._dropped:
            reader = self._dropped[0]
            if isinstance(reader, Evaluation):
                reader.forget()
            else:
                self._give_up_pages(reader)
            for readers in (self._running, self._waiting, self.evaluations):
                if reader in readers:
                    readers.remove(reader)  # type: ignore[arg-type]
            self._dropped.popleft()

    def _give_up_all(self) -> None:
        self.cache.reset()
        sequences = dict.fromkeys([*self._running, *self._waiting])
        self._waiting = [sequence for sequence in sequences if sequence.finish_reason is None]
        self._running = []
        for sequence in self._waiting:
            sequence.table = None

    def check_open(self) -> None:
        """Raises LcpuError if the model is closed."""
        if self.closed:
            raise LcpuError("the model is closed: load it again")

    # ---- schedule ----

    def _runnable(self) -> list[TokenSequence]:
        """Those whose last token was read: the others are ahead of their readers."""
        return [sequence for sequence in self._running if not sequence.unread]

    def _admit(self) -> None:
        """Let sequences that wait begin, as far as there are pages for their prompts."""
        for sequence in self._waiting[: 2 * self.parallel]:
            runnable = self._runnable()
            if len(runnable) >= self.parallel:
                return
            if any(_is_ahead(other, sequence) for other in runnable):
                continue
            cache, ids = self.cache, sequence.ids
            table = cache.open_where_room(ids, more=len(runnable)) if runnable else cache.open(ids)
            if table is None:
                return
            sequence.start(table)
            self._running.append(sequence)
            self._waiting.remove(sequence)

    def _schedule(self) -> list[tuple[TokenSequence, Piece]]:
        """What the step computes: first the next tokens of texts, then prompts, which share what is left of it."""
        runnable = self._runnable()
        for sequence in runnable:
            if sequence.must_shift:
                self._shift(sequence)
        sizes = [len(sequence.ids) - sequence.table.computed for sequence in runnable if sequence.table]
        total = sum(sizes)
        for sequence, size in zip(runnable, sizes, strict=True):
            sequence.draft(total - size)
            total += sequence.outputs - 1
        pending = sorted(((sequence, sequence.pending()) for sequence in runnable), key=lambda entry: len(entry[1]))
        scheduled: list[tuple[TokenSequence, Piece]] = []
        room = BATCH
        for number, (sequence, tokens) in enumerate(pending):
            table, share = sequence.table, max(1, room // (len(pending) - number))
            size = 0 if table is None else table.until_mark(min(len(tokens), share))
            if table is not None and self._make_room(sequence, size):
                outputs = sequence.outputs if size == len(tokens) else 0
                scheduled.append((sequence, Piece(tokens[:size], table.computed, table.pages, outputs,
                                                  table.step_states)))
                room -= size
        return [entry for entry in scheduled if entry[0].table is not None]  # nor those that gave up their pages

    def _shift(self, sequence: TokenSequence) -> None:
        self._give_up_pages(sequence)
        sequence.shift()
        sequence.table = self.cache.open(sequence.ids)

    def _make_room(self, sequence: TokenSequence, tokens: int) -> bool:
        """Give a sequence room for so many tokens more; False if it had to give up its pages itself."""
        while sequence.table is not None:
            if self.cache.grow(sequence.table, sequence.table.computed + tokens):
                return True
            self.free_pages()
        return False

    def free_pages(self, beside: Evaluation | None = None) -> None:
        """Take pages from what is least missed: texts that nobody waits for, then the youngest sequence, which is
        computed again later."""
        for evaluation in self.evaluations:
            if evaluation.holds_pages and evaluation is not beside:
                evaluation.forget()
                return
        victim = next((other for other in reversed(self._running) if other.unread), self._running[-1])
        self._give_up_pages(victim)
        self._waiting.insert(0, victim)
        self._running.remove(victim)

    def _give_up_pages(self, sequence: TokenSequence) -> None:
        if sequence.table is not None:
            self.cache.close(sequence.table, sequence.ids)
            sequence.table = None

    # ---- take in ----

    def _take_in(self, scheduled: Sequence[tuple[TokenSequence, Piece]], logits: np.ndarray, seconds: float) -> None:
        row = 0
        if all(piece.outputs == len(piece.tokens) for _, piece in scheduled):
            self.costs.record(sum(piece.outputs for _, piece in scheduled), seconds)
        for sequence, piece in scheduled:
            if sequence.table is None:  # gave up its pages, or was taken away, meanwhile
                row += piece.outputs
                continue
            sequence.take(len(piece.tokens), logits[row : row + piece.outputs, : self.vocab_size], seconds)
            sequence.table.settle(piece.start, piece.start + len(piece.tokens), piece.states)
            row += piece.outputs
            if sequence.finish_reason is not None:
                self._give_up_pages(sequence)
                self._running.remove(sequence)
            else:
                self.cache.record(sequence.table, sequence.ids)


class Evaluation:
    """The logits of one text, which may be asked for piece by piece."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._ids: list[int] = []  # those that the table holds
        self._table = PageTable()

    @property
    def holds_pages(self) -> bool:
        return bool(self._table.pages)

    def logits(self, ids: Sequence[int], first: int) -> tuple[np.ndarray, int]:
        """(logits after each of ids[first:], float32 [len(ids) - first][vocab]; how many ids were known before)."""
        scheduler = self._scheduler
        out = np.empty((len(ids) - first, scheduler.model.h.vocab_size), np.float32)
        with scheduler.lock:
            scheduler.check_open()
            with scheduler.changing():
                self._go_back(ids, first)
            reused = self._table.computed
            for start in range(reused, len(ids), BATCH):
                piece = ids[start : start + BATCH]
                outputs = min(len(piece), max(0, start + len(piece) - first))
                end = start + len(piece) - first
                out[end - outputs : end] = self._step(piece, start, outputs)
        return out, reused

    def _go_back(self, ids: Sequence[int], first: int) -> None:
        """Keep of the table what belongs to ids[:first], or begin with what others have left."""
        known = min(self._table.computed, common_prefix(self._ids, ids[:first]))
        if known == 0 or self._table.reachable(known) < max(1, len(self._table.shared) * POSITIONS):
            self.forget()
            self._table = self._scheduler.cache.open(ids[: first + 1])
            known = self._table.computed
        self._table.go_back(known)
        known = self._table.computed
        self._ids = list(ids[:known])
        evaluations = self._scheduler.evaluations
        if self in evaluations:
            evaluations.remove(self)
        evaluations.append(self)

    def _step(self, piece: Sequence[int], start: int, outputs: int) -> np.ndarray:
        scheduler, table = self._scheduler, self._table
        with scheduler.changing():
            while not scheduler.cache.grow(table, start + len(piece)):
                scheduler.free_pages(beside=self)
        started = time.perf_counter()
        states = table.step_states
        logits = scheduler.model.step([Piece(piece, start, table.pages, outputs, states)])
        if outputs == len(piece):
            scheduler.costs.record(outputs, time.perf_counter() - started)
        self._ids += piece
        table.computed = len(self._ids)
        table.settle(start, start + len(piece), states)
        return logits

    def forget(self) -> None:
        """Give up the pages. What they hold can be found until they are needed."""
        self._scheduler.cache.close(self._table, self._ids)
        self._ids = []

    def close(self) -> None:
        """The text is not needed any more."""
        self._scheduler.drop(self)


def _is_ahead(other: TokenSequence, sequence: TokenSequence) -> bool:
    """Whether the other is just computing what this one begins with, so that it can soon be shared.

    In a model with states, it will leave a check point there.
    """
    if not other.in_prompt or other.table is None or other.ids[:POSITIONS] != sequence.ids[:POSITIONS]:
        return False
    shared = min(common_prefix(other.ids, sequence.ids), len(sequence.ids) - 1)
    if other.table.slots:
        shared -= shared % POSITIONS
        other.table.marks |= {shared} - {0}
    return shared >= POSITIONS and other.table.computed < shared
