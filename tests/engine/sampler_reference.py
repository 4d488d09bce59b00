"""Sampling in the plainest way: everything is sorted, and noise is computed for every token that is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import gumbel


def choose(logits: np.ndarray, ids: Sequence[int], o: GenerationOptions, seed: int, banned: Sequence[int] = ()) -> int:
    logits = logits.copy()
    last = len(ids) if o.repeat_last_n < 0 else o.repeat_last_n
    if o.repeat_penalty != 1.0 and last > 0:
        for token in set(ids[-last:]):
            value = logits[token]
            logits[token] = value / o.repeat_penalty if value > 0 else value * o.repeat_penalty
    logits[list(banned)] = -np.inf
    if o.temperature <= 0.0:
        return int(np.argmax(logits))
    tokens = np.argsort(-logits, kind="stable")[: o.top_k or len(logits)]
    values = logits[tokens].astype(np.float64)
    if o.top_p < 1.0:
        total = np.cumsum(np.exp(values - values[0]))
        values = values[: np.searchsorted(total, o.top_p * total[-1]) + 1]
    values = values[values >= values[0] + np.log(max(o.min_p, 1e-300))]
    noise = gumbel(seed, len(ids), tokens[: len(values)])
    return int(tokens[np.argmax((values - values[0]) / o.temperature + noise)])
