"""Choosing the next token from logits, with llama.cpp's steps in llama.cpp's order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..kernels.errors import LcpuError
from .options import GenerationOptions

_CHUNK = 64


class Sampler:
    """Penalties, top-k, top-p, min-p, temperature, then a draw; or the first maximum at temperature 0."""

    def __init__(self, options: GenerationOptions, banned: Sequence[int] = ()) -> None:
        """`banned` tokens are never chosen."""
        self._options = options
        self._banned = np.array(sorted(banned), np.int64)
        self._random = np.random.default_rng(options.seed)

    def choose(self, logits: np.ndarray, ids: Sequence[int]) -> int:
        """The id of the next token after `ids`. logits: float32 [vocab], left as it is. Raises LcpuError for NaN."""
        o = self._options
        if o.repeat_penalty != 1.0 or len(self._banned):
            logits = self._penalized(logits, ids)
        best = int(np.argmax(logits))  # of a NaN, if there is one
        if not np.isfinite(logits[best]):
            raise LcpuError("the model computed values that are not numbers: its file is damaged or its type unsuited")
        if o.temperature <= 0.0:
            return best
        tokens = top_k(logits, o.top_k if o.top_k > 0 else len(logits))
        values = logits[tokens].astype(np.float64)
        values = values[: _nucleus(values, o.top_p)]
        values = values[: max(1, np.count_nonzero(values >= values[0] + np.log(max(o.min_p, 1e-300))))]
        weights = np.exp((values - values[0]) / o.temperature)
        chosen = np.searchsorted(np.cumsum(weights), self._random.random() * weights.sum(), side="right")
        return int(tokens[min(chosen, len(values) - 1)])

    def _penalized(self, logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """Tokens among the last ones made less likely (Keskar et al., "CTRL"), banned ones impossible."""
        o = self._options
        logits = logits.copy()
        last = len(ids) if o.repeat_last_n < 0 else o.repeat_last_n
        if last > 0 and len(ids):
            recent = np.unique(np.asarray(ids[-last:], np.int64))
            values = logits[recent]
            logits[recent] = np.where(values > 0, values / o.repeat_penalty, values * o.repeat_penalty)
        logits[self._banned] = -np.inf
        return logits


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the k largest logits, largest first, the smaller id first among equals."""
    candidates = np.arange(len(logits))
    if k < len(logits):
        whole = len(logits) // _CHUNK * _CHUNK
        if k < whole // _CHUNK:
            # The k largest are among the k chunks with the largest maxima (and the rest past the last whole chunk).
            chunks = logits[:whole].reshape(-1, _CHUNK)
            maxima = chunks.max(axis=1)
            least = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
            inside = np.nonzero(maxima >= least)[0][:, None] * _CHUNK + np.arange(_CHUNK)
            candidates = np.concatenate([inside.ravel(), np.arange(whole, len(logits))])
        values = logits[candidates]
        least = np.partition(values, len(values) - k)[len(values) - k]
        candidates = candidates[values >= least]
    order = np.argsort(-logits[candidates], kind="stable")
    return candidates[order[:k]]


def _nucleus(values: np.ndarray, top_p: float) -> int:
    """How many of the sorted logits it takes for a probability of top_p, at least one."""
    if top_p >= 1.0:
        return len(values)
    weights = np.exp(values - values[0])
    total = np.cumsum(weights)
    return int(np.searchsorted(total, top_p * total[-1])) + 1
