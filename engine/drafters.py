"""Who drafts for the texts of a model: repetitions in a text, and a smaller model."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from .scheduler import Evaluation, Scheduler
from .speculation import DraftModel, DraftModelStatistics, NGrams, check_vocabulary
from .tokenizer import Tokenizer


class Drafters:
    """Makes the drafters of each text. They share what was measured of the texts before."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """tokenizer: of the model that verifies the drafts."""
        self._tokenizer = tokenizer
        self._ngram_statistics = NGrams.new_statistics()
        self._model_statistics: WeakKeyDictionary[Scheduler, DraftModelStatistics] = WeakKeyDictionary()

    def ngrams(self) -> NGrams:
        return NGrams(self._ngram_statistics)

    def model(self, scheduler: Scheduler, tokenizer: Tokenizer) -> tuple[DraftModel, Callable[[], None]]:
        """A drafter that runs a model, given by what computes it, and what to call when the text has ended.

        Raises LcpuError if the model's vocabulary is another one.
        """
        if scheduler not in self._model_statistics:
            check_vocabulary(self._tokenizer, tokenizer)
            self._model_statistics[scheduler] = DraftModelStatistics()
        evaluation, size = Evaluation(scheduler), tokenizer.vocab_size
        drafter = DraftModel(lambda ids: evaluation.logits(ids, len(ids) - 1)[0][0, :size], scheduler.model.context,
                             size, self._tokenizer.vocab_size, self._model_statistics[scheduler])
        return drafter, evaluation.close
