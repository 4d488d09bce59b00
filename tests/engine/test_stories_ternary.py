"""The embedded ternary model: its float16 matrices as I2_S predict its stories as well."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lcpu import models
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine import perplexity
from lcpu.engine.gguf_file import GGUFFile, TensorInfo
from lcpu.engine.llm import LLM
from lcpu.models.recipe.stories_text import stories

from . import ternary


@pytest.fixture(scope="module")
def master() -> Iterator[LLM]:
    with LLM.load(models.path("stories-ternary"), threads=2) as llm:
        yield llm


def as_i2_s(file: GGUFFile, info: TensorInfo) -> TensorToWrite:
    """A tensor of the master, in I2_S if it is a matrix of a layer."""
    data = file.data(info.name)
    if len(info.shape) == 1 or not info.name.startswith("blk."):
        return TensorToWrite(info.name, info.shape, info.type_id, data)
    values = data.view(np.float16)
    scale = float(np.abs(values).max())
    return TensorToWrite(info.name, info.shape, 36, ternary.encode(np.sign(values), scale))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    path = tmp_path_factory.mktemp("ternary") / "stories.gguf"
    with GGUFFile.open(models.path("stories-ternary")) as file:
        tensors = [as_i2_s(file, info) for info in file.tensors.values()]
        assert sum(tensor.type_id == 36 for tensor in tensors) == 7 * 4
        write_gguf(path, dict(file.metadata), tensors)
    with LLM.load(path, threads=2) as llm:
        yield llm


def test_perplexity(master: LLM, packed: LLM) -> None:
    """Of the second halves of stories that training has not seen, each given its first half."""
    windows = [master.tokenize(text) for text in stories(6, seed=21)]
    both = perplexity.divergence(np.concatenate([perplexity.compare(packed, master, window) for window in windows]))
    assert 1.2 < both.base_ppl.value < 2
    assert both.ppl.value == pytest.approx(both.base_ppl.value, rel=0.01)
    assert both.same_top.value > 0.95
