"""Perplexity and KL divergence, against the formulas written out token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine import perplexity
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

TEXT = (
    "Once upon a time there was a little girl named Lily. She had a red ball, and she liked to play with it in the "
    "garden. One day the ball rolled under a big tree, and a small bird sat on it. Lily asked the bird to give the "
    "ball back. The bird sang a song and flew away. Lily was happy, and she went home to tell her mother about it all."
)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM.load(threads=1, context=64) as llm:
        yield llm


def log_probabilities(llm: LLM, window: list[int]) -> np.ndarray:
    """float64 [len(window), vocab], from logits that are computed in one go."""
    logits = llm.logits(window)[:, : llm.tokenizer.vocab_size].astype(np.float64)
    return np.array([row - row.max() - math.log(sum(math.exp(x) for x in row - row.max())) for row in logits])


def expected_nll(llm: LLM, window: list[int]) -> list[float]:
    log_p = log_probabilities(llm, window)
    return [-log_p[position, window[position + 1]] for position in range(len(window) // 2, len(window) - 1)]


@pytest.mark.parametrize("size", [8, 16, 33])
def test_perplexity(llm: LLM, size: int) -> None:
    ids = llm.tokenize(TEXT)
    expected: list[float] = []
    for start in range(0, len(ids) - size + 1, size):
        expected += expected_nll(llm, [llm.tokenizer.bos_id, *ids[start + 1 : start + size]])
    windows = perplexity.windows(llm, TEXT, size)
    nll = np.concatenate([perplexity.score(llm, window) for window in windows])
    np.testing.assert_allclose(nll, expected, rtol=1e-10)

    estimate = perplexity.perplexity(nll)
    mean = sum(expected) / len(expected)
    mean_of_squares = sum(x * x for x in expected) / len(expected)
    assert estimate.value == pytest.approx(math.exp(mean), rel=1e-9)
    error = math.sqrt((mean_of_squares - mean**2) / (len(expected) - 1))
    assert estimate.uncertainty == pytest.approx(math.exp(mean) * error, rel=1e-6)


def test_the_model_knows_its_language(llm: LLM) -> None:
    def of(text: str) -> float:
        windows = perplexity.windows(llm, text, 32)
        return perplexity.perplexity(np.concatenate([perplexity.score(llm, window) for window in windows])).value

    backwards = " ".join(reversed(TEXT.split()))
    assert 1 < of(TEXT) < of(backwards) / 2


def test_windows(llm: LLM) -> None:
    ids = llm.tokenize(TEXT)
    windows = perplexity.windows(llm, TEXT, 20)
    assert len(windows) == len(ids) // 20 >= 3
    for number, window in enumerate(windows):
        assert window == [llm.tokenizer.bos_id, *ids[number * 20 + 1 : number * 20 + 20]]
    assert perplexity.windows(llm, TEXT, 20, 2) == windows[:2]
    assert perplexity.windows(llm, TEXT, 20, 1000) == windows


def test_windows_without_bos_and_eos(write_tiny: Callable[..., Path]) -> None:
    path = write_tiny(**{"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True})
    with LLM.load(path, threads=1) as llm:
        ids = llm.tokenize("abcdefgh" * 4, add_bos=False)
        assert perplexity.windows(llm, "abcdefgh" * 4, len(ids) // 2) == [
            ids[: len(ids) // 2], ids[len(ids) // 2 : len(ids) // 2 * 2]
        ]  # fmt: skip


def test_a_window_is_two_at_least(llm: LLM) -> None:
    count = len(llm.tokenize(TEXT))
    size = count // 2
    assert len(perplexity.windows(llm, TEXT, size)) == 2
    message = (f"the text has {count} tokens, but at least {2 * size + 2} are needed, two windows of {size + 1}: "
               f"give a longer text, or a smaller window: -c {size}")  # fmt: skip
    with pytest.raises(LcpuError) as caught:
        perplexity.windows(llm, TEXT, size + 1)
    assert str(caught.value) == message
    with pytest.raises(LcpuError, match=r"give a longer text$"):
        perplexity.windows(llm, "", 8)
    with pytest.raises(LcpuError, match="windows of 7 tokens are too small: take at least 8"):
        perplexity.windows(llm, TEXT, 7)


def test_special_tokens_are_text(llm: LLM) -> None:
    marked = TEXT + "</s>" + TEXT
    assert all(llm.tokenizer.eos_id not in window for window in perplexity.windows(llm, marked, 16))


@pytest.mark.parametrize(("piece", "block"), [(1, 1), (3 * 286, 2 * 286), (600 * 286, 100 * 286)])
def test_pieces_and_blocks_change_nothing(write_llama: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
                                          piece: int, block: int) -> None:
    window = np.random.default_rng(0).integers(3, 286, 1100).tolist()
    with LLM.load(write_llama(context=1100), threads=2) as llm:
        expected = perplexity.score(llm, window)
        monkeypatch.setattr(perplexity, "PIECE", piece)
        monkeypatch.setattr(perplexity, "BLOCK", block)
        assert np.array_equal(perplexity.score(llm, window), expected)
    assert expected.shape == (549,)


def test_rows_past_the_vocabulary_do_not_count(write_llama: Callable[..., Path]) -> None:
    """Some tables have rows that no token has; here they would be the likeliest."""
    output = np.random.default_rng(0).standard_normal((300, 32), dtype=np.float32)
    output[286:] *= 1000
    window = list(range(100, 130))
    with LLM.load(write_llama(vocab=300, tensors={"output.weight": output}), threads=1) as llm:
        np.testing.assert_allclose(perplexity.score(llm, window), expected_nll(llm, window), rtol=1e-10)


def test_a_model_does_not_differ_from_itself(llm: LLM) -> None:
    scores = np.concatenate([perplexity.compare(llm, llm, window) for window in perplexity.windows(llm, TEXT, 32)])
    assert not scores["kl"].any()
    found = perplexity.divergence(scores)
    assert found.kl_mean == perplexity.Estimate(0.0, 0.0)
    assert (found.kl_median, found.kl_99, found.kl_max) == (0.0, 0.0, 0.0)
    assert found.same_top == found.ppl_ratio == perplexity.Estimate(1.0, 0.0)
    assert found.ppl == found.base_ppl


def test_divergence(write_llama: Callable[..., Path]) -> None:
    windows = np.random.default_rng(1).integers(3, 286, (3, 40)).tolist()
    with (LLM.load(write_llama("q4_0"), threads=1) as llm, LLM.load(write_llama("f32"), threads=1) as base):
        scores = np.concatenate([perplexity.compare(llm, base, window) for window in windows])
        nll = np.concatenate([perplexity.score(llm, window) for window in windows])
        base_nll = np.concatenate([perplexity.score(base, window) for window in windows])
        kl, same = [], []
        for window in windows:
            log_p, log_q = log_probabilities(base, window)[20:39], log_probabilities(llm, window)[20:39]
            for p, q in zip(log_p, log_q, strict=True):
                kl.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
                same.append(max(range(286), key=p.__getitem__) == max(range(286), key=q.__getitem__))
    assert np.array_equal(scores["nll"], nll)
    assert np.array_equal(scores["base_nll"], base_nll)
    np.testing.assert_allclose(scores["kl"], kl, rtol=1e-6, atol=1e-12)
    assert min(kl) > 0
    assert scores["same_top"].tolist() == same
    assert 0 < sum(same) < len(same)

    found = perplexity.divergence(scores)
    assert found.ppl == perplexity.perplexity(nll)
    assert found.base_ppl == perplexity.perplexity(base_nll)
    assert found.ppl_ratio.value == pytest.approx(found.ppl.value / found.base_ppl.value)
    assert found.ppl_ratio.uncertainty < found.ppl.uncertainty / found.base_ppl.value
    kl.sort()
    assert found.kl_mean.value == pytest.approx(sum(kl) / 57, rel=1e-6)
    assert found.kl_median == pytest.approx(kl[28], rel=1e-6)
    assert found.kl_99 == pytest.approx(0.56 * kl[55] + 0.44 * kl[56], rel=1e-6)
    assert found.kl_max == pytest.approx(kl[56], rel=1e-6)
    share = sum(same) / 57
    assert found.same_top.value == pytest.approx(share)
    assert found.same_top.uncertainty == pytest.approx(math.sqrt(share * (1 - share) / 56))


@pytest.mark.parametrize("weight", [math.nan, math.inf, 1e30])
def test_logits_that_are_no_use(write_llama: Callable[..., Path], tiny_llm: LLM, weight: float) -> None:
    output = np.random.default_rng(0).standard_normal((286, 32), dtype=np.float32)
    output[7] = weight
    window = list(range(100, 130))
    with LLM.load(write_llama(tensors={"output.weight": output}), threads=1) as llm:
        with pytest.raises(LcpuError, match="the logits of the model are not numbers, or far too large"):
            perplexity.score(llm, window)
        with pytest.raises(LcpuError, match="the logits of the base model are not numbers"):
            perplexity.compare(tiny_llm, llm, window)
