"""Which layers have a window, by the keys of a file; and what Gemma's keys may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lcpu.engine.architectures.gemma2 import attention_scale
from lcpu.engine.hyperparameters import Keys
from lcpu.engine.llm import LLM
from lcpu.engine.windows import layer_windows
from lcpu.kernels.errors import LcpuError


def builder(layers: int, **keys: Any) -> Any:
    """What a Builder knows of a file with such keys of attention."""
    metadata = {"general.architecture": "gemma3"} | {f"gemma3.attention.{name}": value for name, value in keys.items()}
    h = SimpleNamespace(block_count=layers, embedding_length=5376, head_count=32, head_dim=128)
    return SimpleNamespace(h=h, keys=Keys(metadata, "m.gguf"))


@pytest.mark.parametrize(
    ("layers", "keys", "windows"),
    [
        (7, {"sliding_window": 9}, [9, 9, 9, 0, 9, 9, 9]),
        (3, {}, [5, 5, 5]),
        (3, {"sliding_window": 0}, [0, 0, 0]),
        (5, {"sliding_window": 9, "sliding_window_pattern": 2}, [9, 0, 9, 0, 9]),
        (3, {"sliding_window": 9, "sliding_window_pattern": 1}, [0, 0, 0]),
        (5, {"sliding_window": 9, "sliding_window_pattern": 0}, [9, 9, 9, 9, 9]),
        (3, {"sliding_window": 9, "sliding_window_pattern": np.array([False, True, True, False])}, [0, 9, 9]),
    ],
)
def test_layers(layers: int, keys: dict[str, Any], windows: list[int]) -> None:
    assert layer_windows(builder(layers, **keys), period=4, default=5) == windows


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sliding_window": -1}, "is -1, not 0 to"),
        ({"sliding_window": "all"}, "is str 'all', not a whole number"),
        ({"sliding_window": 9, "sliding_window_pattern": np.array([True])}, "has 1 values .* for 3 layers"),
        ({"sliding_window": 9, "sliding_window_pattern": ["a", "b", "c"]}, "not true or false for 3 layers"),
        ({"sliding_window": 9, "sliding_window_pattern": 2**20}, "is 1048576, not 0 to 4096"),
    ],
)
def test_wrong_keys(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LcpuError, match=rf"m.gguf: key 'gemma3.attention.sliding_window(_pattern)?' .*{message}"):
        layer_windows(builder(3, **keys), period=4)


def test_the_scale_of_scores() -> None:
    assert attention_scale(builder(26), 62) == 128**-0.5
    assert attention_scale(builder(62), 62) == 168**-0.5
    assert attention_scale(builder(62, scale=0.25), 62) == 0.25


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [("gemma2", "attn_logit_softcapping", -1.0), ("gemma2", "final_logit_softcapping", float("nan")),
     ("gemma3", "rope.freq_base_swa", 0.0), ("gemma3", "attention.scale", "small")],
)
def test_wrong_numbers(write_llama: Callable[..., Path], architecture: str, key: str, value: Any) -> None:
    path = write_llama(architecture=architecture, **{"llama.attention.sliding_window": 9, f"llama.{key}": value})
    with pytest.raises(LcpuError, match=f"key '{architecture}.{key}' is .*damaged"):
        LLM.load(path)


def test_positions_outside_of_a_window_do_not_matter(write_llama: Callable[..., Path]) -> None:
    """Also where they are pages and spans away: with windows of 200 on both layers, a token reaches back 398."""
    path = write_llama(architecture="gemma3", context=1024, **{
        "llama.attention.sliding_window": 200, "llama.attention.sliding_window_pattern": 0})
    tokens = np.random.default_rng(1).integers(3, 286, 900).tolist()
    with LLM.load(path, threads=2) as llm:
        whole = llm.logits(tokens)[-1]
        other = tokens[7:8] * 501 + tokens[501:]
        assert np.array_equal(llm.logits(other)[-1].view(np.int32), whole.view(np.int32))
        assert not np.array_equal(llm.logits(tokens[7:8] * 502 + tokens[502:])[-1], whole)
