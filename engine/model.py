"""A model that runs: packed weights, a program, a KV cache, and the team that executes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakSet

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.jit import announcing
from ..kernels.program import Program
from ..kernels.team import Team
from . import architectures, hyperparameters, key_balance
from .attention import LARGEST_CONTEXT, Attended, queries_per_job
from .batch import Batch, Piece
from .builder import Builder
from .file_kind import check_is_model
from .gguf_file import GGUFFile
from .memory import fitting_context, spare_bytes
from .packing import output_format, pack
from .page_pool import PagePool
from .rows import Rows
from .tensors import Matrix

Progress = Callable[[str, int, int], None]

BATCH = 512  # most tokens of a step
LARGEST_DEFAULT_CONTEXT = 32768

_open_models: WeakSet[Model] = WeakSet()


class Model:
    """Computes logits for batches of tokens. One step runs at a time."""

    def __init__(self, file: GGUFFile, context: int | None, threads: int, *, cache_tokens: int = 0,
                 cache_types: tuple[str, str] = ("f16", "f16"), vocab_size: int = 1, output_type: str | None = None,
                 team: Team | None = None, check_memory: bool = True, context_flags: str = "-c",
                 input_squares: bool = False, progress: Progress | None = None) -> None:
        """Check the file, compile what is not cached, pack the weights. Raises LcpuError before any kernel runs.

        context: the most positions of a sequence; None: what the model was trained for, at most 32,768.
        cache_tokens: positions of all sequences together, at least those of one; with check_memory, those of one and
        what half of the memory left beside it holds. cache_types: of keys and of values, "f16" or "q8_0".
        vocab_size: how many tokens the model has to know at least. output_type: a block format's name, to compute the
        output layer in another than the file's. team: of so many threads, to share another model's. check_memory:
        refuse a model that takes more memory than is left, and cut a context of None to what fits. context_flags: what
        sets the context, for that error. input_squares: add up the squares of what matrices are multiplied with.
        """
        check_is_model(file)
        build = architectures.builder_of(file)
        self.h = h = hyperparameters.of_file(file)
        if h.vocab_size < vocab_size:
            raise LcpuError(f"{file.path}: the vocabulary has {vocab_size} tokens, but the model only {h.vocab_size}: "
                            "damaged; download the file again")
        self._file = file  # the embedding table stays in it

        def built(context: int) -> tuple[Builder, Rows]:
            pool = PagePool(h, context, cache_tokens, *cache_types)
            builder = Builder(file, h, Batch(BATCH, queries_per_job(h), pool.most), pool, threads,
                              output_format(output_type), input_squares=input_squares)
            return builder, build(builder)

        self.context = _context(h, context)
        self._builder, self._logits = built(self.context)
        if check_memory:
            promised = sum(model.untouched_bytes for model in list(_open_models))
            needs = self._builder.needs()
            fitting = fitting_context(file.path, needs, promised=promised, shorten=context is None,
                                      flags=context_flags)
            if fitting < self.context:
                self.context, cache_tokens = fitting, 0
                self._builder, self._logits = built(fitting)
            spare = spare_bytes(needs, promised=promised)
            if spare is not None:
                self._builder.pool.limit(spare)
        self.batch, self.pool, self.input_squares = self._builder.batch, self._builder.pool, self._builder.input_squares
        self.pool.allocate()
        self.batch.state_slots = self.pool.states.slots
        with announcing(lambda name: progress("compiling", 0, 0) if progress else None):
            self.program = self._builder.program.finish()
            self.team, self._own_team = team or Team(threads), team is None
            try:
                self._pack(progress or (lambda stage, done, total: None))
            except BaseException:
                self.close()
                raise
        _open_models.add(self)

    def _pack(self, progress: Progress) -> None:
        matrices = self._builder.matrices.values()
        total = sum(matrix.panels.nbytes for matrix in matrices)
        done = 0
        for matrix in matrices:
            pack(self.team, matrix, self._file)
            done += matrix.panels.nbytes
            progress("loading", done, total)
        for balance in self._builder.balances:
            key_balance.fill(balance, self.team, self._file)

    @property
    def matrices(self) -> dict[str, Matrix]:
        """The packed weights, by tensor name: all that a step reads of the model but norms and embedded rows."""
        return self._builder.matrices

    def step(self, pieces: Sequence[Piece], program: Program | None = None) -> np.ndarray:
        """Compute up to BATCH tokens in all, of any sequences, and remember their keys and values.

        Returns the logits of the last tokens of each piece that wants them, piece after piece: float32
        [outputs][vocab], a view that the next step overwrites. program: a timed copy of the model's own.
        """
        end = max(piece.start + len(piece.tokens) for piece in pieces)
        for table in self._builder.rope_tables:
            table.extend(end)
        self.batch.fill(pieces)
        self.team.run(program or self.program)
        return self._logits.array[: sum(piece.outputs for piece in pieces), : self.h.vocab_size]

    @property
    def attended(self) -> list[Attended]:
        """What each layer with attention reads."""
        return self._builder.attended

    @property
    def output(self) -> Matrix:
        """The output layer."""
        return next(reversed(self.matrices.values()))

    @property
    def untouched_bytes(self) -> int:
        """Memory that later steps will take: of the positions that none has used yet, and of the first step."""
        needs, pool = self._builder.needs(), self.pool
        beside = needs.context - pool.most * pool.page_bytes  # tables and scratch grow with the context, too
        taken = pool.count * pool.page_bytes + pool.states.slots * pool.states.slot_bytes + beside
        untouched = taken * (pool.count - self.batch.pages_used) // pool.count
        return untouched + (0 if self.batch.pages_used else needs.buffers)

    def close(self) -> None:
        _open_models.discard(self)
        if self._own_team:
            self.team.close()


def _context(h: hyperparameters.Hyperparameters, wanted: int | None) -> int:
    if wanted is None:
        return min(h.context_length, LARGEST_DEFAULT_CONTEXT)
    if not 1 <= wanted <= LARGEST_CONTEXT:
        raise LcpuError(f"a context of {wanted} tokens: choose 1 to {LARGEST_CONTEXT} (-c)")
    return wanted
