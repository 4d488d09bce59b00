"""gemma-3-270m in Q4_K_M against llama.cpp, where LCPU_TEST_GEMMA3 names the file.

Both engines round activations to int8, each in its own way, and are as far from the exact logits as from each other.
So a greedy text is followed as llama.cpp has it, and where lcpu would go another way, both must be near a tie.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.engine.llm import LLM
from lcpu.engine.perplexity import perplexity, score, windows

HERE = Path(__file__).parent
GOLDEN: dict[str, Any] = json.loads((HERE / "gemma3.json").read_text(encoding="utf-8"))
MODEL = os.environ.get("LCPU_TEST_GEMMA3", "")
NEAR_TIE = 0.3  # nat

pytestmark = pytest.mark.skipif(not MODEL, reason="LCPU_TEST_GEMMA3 is not set: it names gemma-3-270m in Q4_K_M")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM.load(MODEL, context=1024) as llm:
        yield llm


@pytest.mark.parametrize("case", GOLDEN["greedy"], ids=[case["prompt"] for case in GOLDEN["greedy"]])
def test_greedy_texts_are_those_of_llama_cpp(llm: LLM, case: dict[str, Any]) -> None:
    ids = llm.tokenize(case["prompt"], parse_special=True)
    assert ids == case["prompt_ids"]
    logits = llm.logits(ids + case["ids"])[len(ids) - 1 : -1]
    others = [i for i, token in enumerate(case["ids"]) if logits[i].argmax() != token]
    gaps = {i: (round(float(logits[i].max() - logits[i][case["ids"][i]]), 2), case["gaps"][i]) for i in others}
    assert all(max(both) < 2 * NEAR_TIE and min(both) < NEAR_TIE for both in gaps.values()), gaps
    assert len(others) <= len(case["ids"]) // 5


def test_perplexity(llm: LLM) -> None:
    expected = GOLDEN["perplexity"]
    text = (HERE / "text.txt").read_text(encoding="utf-8")
    nll = [score(llm, window) for window in windows(llm, text, expected["window"])]
    assert len(nll) == expected["windows"]
    assert perplexity(np.concatenate(nll)).value == pytest.approx(expected["value"], rel=0.01)


def test_what_ends_a_text(llm: LLM) -> None:
    tokenizer = llm.tokenizer
    assert tokenizer.encode("<start_of_turn>user\n", parse_special=True)[:2] == [2, 105]
    assert {tokenizer.vocabulary.tokens[token] for token in tokenizer.end_ids} == {"<eos>", "<end_of_turn>", "</s>"}
