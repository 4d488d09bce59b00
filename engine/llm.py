"""The Python API: load a model, tokenize, compute logits, generate text."""

from __future__ import annotations

import logging
import operator
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from .. import models
from ..kernels.errors import LcpuError
from ..kernels.isa import Isa, active
from .description import describe
from .file_kind import check_is_model
from .generate import Generation, GenerationOptions
from .gguf_file import GGUFFile
from .gguf_metadata import Value
from .model import BATCH, Model, Progress
from .speculation import CostModel, Drafter, DraftModel, DraftModelStatistics, NGrams, check_vocabulary
from .threads import thread_count
from .tokenizer import Tokenizer, from_metadata

logger = logging.getLogger("lcpu")


class LLM:
    """A loaded model, made by `LLM.load`; a context manager. Text does not depend on threads, batches or drafts."""

    def __init__(self, file: GGUFFile, model: Model, tokenizer: Tokenizer, *, context: int, threads: int,
                 load_seconds: float) -> None:
        self.tokenizer, self.context, self.threads, self.load_seconds = tokenizer, context, threads, load_seconds
        self.isa: Isa = active()
        self.metadata: Mapping[str, Value] = file.metadata
        self.description = describe(file)
        self._file, self._model = file, model
        self._cached: list[int] = []  # the tokens whose keys and values are in the cache
        self._costs = CostModel()
        self._ngram_statistics = NGrams.new_statistics()
        self._draft_statistics: WeakKeyDictionary[LLM, DraftModelStatistics] = WeakKeyDictionary()
        self._closed = False
        self._warned_of_bos = False

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, threads: int | None = None,
             context: int | None = None, output_type: str | None = None, beside: LLM | None = None,
             check_memory: bool = True, progress: Progress | None = None) -> LLM:
        """Load a GGUF file, or the embedded model without a path.

        threads: by default the physical cores that this process may use, fewer for a small model. context: the largest
        number of tokens in a sequence; by default as in training, but at most 32,768. output_type: a type such as
        "q8_0" for the output layer; by default the file's. beside: another model, whose threads this one uses too, as
        is best for a draft model. check_memory: refuse a model that takes more memory than is left, and cut the
        default context to what fits. progress(stage, done, total) is called with the stages "loading" and "compiling".
        Raises LcpuError if the model cannot be run.
        """
        if beside is not None and threads is not None:
            raise LcpuError("a model beside another one has the other's threads: leave out `threads`")
        started = time.perf_counter()
        file = GGUFFile.open(path if path is not None else models.path())
        try:
            check_is_model(file)  # before the tokenizer, which such files often lack
            weight_bytes = sum(info.nbytes for info in file.tensors.values())
            count = beside.threads if beside else thread_count(threads, weight_bytes)
            tokenizer = from_metadata(file.metadata)
            model = Model(file, context, count, vocab_size=tokenizer.vocab_size, output_type=output_type,
                          team=beside._model.team if beside else None, check_memory=check_memory, progress=progress)
        except BaseException:
            file.close()
            raise
        return cls(file, model, tokenizer, context=model.context, threads=count,
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
        return self._compute(ids, first)[0]

    def generate(self, prompt: str, *, max_tokens: int = 128, temperature: float = 0.8, top_k: int = 40,
                 top_p: float = 0.95, min_p: float = 0.05, repeat_penalty: float = 1.0, seed: int | None = None,
                 stop: Sequence[str] = (), draft: DraftSource = "ngram") -> Iterator[str]:
        """The text that follows a prompt, in pieces as they are computed. `stream` explains the draft."""
        options = GenerationOptions(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                                    min_p=min_p, repeat_penalty=repeat_penalty, seed=seed,
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
        self._check_open()
        return Generation(self._forward, self.tokenizer, ids, self.context, options or GenerationOptions(),
                          self._drafters(draft), self._costs)

    def close(self) -> None:
        """End the threads and free the memory. Later calls raise LcpuError."""
        with self._model.team.lock:
            if not self._closed:
                self._closed = True
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
    def trained_context(self) -> int:
        """The context length of the model's training. A longer context is allowed, but text may degrade in it."""
        return self._model.h.context_length

    @property
    def chat_template(self) -> str | None:
        """The model's own template, in Jinja."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    def _drafters(self, draft: DraftSource) -> list[Drafter]:
        if draft is None:
            return []
        ngrams = NGrams(self._ngram_statistics)
        if draft == "ngram":
            return [ngrams]
        if not isinstance(draft, LLM):
            raise LcpuError(f'draft is {draft!r}: it must be "ngram", a model, or None')
        if draft not in self._draft_statistics:
            check_vocabulary(self.tokenizer, draft.tokenizer)
            self._draft_statistics[draft] = DraftModelStatistics()
        statistics = self._draft_statistics[draft]
        return [ngrams, DraftModel(lambda ids: draft._forward(ids)[0][0], draft.context, draft.tokenizer.vocab_size,
                                   self.tokenizer.vocab_size, statistics)]

    def _forward(self, ids: Sequence[int], draft: Sequence[int] = ()) -> tuple[np.ndarray, int]:
        """(logits [1 + drafted] after the last id and each drafted token, how many ids were in the cache)."""
        logits, reused = self._compute([*ids, *draft], len(ids) - 1)
        return logits[:, : self.tokenizer.vocab_size], reused  # the output layer may have more rows

    def _compute(self, ids: list[int], first: int) -> tuple[np.ndarray, int]:
        """(logits after each of ids[first:], how many ids before were in the cache). Computes what the cache lacks."""
        out = np.empty((len(ids) - first, self._model.h.vocab_size), np.float32)
        with self._model.team.lock:
            self._check_open()
            reused = _common_prefix(self._cached, ids[:first])
            del self._cached[reused:]
            started = time.perf_counter()
            for start in range(reused, len(ids), BATCH):
                piece = ids[start : start + BATCH]
                wanted = range(max(first - start, 0), len(piece))
                row = max(start - first, 0)
                out[row : row + len(wanted)] = self._step(piece, wanted)
            if reused == first:
                self._costs.record(len(ids) - first, time.perf_counter() - started)
        return out, reused

    def _step(self, piece: Sequence[int], outputs: Sequence[int]) -> np.ndarray:
        """Compute tokens that follow the cached ones, and add them to the cached ones if that succeeds."""
        start = len(self._cached)
        logits = self._model.step(piece, [0] * len(piece), range(start, start + len(piece)), outputs)
        self._cached += piece
        return logits

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

    def _check_open(self) -> None:
        if self._closed:
            raise LcpuError("the model is closed: load it again")


DraftSource = LLM | Literal["ngram"] | None  # what may draft tokens for `LLM.stream`


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    return next(i for i in range(size) if a[i] != b[i])
