"""A BitNet model of random I2_S weights against what bitnet.cpp computes with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine.llm import LLM


@pytest.fixture(scope="module")
def golden(shared: Path) -> Iterator[tuple[list[int], np.ndarray]]:
    """Tokens and the logits after each: float32 [tokens][vocab].

    bitnet.cpp's for one token at a time: in a batch its own differ from these by up to 0.1.
    """
    with np.load(shared / "golden/bitnet-tiny.npz") as file:
        yield file["tokens"].tolist(), file["ubatch1"]


@pytest.fixture(scope="module")
def logits(shared: Path, golden: tuple[list[int], np.ndarray]) -> np.ndarray:
    with LLM.load(shared / "models/bitnet-tiny-i2_s.gguf", threads=2, context=16) as llm:
        return llm.logits(golden[0])


def test_every_logit(logits: np.ndarray, golden: tuple[list[int], np.ndarray]) -> None:
    expected = golden[1]
    assert logits.shape == expected.shape == (8, 32002)
    assert expected.std(axis=1).min() > 0.2
    assert np.abs(logits - expected).max() < 0.001


def test_correlation(logits: np.ndarray, golden: tuple[list[int], np.ndarray]) -> None:
    """At every position; that of one token's logits with another's is far lower."""
    count = len(logits)
    correlations = np.corrcoef(logits, golden[1])[:count, count:]
    assert correlations.diagonal().min() > 0.999
    assert correlations[~np.eye(count, dtype=bool)].max() < 0.9


def test_top_token(logits: np.ndarray, golden: tuple[list[int], np.ndarray]) -> None:
    assert np.array_equal(logits.argmax(axis=1), golden[1].argmax(axis=1))
