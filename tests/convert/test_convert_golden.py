"""Converted checkpoints of every architecture against the logits that transformers computes from them."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.type_rules import Overrides

from .golden_cases import CASES, GOLDEN, ROWS, case, text


@pytest.mark.parametrize("name", list(CASES))
def test_logits_are_those_of_transformers(convert, tmp_path, name):
    """Within 1e-3 of the largest, with weights in F32. BitNet's linear layers are I2_S, and twice that is allowed: what
    the F16 cache rounds makes some of its int8 activations round the other way."""
    bitnet = name == "bitnet"
    tensors, how = case(name)
    convert(tensors, "auto" if bitnet else "f32", overrides=Overrides(embedding="F32", output="F32"), **how).close()
    with LLM.load(tmp_path / "a.gguf", threads=1) as llm:
        logits = llm.logits(text())[ROWS]
    with np.load(GOLDEN) as golden:
        wanted = golden[name]
    assert np.abs(logits - wanted).max() < (2e-3 if bitnet else 1e-3) * np.abs(wanted).max()
    assert np.array_equal(logits.argmax(-1), wanted.argmax(-1))


def test_no_case_is_without_logits():
    with np.load(GOLDEN) as golden:
        assert set(golden) == {*CASES, "transformers"}
