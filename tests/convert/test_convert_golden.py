"""Converted checkpoints of every architecture against the logits that transformers computes from them."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.type_rules import Overrides
from lcpu.engine.batch import Piece
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.model import Model

from .golden_cases import CASES, GOLDEN, LENGTH, ROWS, case, text

# BitNet's linear layers are I2_S: what the F16 cache rounds makes some of its int8 activations round the other way.
# LongRoPE's factor makes keys larger: rounding them in transformers changes its own logits by 1e-3.
# Gemma 4 norms values, too: rounding them and keys in transformers changes its own logits by 8e-4.
ALLOWED = {"bitnet": 2e-3, "phi3": 2e-3, "gemma4": 2e-3, "gemma4-31b": 2e-3}


def convert_case(convert, name):
    """To a.gguf"""
    tensors, how = case(name)
    kind = "auto" if name == "bitnet" else "f32"
    convert(tensors, kind, overrides=Overrides(embedding="F32", output="F32"), **how).close()


@pytest.mark.parametrize("name", list(CASES))
def test_logits_are_those_of_transformers(convert, tmp_path, name):
    """Within 1e-3 of the largest, with weights in F32, or what ALLOWED says."""
    convert_case(convert, name)
    with LLM.load(tmp_path / "a.gguf", threads=1, context=LENGTH) as llm:
        logits = llm.logits(text())[ROWS]
    with np.load(GOLDEN) as golden:
        wanted = golden[name]
    assert np.abs(logits - wanted).max() < ALLOWED.get(name, 1e-3) * np.abs(wanted).max()
    assert np.array_equal(logits.argmax(-1), wanted.argmax(-1))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("llama-biases", "llama-linear")])
def test_logits_do_not_depend_on_batches_threads_and_pages(convert, tmp_path, name):
    convert_case(convert, name)
    length, models = 200, []
    tokens = (text() * 3)[:length]
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        for threads, pages, sizes in ((1, [0, 1], [length]), (2, [2, 1], [1, 2, 40, 13, 130, 4, 5, 5])):
            model = Model(file, 256, threads, cache_tokens=384)
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            models.append(np.concatenate([model.step([Piece(tokens[start : start + size], start, pages, size)]).copy()
                                          for start, size in zip(starts, sizes, strict=True)]))
            model.close()
    assert np.ptp(models[0]) > 0.05
    assert np.array_equal(models[0].view(np.int32), models[1].view(np.int32))


def test_no_case_is_without_logits():
    with np.load(GOLDEN) as golden:
        assert set(golden) == {*CASES, "transformers"}
