"""How well a model predicts a text (by llama.cpp's method), and how far its predictions are from another model's.

The text is cut into windows of n tokens. Every token after position n/2 of a window is predicted from all tokens of the
window before it. A token's negative log-likelihood (nll) is that of its softmax probability, in nats;
perplexity is exp(mean nll). Source: llama.cpp, tools/perplexity/perplexity.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.errors import LcpuError
from .llm import LLM
from .tokenizer import Tokenizer

SMALLEST_WINDOW = 8  # tokens, of which 3 are scored
PIECE = 1 << 24  # logits of a model that are kept at once: 64 MB
BLOCK = 1 << 17  # logits that become probabilities at once: as float64, they stay in the processor's cache

# The result of `compare` for a position. kl: KL divergence in nats; same_top: 1 if the most likely tokens are equal.
COMPARISON = np.dtype([("nll", "f8"), ("base_nll", "f8"), ("kl", "f8"), ("same_top", "f8")])


@dataclass(frozen=True)
class Estimate:
    """A mean over the scored positions, or its exponential, and the standard error of it."""

    value: float
    uncertainty: float


@dataclass(frozen=True)
class Divergence:
    """How a model's predictions differ from a base model's. KL divergences, in nats, are from the base."""

    ppl: Estimate
    base_ppl: Estimate
    ppl_ratio: Estimate
    kl_mean: Estimate
    kl_median: float
    kl_90: float  # the 90th percentile
    kl_99: float
    kl_999: float  # 99.9
    kl_max: float
    delta_p: Estimate  # by how much the probability of the text's token grows
    delta_p_rms: float  # root mean square of that
    same_top: Estimate  # the share of positions where both models have the same likeliest token


def windows(llm: LLM, text: str, size: int, most: int | None = None) -> list[list[int]]:
    """`cut`, for a model that is loaded."""
    return cut(llm.tokenizer, text, size, most)


def cut(tokenizer: Tokenizer, text: str, size: int, most: int | None = None) -> list[list[int]]:
    """The text in windows of `size` tokens, at most `most` of them. A rest at the end of the text is dropped.

    If the model wants a BOS token, it replaces the first token of each window. Special tokens in the text are read as
    plain text.
    Raises LcpuError if the text has fewer tokens than two windows, as llama.cpp does.
    """
    if size < SMALLEST_WINDOW:
        raise LcpuError(f"windows of {size} tokens are too small: take at least {SMALLEST_WINDOW}")
    bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    ids = bos + tokenizer.encode(text, add_bos=False)
    if len(ids) < 2 * size:
        smaller = f", or a smaller window: -c {len(ids) // 2}" if len(ids) // 2 >= SMALLEST_WINDOW else ""
        raise LcpuError(f"the text has {len(ids)} tokens, but at least {2 * size} are needed, two windows of {size}: "
                        f"give a longer text{smaller}")
    count = len(ids) // size if most is None else min(most, len(ids) // size)
    return [bos + ids[start + len(bos) : start + size] for start in range(0, count * size, size)]


def score(llm: LLM, window: Sequence[int]) -> np.ndarray:
    """The nll of each scored token of a window: float64 [len(window) - 1 - len(window) // 2].

    Raises LcpuError for logits that are not numbers.
    """
    parts = [_nll(log_p, targets) for (log_p,), targets in _predictions([llm], window)]
    return _finite(np.concatenate(parts), "the model")


def compare(llm: LLM, base: LLM, window: Sequence[int]) -> np.ndarray:
    """The comparison of both models at the positions that `score` scores: an array of COMPARISON.

    Raises LcpuError for logits that are not numbers.
    """
    return compare_all([llm], base, window)[0]


def compare_all(llms: Sequence[LLM], base: LLM, window: Sequence[int]) -> list[np.ndarray]:
    """The same for several models, for which the base is computed once."""
    found: list[list[np.ndarray]] = [[] for _ in llms]
    for (base_log_p, *others), targets in _predictions([base, *llms], window):
        base_nll, base_top, base_p = _nll(base_log_p, targets), base_log_p.argmax(axis=1), np.exp(base_log_p)
        for parts, log_p in zip(found, others, strict=True):
            part = np.empty(len(targets), COMPARISON)
            part["nll"], part["base_nll"] = _nll(log_p, targets), base_nll
            part["same_top"] = log_p.argmax(axis=1) == base_top
            with np.errstate(invalid="ignore"):
                np.subtract(base_log_p, log_p, out=log_p)
            # Only rounding can make it negative.
            part["kl"] = np.maximum(np.einsum("tv,tv->t", base_p, log_p), 0)
            parts.append(part)
    return [_checked(np.concatenate(parts)) for parts in found]


def _checked(both: np.ndarray) -> np.ndarray:
    for name, whose in (("nll", "the model"), ("base_nll", "the base model"), ("kl", "one of the models")):
        _finite(both[name], whose)
    return both


def perplexity(nll: np.ndarray) -> Estimate:
    """exp(mean nll) of at least two scored tokens."""
    mean = _mean(nll)
    value = math.exp(mean.value)
    return Estimate(value, value * mean.uncertainty)


def divergence(scores: np.ndarray) -> Divergence:
    """The summary of at least two COMPARISONs."""
    kl, delta_p = scores["kl"], np.exp(-scores["nll"]) - np.exp(-scores["base_nll"])
    return Divergence(
        ppl=perplexity(scores["nll"]),
        base_ppl=perplexity(scores["base_nll"]),
        # Both models saw the same tokens, so that the ratio is far more certain than either.
        ppl_ratio=perplexity(scores["nll"] - scores["base_nll"]),
        kl_mean=_mean(kl),
        kl_median=float(np.median(kl)),
        kl_90=float(np.quantile(kl, 0.9)),
        kl_99=float(np.quantile(kl, 0.99)),
        kl_999=float(np.quantile(kl, 0.999)),
        kl_max=float(kl.max()),
        delta_p=_mean(delta_p),
        delta_p_rms=float(np.sqrt((delta_p**2).mean())),
        same_top=_mean(scores["same_top"]),
    )


def _mean(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), math.sqrt(values.var() / (len(values) - 1)))


def _predictions(llms: Sequence[LLM], window: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The scored positions in blocks: (float64 log-probabilities [models, tokens, vocab], int64 next tokens [tokens]).

    The caller may overwrite the log-probabilities; the next block does so too.
    """
    vocab_size = llms[0].tokenizer.vocab_size  # the output layer may have more rows
    piece_size, block_size = max(PIECE // vocab_size, 1), max(BLOCK // vocab_size, 1)
    log_p = np.empty((len(llms), block_size, vocab_size))
    scratch = np.empty((block_size, vocab_size))
    tokens = np.array(window)
    last = len(window) - 1  # nothing comes after it
    for first in range(len(window) // 2, last, piece_size):
        end = min(first + piece_size, last)
        pieces = [llm.logits(window[:end], first)[:, :vocab_size] for llm in llms]
        for start in range(first, end, block_size):
            size = min(block_size, end - start)
            for logits, out in zip(pieces, log_p, strict=True):
                _log_softmax(logits[start - first :][:size], out[:size], scratch[:size])
            yield log_p[:, :size], tokens[start + 1 : start + 1 + size]


def _log_softmax(logits: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """log(softmax) of each row. logits: float32; `out`, `scratch`: float64 of the same shape."""
    with np.errstate(invalid="ignore"):  # a NaN stays one and is found in the result
        np.subtract(logits, logits.max(axis=1, keepdims=True), out=out, dtype=np.float64)
        out -= np.log(np.exp(out, out=scratch).sum(axis=1, keepdims=True))


def _nll(log_p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return -log_p[np.arange(len(targets)), targets]


def _finite(values: np.ndarray, whose: str) -> np.ndarray:
    """Raises LcpuError if a value is NaN or infinite, or if exp(mean) would overflow."""
    if not abs(values).mean() < 700:
        raise LcpuError(f"the logits of {whose} are not numbers, or far too large: its file is damaged; download it "
                        "again")
    return values
