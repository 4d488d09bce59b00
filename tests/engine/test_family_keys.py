"""Keys that one family alone has are checked like all others, before any kernel runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile
from lcpu.kernels.errors import LcpuError

CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("granite", {}, "key 'granite.logit_scale' is missing"),
    ("granite", {"logit_scale": 0.0}, "key 'granite.logit_scale' is 0.0, not 1e-06 to 1e\\+12"),
    ("granite", {"logit_scale": 1.0, "residual_scale": "a"}, "key 'granite.residual_scale' is str 'a', not a number"),
    ("granite", {"logit_scale": 1.0, "rope.scaling.finetuned": 3}, "rope.scaling.finetuned' is 3, not true or false"),
    ("mistral3", {"attention.temperature_scale": float("nan")}, "attention.temperature_scale' is nan, not 0 to"),
    ("mistral3", {"rope.scaling.type": "yarn", "rope.scaling.yarn_log_multiplier": -1.0}, "log_multiplier' is -1.0,"),
]


@pytest.mark.parametrize(("architecture", "changes", "message"), CHANGES)
def test_refused(tmp_path, tiny_gguf, architecture, changes, message):
    path = tmp_path / "a.gguf"
    with GGUFFile.open(tiny_gguf) as file:
        metadata = {key.replace("llama.", f"{architecture}."): value for key, value in file.metadata.items()}
        metadata |= {"general.architecture": architecture, **{f"{architecture}.{key}": value
                                                              for key, value in changes.items()}}
        write_gguf(path, metadata, [TensorToWrite(name, info.shape, info.type_id, file.data(name).view(np.float32))
                                    for name, info in file.tensors.items()])
    with pytest.raises(LcpuError, match=message):
        LLM.load(path)


def test_granite_without_factors_and_rotation(tmp_path, tiny_gguf):
    """Where a file has none, they are 1; without rotation, the order of what came before does not matter."""
    found = []
    for rotates in (True, False):
        path = tmp_path / f"{rotates}.gguf"
        with GGUFFile.open(tiny_gguf) as file:
            metadata = {key.replace("llama.", "granite."): value for key, value in file.metadata.items()}
            metadata |= {"general.architecture": "granite", "granite.logit_scale": 1.0,
                         "granite.rope.scaling.finetuned": rotates}
            write_gguf(path, metadata, [TensorToWrite(name, info.shape, info.type_id, file.data(name).view(np.float32))
                                        for name, info in file.tensors.items()])
        with LLM.load(path, threads=1) as llm:
            found.append([llm.logits(ids)[-1] for ids in ([5, 40, 40, 7], [40, 40, 5, 7])])
    with LLM.load(tiny_gguf, threads=1) as llm:
        np.testing.assert_allclose(found[0][0], llm.logits([5, 40, 40, 7])[-1], atol=1e-5)
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-3
