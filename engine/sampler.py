"""Choosing the next token from logits, with llama.cpp's steps in llama.cpp's order.

The draw's random numbers are a function of the seed, the position in the text and the token, not of what was drawn
before: one text belongs to a seed, however many tokens were computed at a time or guessed in vain.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

import numpy as np

from ..kernels.errors import LcpuError
from .options import GenerationOptions

_GROUP = 32
_FEW = 4096  # candidates that are sorted and drawn from one by one; more are not
_FRONT = 256  # of more candidates, those that are looked at first
_BLOCK = 1 << 14  # random words that are made at once, in the processor's cache
_WINDOW = 512  # tokens that a penalty looks back for which there is no need to keep an array
_FEW_GUESSED = 64  # tokens at the end of a text that may have been guessed wrongly
_MOST_NOISE = 37.0  # of random numbers with 53 bits
_WORD = 2**64 - 1
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # splitmix64's


class Sampler:
    """Penalties, top-k, top-p, min-p, temperature, then a draw; or the first maximum at temperature 0."""

    def __init__(self, options: GenerationOptions, banned: Sequence[int] = ()) -> None:
        """`banned` tokens are never chosen."""
        self.dropped = 0  # tokens of the text that are not among the ids any more: they count for positions only
        self._options = options
        self._banned = np.array(sorted(banned), np.int64)
        self._text = _Text()
        self._scratch = np.empty((3, 0))
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
        position = len(ids) + self.dropped
        count = min(o.top_k or len(logits), len(logits))
        if count > _FEW:
            return self._draw_from_many(logits, position, _last(logits, count, o, self._scratch_for(logits)))
        tokens = top_k(logits, count)
        values = logits[tokens].astype(np.float64)
        values = values[: _nucleus(values, o.top_p)]
        values = values[: max(1, np.count_nonzero(values >= _least(values[0], o.min_p)))]
        return self._draw(tokens[: len(values)], values, values[0], position)[0]

    def _draw(self, tokens: np.ndarray, values: np.ndarray, best: float, position: int) -> tuple[int, float]:
        """(a token drawn from those with these logits, how well it did), best being the largest logit of all."""
        # Where a logit and Gumbel noise have the largest sum is a draw from the softmax (Maddison et al., 2014).
        with np.errstate(over="ignore"):  # of a temperature near 0
            sums = (values - best) / self._options.temperature + gumbel(self._seed, position, tokens)
        first = int(np.argmax(sums))
        return int(tokens[first]), float(sums[first])

    def _draw_from_many(self, logits: np.ndarray, position: int, last: tuple[float, int]) -> int:
        """The token that `_draw` gives of those up to the last one, without noise for most of them.

        The first few tokens set a mark; of the others, only one with much noise can do better. Which have that much is
        seen from their random numbers, before any logarithm is taken.
        """
        front = top_k(logits, _FRONT)
        values = logits[front].astype(np.float64)
        allowed = _up_to(values, front, last)
        token, mark = self._draw(front[allowed], values[allowed], values[0], position)
        noise = mark - float(values[-1] - values[0]) / self._options.temperature  # the least that another one needs
        if not allowed[-1] or not noise <= _MOST_NOISE:
            return token
        uniform = math.exp(-math.exp(-noise + 1e-6))
        others = _random_at_least(self._seed, position, len(logits), int(max(uniform * 2.0**53 - 2, 0)) << 11)
        others = others[_up_to(logits[others], others, last)]
        if not len(others):
            return token
        other, sum_ = self._draw(others, logits[others].astype(np.float64), values[0], position)
        return other if sum_ > mark else token

    def _scratch_for(self, logits: np.ndarray) -> np.ndarray:
        if self._scratch.shape[1] != len(logits):
            self._scratch = np.empty((3, len(logits)))
        return self._scratch

    def _recent(self, ids: Sequence[int], last: int, vocab_size: int) -> np.ndarray:
        """The tokens among the last ids, each once."""
        if min(last, len(ids)) <= _WINDOW:
            return np.unique(np.asarray(ids[-last:], np.int64))
        is_recent = np.zeros(vocab_size, np.bool_)
        is_recent[self._text.array(ids)[-last:]] = True
        return np.flatnonzero(is_recent)

    def _penalized(self, logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """Tokens among the last ones made less likely (Keskar et al., "CTRL"), banned ones impossible."""
        o = self._options
        logits = logits.copy()
        last = len(ids) if o.repeat_last_n < 0 else o.repeat_last_n
        if o.repeat_penalty != 1.0 and last > 0 and len(ids):
            recent = self._recent(ids, last, len(logits))
            values = logits[recent]
            logits[recent] = np.where(values > 0, values / o.repeat_penalty, values * o.repeat_penalty)
        logits[self._banned] = -np.inf
        return logits


class _Text:
    """The ids of a text as an array. A list is slow to convert, so that only what is new since the last time is."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._array = np.empty(0, np.int64)

    def array(self, ids: Sequence[int]) -> np.ndarray:
        """int64 [len(ids)], valid until the next call."""
        ids = list(ids)
        if len(ids) > len(self._array):
            self._array = np.concatenate([self._array, np.empty(len(ids), np.int64)])
        shared = self._shared(ids)
        self._array[shared : len(ids)] = ids[shared:]
        self._ids = ids
        return self._array[: len(ids)]

    def _shared(self, ids: list[int]) -> int:
        """How many ids at the start are those of the last time: all but a few, which were guessed, or none."""
        size = min(len(ids), len(self._ids))
        for shared in (size, size - _FEW_GUESSED):
            if shared > 0 and ids[:shared] == self._ids[:shared]:
                return shared
        return 0


def _least(best: float, min_p: float) -> float:
    """The least logit of a token that is min_p times as probable as the best one."""
    return float(best + np.log(max(min_p, 1e-300)))


def _last(logits: np.ndarray, count: int, o: GenerationOptions, scratch: np.ndarray) -> tuple[float, int]:
    """(logit, id) of the last token that may be drawn, as all are sorted by falling logits and then by rising ids.

    count: of top-k. Each filter keeps the first tokens, so that the one that keeps the fewest decides.
    scratch: float64 [3, vocab], since new pages of memory take longer than the sums.
    """
    best = float(logits.max())
    ends = [(_least(best, o.min_p), len(logits))]
    if o.top_p < 1.0 or count < len(logits):
        values = scratch[0].view(np.float32)[: len(logits)]
        values[:] = logits
        values.sort()
        count = _nucleus(values[::-1][:count], o.top_p, scratch[1:, :count])
        value = values[len(values) - count]
        equal = np.flatnonzero(logits == value)
        ends.append((float(value), int(equal[count - np.count_nonzero(logits > value) - 1])))
    return max(ends, key=lambda end: (end[0], -end[1]))


def _up_to(values: np.ndarray, tokens: np.ndarray, last: tuple[float, int]) -> np.ndarray:
    """Which of these tokens, with these logits, are not behind the last one: bool."""
    value, token = np.float64(last[0]), last[1]
    return (values > value) | ((values == value) & (tokens <= token))


def gumbel(seed: int, position: int, tokens: np.ndarray) -> np.ndarray:
    """Gumbel noise for each of these tokens (float64), the same whenever it is asked for. Seeds of any size count."""
    uniform = ((_random(seed, position, tokens.astype(np.uint64)) >> 11) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def _random_at_least(seed: int, position: int, vocab_size: int, least: int) -> np.ndarray:
    """The tokens whose random numbers are at least this large."""
    found = []
    for start in range(0, vocab_size, _BLOCK):
        tokens = np.arange(start, min(start + _BLOCK, vocab_size), dtype=np.uint64)
        found.append(np.flatnonzero(_random(seed, position, tokens) >= np.uint64(least)) + start)
    return np.concatenate(found)


def _random(seed: int, position: int, tokens: np.ndarray) -> np.ndarray:
    """A random number of 64 bits for each of these tokens (uint64), which are overwritten with them."""
    state = position
    while seed:
        state = _splitmix(state * _GOLDEN + seed & _WORD)
        seed >>= 64
    words = tokens
    words *= np.uint64(_GOLDEN)
    words += np.uint64(_splitmix(state + _GOLDEN & _WORD))
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= np.uint64(_MIX_1)
    words ^= np.right_shift(words, np.uint64(27), out=shifted)
    words *= np.uint64(_MIX_2)
    words ^= np.right_shift(words, np.uint64(31), out=shifted)
    return words


def _splitmix(word: int) -> int:
    """A 64-bit word well mixed (Steele, Lea, Flood, "Fast Splittable ... Generators", 2014); `_random` mixes arrays."""
    word = (word ^ word >> 30) * _MIX_1 & _WORD
    word = (word ^ word >> 27) * _MIX_2 & _WORD
    return word ^ word >> 31


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the k largest logits, largest first, the smaller id first among equals."""
    if k >= len(logits):
        return np.argsort(-logits, kind="stable")
    # At least k tokens reach the k-th largest maximum of as many groups, so the k largest are among those.
    groups = len(logits) // _GROUP
    maxima = logits[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0) if k < groups else logits
    least = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    above = np.flatnonzero(logits > least)
    above = above[np.argsort(-logits[above], kind="stable")]
    return above[:k] if len(above) >= k else np.append(above, np.flatnonzero(logits == least)[: k - len(above)])


def _nucleus(values: np.ndarray, top_p: float, scratch: np.ndarray | None = None) -> int:
    """How many of the sorted logits it takes for a probability of top_p, at least one. scratch: float64 [2, values]."""
    if top_p >= 1.0:
        return len(values)
    weights, total = np.empty((2, len(values))) if scratch is None else scratch
    np.subtract(values, values[0], out=weights, dtype=np.float64)
    np.cumsum(np.exp(weights, out=weights), out=total)
    return int(np.searchsorted(total, top_p * total[-1])) + 1
