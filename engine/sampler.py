"""Choosing the next token from logits, with llama.cpp's steps in llama.cpp's order.

The draw's random numbers are a function of the seed, the position in the text and the token, not of what was drawn
before: one text belongs to a seed, however many tokens were computed at a time or guessed in vain.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.errors import LcpuError
from .options import GenerationOptions

_GROUP = 32
_WORD = 2**64 - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # splitmix64's


class Sampler:
    """Penalties, top-k, top-p, min-p, temperature, then a draw; or the first maximum at temperature 0."""

    def __init__(self, options: GenerationOptions, banned: Sequence[int] = ()) -> None:
        """`banned` tokens are never chosen."""
        self._options = options
        self._banned = np.array(sorted(banned), np.int64)
        self._seed = secrets.randbits(64) if options.seed is None else options.seed

    def choose(self, logits: np.ndarray, ids: Sequence[int]) -> int:
        """The id of the next token after `ids`. logits: float32 [vocab], left as it is. Raises LcpuError for NaN."""
        o = self._options
        if o.repeat_penalty != 1.0 or len(self._banned):
            logits = self._penalized(logits, ids)
        best = int(np.argmax(logits))  # of a NaN, if there is one
        if not np.isfinite(logits[best]):
            raise LcpuError("the model computed values that are not numbers: its file is damaged or its type "
                            "unsuited; take another file of it")
        if o.temperature <= 0.0:
            return best
        tokens = top_k(logits, o.top_k if o.top_k > 0 else len(logits))
        values = logits[tokens].astype(np.float64)
        values = values[: _nucleus(values, o.top_p)]
        values = values[: max(1, np.count_nonzero(values >= values[0] + np.log(max(o.min_p, 1e-300))))]
        # Where a logit and Gumbel noise have the largest sum is a draw from the softmax (Maddison et al., 2014).
        noise = gumbel(self._seed, len(ids), tokens[: len(values)])
        return int(tokens[np.argmax((values - values[0]) / o.temperature + noise)])

    def _penalized(self, logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """Tokens among the last ones made less likely (Keskar et al., "CTRL"), banned ones impossible."""
        o = self._options
        logits = logits.copy()
        last = len(ids) if o.repeat_last_n < 0 else o.repeat_last_n
        if o.repeat_penalty != 1.0 and last > 0 and len(ids):
            recent = np.unique(np.asarray(ids[-last:], np.int64))
            values = logits[recent]
            logits[recent] = np.where(values > 0, values / o.repeat_penalty, values * o.repeat_penalty)
        logits[self._banned] = -np.inf
        return logits


def gumbel(seed: int, position: int, tokens: np.ndarray) -> np.ndarray:
    """Gumbel noise for each of these tokens (float64), the same whenever it is asked for. Seeds of any size count."""
    state = position
    while seed:
        state = _splitmix(state * _GOLDEN + seed & _WORD)
        seed >>= 64
    bits = _splitmix(tokens.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(_splitmix(state + _GOLDEN & _WORD)))
    uniform = ((bits >> 11) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def _splitmix(word: Any) -> Any:
    """A 64-bit word well mixed, or each of an array (Steele, Lea, Flood, "Fast Splittable ... Generators", 2014)."""
    word = (word ^ word >> 30) * _MIX_1 & _WORD
    word = (word ^ word >> 27) * _MIX_2 & _WORD
    return word ^ word >> 31


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the k largest logits, largest first, the smaller id first among equals."""
    candidates = np.arange(len(logits))
    groups = len(logits) // _GROUP
    if k < groups:
        # At least k tokens reach the k-th largest maximum of as many groups, so the k largest are among those.
        maxima = logits[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
        candidates = np.flatnonzero(logits >= np.partition(maxima, groups - k)[groups - k])
    order = np.argsort(-logits[candidates], kind="stable")
    return candidates[order[:k]]


def _nucleus(values: np.ndarray, top_p: float) -> int:
    """How many of the sorted logits it takes for a probability of top_p, at least one."""
    if top_p >= 1.0:
        return len(values)
    weights = np.exp(values - values[0])
    total = np.cumsum(weights)
    return int(np.searchsorted(total, top_p * total[-1])) + 1
