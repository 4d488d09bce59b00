"""The Python API: load a model, tokenize, compute logits, generate text."""

from __future__ import annotations

import logging
import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from ..kernels.errors import LcpuError
from ..kernels.isa import Isa, active
from ..kernels.jit import announcing
from ..kernels.pages import POSITIONS
from . import imatrix, input_products, prompt_cache
from .description import describe
from .drafters import Drafters
from .file_kind import check_is_model
from .generate import Generation, GenerationOptions, run_together
from .gguf_file import GGUFFile
from .gguf_metadata import Value
from .input_squares import Squares
from .model import BATCH, Model, Progress
from .opening import open_model
from .scheduler import PARALLEL, Evaluation, Scheduler
from .sequence import TokenSequence, shifted
from .speculation import Drafter
from .threads import thread_count
from .tokenizer import Tokenizer, vocabulary
from .tokenizer.vocabulary import Vocabulary

logger = logging.getLogger("lcpu")

_KEPT_TOKENS = 8192  # of all texts, by default, where the context of one is shorter


class LLM:
    """A loaded model, made by `LLM.load`; a context manager. Text does not depend on threads, batches or drafts."""

    def __init__(self, file: GGUFFile, model: Model, tokenizer: Tokenizer, scheduler: Scheduler, *, context: int,
                 threads: int, load_seconds: float) -> None:
        self.tokenizer, self.context, self.threads, self.load_seconds = tokenizer, context, threads, load_seconds
        self.isa: Isa = active()
        self.metadata: Mapping[str, Value] = file.metadata
        self.description = describe(file)
        self._file, self._model, self._scheduler = file, model, scheduler
        self._drafters = Drafters(tokenizer)
        self._warned_of_bos = False

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, type: str | None = None, threads: int | None = None,
             context: int | None = None, output_type: str | None = None, beside: LLM | None = None,
             parallel: int = PARALLEL, cache_tokens: int | None = None, cache_types: tuple[str, str] = ("f16", "f16"),
             check_memory: bool = True, input_squares: bool = False, progress: Progress | None = None) -> LLM:
        """Load a GGUF file, the folder of a Hugging Face checkpoint, or the embedded model without a path.

        type: of a checkpoint's matrices, such as "q4_0", by default its own: it is converted in memory, as `lcpu
        convert` does, without a file. threads: by default the physical cores that this process may use, fewer for a
        small model. context: the most tokens of a sequence, by default what the model was trained for, at most 32,768.
        output_type: a type such as "q8_0" for the output layer, by default the file's. beside: another model, on whose
        threads this one computes, as is best for a draft model. parallel: texts that are computed at once.
        cache_tokens: of all texts together whose keys and values are kept, at least `context`; more let texts go on
        side by side and be found again. cache_types: of keys and values, "f16" or "q8_0", which takes half the memory.
        check_memory: refuse a model that takes more memory than is left, cut the default context to what fits, and keep
        no more cache_tokens beside it than half of what is left then holds. input_squares: be ready for
        `measure_imatrix`. progress(stage, done, total) is called while "loading" and "compiling".
        Raises LcpuError if the model cannot be run.
        """
        if beside is not None and threads is not None:
            raise LcpuError("a model beside another one has the other's threads: leave out `threads`")
        if not 1 <= parallel <= BATCH:
            raise LcpuError(f"{parallel} texts at once: choose 1 to {BATCH}")
        started = time.perf_counter()
        file = open_model(path, type, beside.threads if beside else threads)
        try:
            check_is_model(file)  # before the tokenizer, which such files often lack
            weight_bytes = sum(info.nbytes for info in file.tensors.values())
            count = beside.threads if beside else thread_count(threads, weight_bytes)
            words = vocabulary.read(file.metadata)
            with announcing(lambda name: progress("compiling", 0, 0) if progress else None):
                model, tokenizer = _load(words, progress, lambda progress: Model(
                    file, context, count, vocab_size=len(words.tokens), output_type=output_type,
                    cache_types=cache_types, cache_tokens=_KEPT_TOKENS if cache_tokens is None else cache_tokens,
                    check_memory=check_memory, input_squares=input_squares,
                    team=beside._model.team if beside else None, progress=progress))
        except BaseException:
            file.close()
            raise
        scheduler = Scheduler(model, tokenizer.vocab_size, parallel)
        return cls(file, model, tokenizer, scheduler, context=model.context, threads=count,
                   load_seconds=time.perf_counter() - started)

    def tokenize(self, text: str, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text, as `Tokenizer.encode` makes them. Two BOS tokens at the start are warned of once."""
        ids = self.tokenizer.encode(text, add_bos, parse_special)
        bos = self.tokenizer.bos_id
        is_double = add_bos and self.tokenizer.add_bos and bos is not None and ids[:2] == [bos, bos]
        if is_double and not self._warned_of_bos:
            self._warned_of_bos = True
            name = self.tokenizer.decode(ids[:1], skip_special=False)
            logger.warning("the prompt starts with %s, and the model adds another one: the text starts with two, which "
                           "may make the answer worse; leave %s out of the prompt", name, name)
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, without control tokens."""
        return self.tokenizer.decode(ids)

    def logits(self, ids: Sequence[int], first: int = 0) -> np.ndarray:
        """The logits after each of ids[first:]: float32 [len(ids) - first, vocab].

        Tokens of ids[:first] that are in the cache are not computed again, so a long text can be given in pieces.
        """
        ids = self._checked(ids)
        if not 0 <= first < len(ids):
            raise LcpuError(f"first is {first}: with {len(ids)} tokens, it must be 0 to {len(ids) - 1}")
        evaluation = Evaluation(self._scheduler)
        try:
            return evaluation.logits(ids, first)[0]
        finally:
            evaluation.close()

    def generate(self, prompt: str, *, max_tokens: int = 128, temperature: float = 0.8, top_k: int = 40,
                 top_p: float = 0.95, min_p: float = 0.05, repeat_penalty: float = 1.0, seed: int | None = None,
                 stop: Sequence[str] = (), context_shift: bool = False, keep: int = 0,
                 draft: DraftSource = "ngram") -> Iterator[str]:
        """The text that follows a prompt, in pieces as they are computed. The draft only makes it faster (`stream`).

        At a full context it ends, or goes on with context_shift, as if the first `keep` tokens and the newer half of
        the others had been the prompt.
        """
        options = GenerationOptions(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                                    min_p=min_p, repeat_penalty=repeat_penalty, seed=seed,
                                    context_shift=context_shift, keep=keep,
                                    stop=(stop,) if isinstance(stop, str) else tuple(stop))
        return iter(self.stream(self.tokenize(prompt), options, draft))

    def stream(self, ids: Sequence[int], options: GenerationOptions | None = None,
               draft: DraftSource = "ngram") -> Generation:
        """A generation after the given ids. A prefix of them that is still in the cache is not computed again.

        draft: what drafts tokens for speculative decoding. "ngram": repetitions in the text. A smaller model with the
        same vocabulary: that model or repetitions, whichever is expected to be faster at each step. None: no drafts.
        The text is the same with all of them. Raises LcpuError if the draft model's vocabulary differs.
        """
        ids = self._checked(ids)
        self._scheduler.check_open()
        options = options or GenerationOptions()
        drafters, when_ended = self._drafters_of(draft)
        sequence = TokenSequence(ids, self.context, options, self.tokenizer.end_ids, drafters, self._scheduler.costs,
                                 self._kept(ids, options))
        return Generation(self._scheduler, sequence, self.tokenizer, options.stop, when_ended)

    def check_draft(self, draft: DraftSource) -> None:
        """Raises LcpuError for what `stream` does not take as a draft."""
        _, when_ended = self._drafters_of(draft)
        when_ended()

    def generate_batch(self, prompts: Sequence[str], *, draft: DraftSource = "ngram", **options: Any) -> list[str]:
        """The texts that follow several prompts, computed together. Options and their defaults as in `generate`.

        Each text is what `generate` gives for its prompt alone. Raises LcpuError, before anything is computed, for a
        prompt that is empty or too long.
        """
        stop = options.pop("stop", ())
        shared = GenerationOptions(**{"max_tokens": 128, **options,
                                      "stop": (stop,) if isinstance(stop, str) else tuple(stop)})
        generations: dict[Generation, list[str]] = {}
        for number, prompt in enumerate(prompts):
            try:
                generations[self.stream(self.tokenize(prompt), shared, draft)] = []
            except LcpuError as error:
                raise LcpuError(f"prompt {number}: {error}") from error
        for generation, text in self.stream_batch(generations):
            generations[generation].append(text)
            if generation.error is not None:
                raise generation.error
        return ["".join(pieces) for pieces in generations.values()]

    def stream_batch(self, generations: Iterable[Generation | None]) -> Iterator[tuple[Generation, str]]:
        """Compute generations of `stream` together: each of them and a piece of its text, as pieces come.

        A generation is over when its finish_reason is there. One that fails has the reason "error", and its `error`
        says why; the others go on. Further generations are taken as earlier ones end, so that there may be millions. A
        None among them says that the next one is not there yet: those at hand go on, and it is asked for again.
        """
        return run_together(self._scheduler, generations)

    def measure_imatrix(self, windows: Sequence[Sequence[int]], told: imatrix.Told | None = None
                        ) -> dict[str, Squares]:
        """What windows of one size, all up to the context, multiply each tensor with: sums of squares by column.

        The model must have been loaded with `input_squares`; what it computed before counts, too. told(windows done,
        windows in all) is called after each step. Raises LcpuError for sums that are not numbers.
        """
        with self._measuring(windows) as (windows, pages, state):
            return imatrix.measure(self._model, pages, windows, told, state=state)

    @property
    def measured_inputs(self) -> list[tuple[tuple[str, ...], int]]:
        """What `measure_products` gives: which tensors are multiplied with the same values, and how many these are."""
        squares = self._model.input_squares
        return [(point.tensors, point.width) for point in squares.points()] if squares else []

    def measure_products(self, windows: Sequence[Sequence[int]], told: imatrix.Told | None = None,
                         most_bytes: int = input_products.MOST_BYTES) -> Iterator[input_products.Products]:
        """The same windows: sums of products by pairs of columns, of one input after another, in the program's order.

        most_bytes: of sums that are kept at once; fewer take more passes over the windows. Experts are left out. The
        engine is busy until the iterator has ended or is closed. Raises LcpuError for sums that are not numbers.
        """
        with self._measuring(windows) as (windows, pages, state):
            yield from input_products.measure(
                self._model, lambda: imatrix.batches(pages, windows, len(windows[0]), told, state=state), most_bytes)

    @contextmanager
    def _measuring(self, windows: Sequence[Sequence[int]]
                   ) -> Iterator[tuple[list[list[int]], Sequence[int], int | None]]:
        """Windows of one size, pages for as many as a step computes, and the slot of a state, where layers have one.

        No other texts are computed meanwhile.
        """
        if self._model.input_squares is None:
            raise LcpuError("the model does not measure its inputs: load it with input_squares=True")
        checked = [self._checked(window) for window in windows]
        size, scheduler = len(checked[0]), self._scheduler
        with scheduler.lock:
            scheduler.check_open()
            with scheduler.changing():
                table = scheduler.cache.open([-1])
                try:
                    at_once = 1 if table.slots else imatrix.most_at_once(size)
                    scheduler.cache.grow(table, at_once * imatrix.pages_of(size) * POSITIONS)
                    yield checked, table.pages, next(iter(table.slots), None)
                finally:
                    scheduler.cache.close(table, [])

    def save_prompt(self, path: str | os.PathLike[str], ids: Sequence[int]) -> int:
        """Write what is computed of the beginning of a text to a prompt cache. Returns how many tokens these are.

        Where none are, nothing is written. Raises LcpuError if the file cannot be written.
        """
        self._check_prompt_cache(path)
        scheduler, pool = self._scheduler, self._model.pool
        with scheduler.lock:
            scheduler.check_open()
            with scheduler.changing():
                pages, known = scheduler.cache.find(ids)
            if known:
                contents = (pool.first_positions(page, min(POSITIONS, known - number * POSITIONS))
                            for number, page in enumerate(pages))
                prompt_cache.save(Path(path), self._origin, ids[:known], contents)
        return known

    def _check_prompt_cache(self, path: str | os.PathLike[str]) -> None:
        if self._model.pool.states.slots:
            raise LcpuError(f"{path}: a prompt cache cannot hold the states of this model's layers: leave it out "
                            "(--prompt-cache)")

    def restore_prompt(self, path: str | os.PathLike[str]) -> list[int]:
        """The ids that a prompt cache has, none if there is no such file. Texts that begin as they do share its pages.

        Raises LcpuError if the file comes from another model or way of computing, or is not whole.
        """
        self._check_prompt_cache(path)
        scheduler, pool = self._scheduler, self._model.pool
        with scheduler.lock:
            scheduler.check_open()
            with scheduler.changing():
                table = scheduler.cache.open([-1])
                ids: list[int] = []

                def room(tokens: int) -> list[np.ndarray]:
                    scheduler.cache.grow(table, min(tokens, pool.count * POSITIONS))
                    return [pool.pages[page] for page in table.pages]

                try:
                    ids = prompt_cache.restore(Path(path), self._origin, room)
                    table.computed = min(len(ids), table.room)
                finally:
                    scheduler.cache.close(table, ids)
        return ids

    @cached_property
    def _origin(self) -> prompt_cache.Origin:
        return prompt_cache.origin_of(self._file, self._model.h, self._model.pool)

    def close(self) -> None:
        """Give back threads and memory. What is called later raises LcpuError."""
        with self._scheduler.lock:
            if not self._scheduler.closed:
                self._scheduler.closed = True
                self._model.close()  # with its threads, if they are its own
                self._file.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def output_layer(self) -> tuple[str, float]:
        """The type of the output layer, and its share of the bytes that computing a token reads."""
        matrix, matrices = self._model.output, self._model.matrices.values()
        return matrix.format.name, matrix.panels.nbytes / sum(each.panels.nbytes for each in matrices)

    @property
    def cache_types(self) -> tuple[str, str]:
        """The types that keys and values are stored in."""
        return self._model.pool.keys.name, self._model.pool.values.name

    @property
    def cache_tokens(self) -> int:
        """Tokens, of all texts together, whose keys and values can be kept."""
        return self._model.pool.count * POSITIONS

    @property
    def trained_context(self) -> int:
        """The context length of the model's training. A longer context is allowed, but text may degrade in it."""
        return self._model.h.context_length

    @property
    def chat_template(self) -> str | None:
        """The model's own template, in Jinja."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    def shifted(self, ids: Sequence[int], options: GenerationOptions) -> list[int]:
        """What a context shift leaves of a text that is longer than the context."""
        return shifted(ids, self.context, self._kept(ids, options))

    def _kept(self, ids: Sequence[int], options: GenerationOptions) -> int:
        """Tokens that a context shift keeps."""
        if options.keep < 0:
            return len(ids)
        return min(len(ids), options.keep + (self.tokenizer.add_bos and ids[0] == self.tokenizer.bos_id))

    def _drafters_of(self, draft: DraftSource) -> tuple[list[Drafter], Callable[[], None]]:
        """The drafters of a text, and what to call when it has ended."""
        if draft is None:
            return [], lambda: None
        ngrams = self._drafters.ngrams()
        if draft == "ngram":
            return [ngrams], lambda: None
        if not isinstance(draft, LLM):
            raise LcpuError(f'draft is {draft!r}: it must be "ngram", a model, or None')
        if draft is self:
            raise LcpuError("a model cannot draft for itself: leave the draft model out, or load the file twice")
        model, when_ended = self._drafters.model(draft._scheduler, draft.tokenizer)
        return [ngrams, model], when_ended

    def _checked(self, ids: Sequence[int]) -> list[int]:
        ids = [operator.index(token) for token in ids]
        if not ids:
            raise LcpuError("the prompt is empty: give at least one token")
        if len(ids) > self.context:
            raise LcpuError(f"the prompt has {len(ids)} tokens and the context only {self.context}: "
                            "shorten it, or set a larger context (-c)")
        vocab_size = self._model.h.vocab_size
        if not 0 <= min(ids) <= max(ids) < vocab_size:
            raise LcpuError(f"token {min(ids) if min(ids) < 0 else max(ids)} is not one of the model's {vocab_size}: "
                            f"they are 0 to {vocab_size - 1}")
        return ids


DraftSource = LLM | Literal["ngram"] | None  # what `LLM.stream` may guess by


def _load(words: Vocabulary, progress: Progress | None, load: Callable[[Progress], Model]) -> tuple[Model, Tokenizer]:
    """A model and its tokenizer, made at the same time: for a large vocabulary that takes a while."""
    with ThreadPoolExecutor(1) as executor:
        tokenizer = executor.submit(Tokenizer, words)

        def report(stage: str, done: int, total: int) -> None:
            if tokenizer.done():
                tokenizer.result()  # an error ends the loading
            if progress:
                progress(stage, done, total)

        model = load(report)
        try:
            return model, tokenizer.result()
        except BaseException:
            model.close()
            raise
