"""Values between operations: none is used after another has taken its place; layers may have angles of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine import hyperparameters
from lcpu.engine.batch import Batch
from lcpu.engine.builder import Builder
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.page_pool import PagePool
from lcpu.engine.rows import Memory, Rows


@pytest.fixture
def builder(tiny_gguf: Path) -> Builder:
    file = GGUFFile.open(tiny_gguf)
    h = hyperparameters.of_file(file)
    pool = PagePool(h, 64)
    return Builder(file, h, Batch(16, 4, pool.most), pool, 1)


def test_a_value_is_lost_when_its_memory_gets_another() -> None:
    memory = Memory("norm", np.zeros((4, 16), np.float32))
    first = Rows(memory, 10, 0)
    assert first.array is memory.array
    second = Rows(memory, 12, 0)
    with pytest.raises(RuntimeError, match="'norm' is used after another value has taken its place"):
        _ = first.array
    third = second.changed()
    assert third.array is memory.array
    with pytest.raises(RuntimeError, match="'norm'"):
        _ = second.array


STALE: list[Callable[[Builder], object]] = [
    lambda b: b.add((x := b.embed("token_embd.weight")), b.scale(x, 2.0)),
    lambda b: (one := b.rms_norm(b.embed("token_embd.weight"), "output_norm.weight"),
               b.rms_norm(b.embed("token_embd.weight"), "output_norm.weight"),
               b.linear(one, "blk.0.attn_q", 32)),
    lambda b: (gate := b.linear(b.embed("token_embd.weight"), "blk.0.ffn_gate", 64),
               up := b.linear(b.embed("token_embd.weight"), "blk.0.ffn_up", 64),
               b.gate(gate, up, "gelu"), b.gate(gate, up)),
]


@pytest.mark.parametrize("build", STALE, ids=["scaled", "normed twice", "gated twice"])
def test_building_with_a_lost_value_raises(builder: Builder, build: Callable[[Builder], object]) -> None:
    with pytest.raises(RuntimeError, match="is used after another value has taken its place"):
        build(builder)


def test_layers_may_have_angles_of_their_own(builder: Builder) -> None:
    model = builder.rope_table()
    local = builder.rope_table(replace(builder.h, rope_freq_base=100.0))
    for table in builder.rope_tables:
        table.extend(10)
    assert builder.rope_tables == [model, local]
    assert (model.array[0] == local.array[0]).all()
    assert (model.array[9] != local.array[9]).any()
