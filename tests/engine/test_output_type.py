"""The output layer in another type than the file's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

WriteLlama = Callable[..., Path]
TOKENS = np.random.default_rng(11).integers(3, 286, 20).tolist()


def logits(path: Path, output_type: str | None = None, threads: int = 2) -> np.ndarray:
    with LLM.load(path, threads=threads, output_type=output_type) as llm:
        return llm.logits(TOKENS)


@pytest.mark.parametrize("name", ["q8_0", "q4_0", "f16"])
def test_as_a_file_that_has_it(write_llama: WriteLlama, name: str) -> None:
    """Rows enough for several pieces: the gguf package's quantizer and ours make the same bytes."""
    shape = {"embedding": 32, "vocab": 2500}
    wanted = logits(write_llama({"attn_output.weight": "f32", "output.weight": name, "": "f32"}, **shape))
    path = write_llama("f32", **shape)
    got = logits(path, name)
    assert np.array_equal(got.view(np.int32), wanted.view(np.int32))
    assert not np.array_equal(got, logits(path))


def test_tied_embeddings_stay_as_they_are(write_llama: WriteLlama) -> None:
    """Only their use as an output layer is in the other type, so the logits differ by its rounding alone."""
    path = write_llama("f32", tensors={"output.weight": None})
    plain, rounded = logits(path), logits(path, "q8_0")
    assert 0 < np.abs(rounded - plain).max() < 0.02 * np.abs(plain).max()


def test_keep(write_llama: WriteLlama) -> None:
    path = write_llama("f32")
    assert np.array_equal(logits(path, "keep"), logits(path))


def test_output_layer(write_llama: WriteLlama) -> None:
    path = write_llama({"output.weight": "f16", "": "f32"})
    for output_type, name in ((None, "f16"), ("Q8_0", "q8_0")):
        with LLM.load(path, threads=1, output_type=output_type) as llm:
            assert llm.output_layer[0] == name
            assert 0 < llm.output_layer[1] < 1


def test_errors(write_llama: WriteLlama) -> None:
    path = write_llama("f32")
    with pytest.raises(LcpuError, match=r"^output type 'q9' is unknown: choose one of keep, f32, .*q8_0"):
        LLM.load(path, output_type="q9")
    with pytest.raises(LcpuError, match=r"tensor 'output.weight' has rows of 32 values, which are not whole Q6_K "):
        LLM.load(path, output_type="q6_k")
    ternary = write_llama("i2_s", embedding=128, feed_forward=128, heads=16, kv_heads=1,
                          tensors={"token_embd.weight": np.zeros((286, 128), np.float32)})
    with pytest.raises(LcpuError, match=r"tensor 'output.weight' is I2_S already: keep its type"):
        LLM.load(ternary, output_type="q8_0")
    huge = write_llama({"output.weight": "f32", "": "f32"},
                       tensors={"output.weight": np.full((286, 32), 1e6, np.float32)})
    with pytest.raises(LcpuError, match=r"tensor 'output.weight' has values that Q8_0 cannot hold: keep its type"):
        LLM.load(huge, output_type="q8_0")
