"""Importance matrices: sums of squared inputs against models in NumPy, and the same bits for every batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine import imatrix
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.input_squares import Squares
from lcpu.engine.llm import LLM
from lcpu.engine.model import Model
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.squares import add_expert_squares, add_squares

from .test_experts import LAYERS, MIXTRAL, Mixture, Seen
from .test_reference import llama

WriteLlama = Callable[..., Path]
TOKENS = np.random.default_rng(5).integers(3, 286, (3, 40)).tolist()
NAMES = [f"blk.{layer}.{name}.weight" for layer in range(2) for name in (
    "attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up")]


def measured(path: Path, windows: list[list[int]] = TOKENS) -> dict[str, Squares]:
    with LLM.load(path, threads=2, context=64, input_squares=True) as llm:
        return llm.measure_imatrix(windows)


def check(found: Squares, expert: int, rows: list[np.ndarray]) -> None:
    assert found.counts[expert] == len(rows)
    expected = (np.array(rows) ** 2).sum(axis=0) if rows else 0
    np.testing.assert_allclose(found.sums[expert], expected, rtol=5e-3, atol=1e-4)  # the engine's keys are F16


@pytest.mark.parametrize("kinds", ["f32", {"attn_k.weight": "q8_0", "ffn_up.weight": "f16", "": "f32"}], ids=str)
def test_llama(write_llama: WriteLlama, kinds: str) -> None:
    """Also where products of one input have several forms of it: what counts is the value before it is rounded."""
    path = write_llama("f32")
    seen: dict[str, list[np.ndarray]] = {}
    for window in TOKENS:
        llama(path, window, seen)
    found = measured(path if kinds == "f32" else write_llama(kinds))
    assert sorted(found) == sorted(seen) == [*NAMES, "output.weight"]
    for name, rows in seen.items():
        if name == "output.weight":  # of each window, the last tokens
            rows = [row for start in range(0, len(rows), 40) for row in rows[start : start + 40][-imatrix.OUTPUTS :]]
        assert found[name].sums.shape == (1, len(rows[0]))
        if kinds == "f32" or name.startswith("blk.0.attn_q"):
            check(found[name], 0, rows)


def test_an_embedding_that_is_the_output_layer(write_llama: WriteLlama) -> None:
    path = write_llama("f32", tensors={"output.weight": None})
    seen: dict[str, list[np.ndarray]] = {}
    llama(path, TOKENS[0], seen)
    found = measured(path, TOKENS[:1])
    assert sorted(found) == [*NAMES, "token_embd.weight"]
    check(found["token_embd.weight"], 0, seen["token_embd.weight"][-imatrix.OUTPUTS :])


@pytest.mark.parametrize("layout", [{}, {"fused": True}, {"apart": True}], ids=str)
def test_experts(write_llama: WriteLlama, layout: dict[str, bool]) -> None:
    mixture = Mixture(renormalize=True, **layout)
    path = write_llama(tensors=mixture.tensors(), **MIXTRAL)
    seen: Seen = {}
    for window in TOKENS:
        mixture.reference(path, window, seen)
    found = measured(path)
    with GGUFFile.open(path) as file:
        assert set(found) <= set(file.tensors)
    for layer in range(LAYERS):
        name = f"blk.{layer}.ffn_"
        assert found[f"{name}gate_inp.weight"].counts.tolist() == [120]
        for part in ("gate", "up", "down"):
            own = "gate_up" if mixture.fused and part != "down" else part
            for expert in range(mixture.count):
                rows = seen.get((name + part, expert), [])
                if mixture.apart:
                    check(found[f"{name}{own}.{expert}.weight"], 0, rows)
                else:
                    check(found[f"{name}{own}_exps.weight"], expert, rows)


def test_a_fused_tensor_has_one_entry(write_llama: WriteLlama) -> None:
    fused = np.random.default_rng(6).standard_normal((64, 32)).astype(np.float32) / 6
    apart = dict(zip("qkv", np.split(fused, [32, 48]), strict=True))
    names = {f"blk.0.attn_{part}.weight": values for part, values in apart.items()}
    expected = measured(write_llama(layers=1, tensors=names))
    found = measured(write_llama(layers=1, tensors=dict.fromkeys(names) | {"blk.0.attn_qkv.weight": fused}))
    assert len(found) == len(expected) - 2
    assert np.array_equal(found["blk.0.attn_qkv.weight"].sums, expected["blk.0.attn_q.weight"].sums)


@pytest.mark.parametrize("mixture", [None, Mixture(kinds={"gate": "q8_0", "up": "f16"})], ids=["dense", "experts"])
def test_same_bits_for_every_batch_and_every_number_of_threads(write_llama: WriteLlama, mixture: Mixture | None
                                                               ) -> None:
    path = write_llama() if mixture is None else write_llama(tensors=mixture.tensors(), **MIXTRAL)
    results = []
    for threads, batch, pages in ((1, 512, 3), (2, 512, 2), (3, 80, 3), (2, 17, 1)):
        model = Model(GGUFFile.open(path), 64, threads, cache_tokens=3 * 128, input_squares=True)
        try:
            results.append(imatrix.measure(model, range(pages), TOKENS, batch=batch))
        finally:
            model.close()
    for other in results[1:]:
        for name, squares in results[0].items():
            assert np.array_equal(squares.sums, other[name].sums), name
            assert np.array_equal(squares.counts, other[name].counts), name


def test_other_programs_have_no_such_instructions(write_llama: WriteLlama) -> None:
    path = write_llama(tensors=Mixture().tensors(), **MIXTRAL)
    plain, measuring = (Model(GGUFFile.open(path), 64, 1, input_squares=wanted) for wanted in (False, True))
    added = [each for each in measuring.program.instructions if each.kernel in (add_squares, add_expert_squares)]
    assert len(added) == LAYERS * (2 + 1 + 2) + 1  # of attention; of the router; of experts; of the output layer
    assert not any(each.barrier for each in added)
    others = [each for each in measuring.program.instructions
              if each.kernel not in (add_squares, add_expert_squares)]
    assert [(each.kernel, each.barrier) for each in others] == [
        (each.kernel, each.barrier) for each in plain.program.instructions]
    plain.close()
    measuring.close()


def test_refused(write_llama: WriteLlama) -> None:
    with LLM.load(write_llama(), threads=1) as llm, pytest.raises(LcpuError, match="load it with input_squares=True"):
        llm.measure_imatrix(TOKENS)
    broken = write_llama(tensors={"blk.1.attn_norm.weight": np.full(32, np.inf, np.float32)})
    with pytest.raises(LcpuError, match=r"what tensor 'blk\.1\.attn_q\.weight' is multiplied with is not numbers"):
        measured(broken)
