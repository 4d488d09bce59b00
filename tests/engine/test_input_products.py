"""Sums of products by pairs of columns: against a model in NumPy, in one pass or in many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine.input_products import Products
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

from .test_experts import LAYERS, MIXTRAL, Mixture
from .test_imatrix import NAMES, TOKENS
from .test_reference import llama

WriteLlama = Callable[..., Path]


def measured(path: Path, windows: list[list[int]] = TOKENS, **options: int) -> list[Products]:
    with LLM.load(path, threads=2, context=64, input_squares=True) as llm:
        inputs = llm.measured_inputs
        found = list(llm.measure_products(windows, **options))
    assert inputs == [(each.tensors, len(each.sums)) for each in found]
    return found


def expected(name: str, rows: list[np.ndarray], size: int) -> np.ndarray:
    x = np.array(rows, np.float64)
    firsts = x[::size] if "attn_q" in name else x[:0]
    return x.T @ x + (len(x) / len(firsts) * firsts.T @ firsts if len(firsts) else 0)


def test_llama(write_llama: WriteLlama) -> None:
    path = write_llama("f32")
    seen: dict[str, list[np.ndarray]] = {}
    for window in TOKENS:
        llama(path, window, seen)
    found = measured(path)
    assert sorted(name for each in found for name in each.tensors) == sorted([*NAMES, "output.weight"])
    shared = {each.tensors[0]: each.tensors for each in found}
    assert shared["blk.1.attn_q.weight"] == tuple(f"blk.1.attn_{part}.weight" for part in "qkv")
    assert shared["blk.1.ffn_gate.weight"] == ("blk.1.ffn_gate.weight", "blk.1.ffn_up.weight")
    for each in found:
        sums = expected(each.tensors[0], seen[each.tensors[0]], len(TOKENS[0]))
        np.testing.assert_allclose(np.tril(each.sums), np.tril(sums), rtol=5e-3, atol=2e-3 * np.abs(sums).max())


def test_passes_change_nothing(write_llama: WriteLlama) -> None:
    path = write_llama()
    at_once, one_by_one = measured(path), measured(path, most_bytes=1)
    for each, other in zip(at_once, one_by_one, strict=True):
        assert each.tensors == other.tensors
        np.testing.assert_array_equal(each.sums, other.sums)


def test_long_windows_and_logits_afterwards(write_llama: WriteLlama) -> None:
    """Windows that take several steps; what is computed later does not see what was measured."""
    windows = np.random.default_rng(7).integers(3, 286, (2, 600)).tolist()
    path = write_llama(context_length=1024)
    with LLM.load(path, threads=2, context=1024, input_squares=True) as llm:
        before = llm.logits(TOKENS[0])
        found = list(llm.measure_products(windows))
        np.testing.assert_array_equal(llm.logits(TOKENS[0]), before)
    seen: dict[str, list[np.ndarray]] = {}
    for window in windows:
        llama(path, window, seen)
    sums = expected("blk.0.attn_q.weight", seen["blk.0.attn_q.weight"], 600)
    np.testing.assert_allclose(np.tril(found[0].sums), np.tril(sums), rtol=5e-3, atol=2e-3 * np.abs(sums).max())


def test_experts_are_left_out(write_llama: WriteLlama) -> None:
    found = measured(write_llama(tensors=Mixture().tensors(), **MIXTRAL))
    names = [name for each in found for name in each.tensors]
    assert len(names) == LAYERS * 5 + 1  # attention, the router; the output layer
    assert not any("_exps" in name for name in names)


def test_refused(write_llama: WriteLlama) -> None:
    with LLM.load(write_llama(), threads=1) as llm, pytest.raises(LcpuError, match="load it with input_squares=True"):
        next(llm.measure_products(TOKENS))
    broken = write_llama(tensors={"blk.1.attn_norm.weight": np.full(32, np.inf, np.float32)})
    with pytest.raises(LcpuError, match=r"what tensor 'blk\.1\.attn_q\.weight' is multiplied with is not numbers"):
        measured(broken)
