"""Converted checkpoints of every architecture against the logits that transformers computes from them."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.type_rules import Overrides
from lcpu.convert.write import write_plan

from .golden_cases import CASES, GOLDEN, ROWS, text, write_case


@pytest.mark.parametrize("name", list(CASES))
def test_logits_are_those_of_transformers(tmp_path, name):
    """Within 1e-3 of the largest, with weights in F32. BitNet's linear layers are I2_S, and twice that is allowed: what
    the F16 cache rounds makes some of its int8 activations round the other way."""
    bitnet = name == "bitnet"
    overrides = Overrides(embedding="F32", output="F32")
    with open_checkpoint(write_case(name, tmp_path / name)) as checkpoint:
        write_plan(plan(checkpoint, "auto" if bitnet else "f32", name, overrides), tmp_path / "a.gguf")
    with LLM.load(tmp_path / "a.gguf", threads=1) as llm:
        logits = llm.logits(text())[ROWS]
    with np.load(GOLDEN) as golden:
        wanted = golden[name]
    assert np.abs(logits - wanted).max() < (2e-3 if bitnet else 1e-3) * np.abs(wanted).max()
    assert np.array_equal(logits.argmax(-1), wanted.argmax(-1))


def test_no_case_is_without_logits():
    with np.load(GOLDEN) as golden:
        assert set(golden) == {*CASES, "transformers"}
