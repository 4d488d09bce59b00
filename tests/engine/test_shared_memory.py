"""Texts that begin with the same take the memory of that beginning once: counted in memory that the system gave."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.engine.generate import GenerationOptions
from lcpu.engine.llm import LLM
from lcpu.engine.page_pool import PagePool
from lcpu.kernels.pages import POSITIONS

TEXTS, PREFIX = 16, np.random.default_rng(4).integers(3, 286, 1000).tolist()
WHOLE = len(PREFIX) // POSITIONS  # pages that texts can share
SHAPE = {"embedding": 64, "feed_forward": 96, "heads": 2, "kv_heads": 2, "head_dim": 32, "context": 1536}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mincore tells which memory there is on Linux")


def resident(pool: PagePool) -> int:
    """Bytes of a pool's memory that the system has given."""
    count = -(-pool.pages.nbytes // mmap.PAGESIZE)
    states = (ctypes.c_ubyte * count)()
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    assert mincore(ctypes.c_void_p(pool.pages.ctypes.data), ctypes.c_size_t(pool.pages.nbytes), states) == 0
    return sum(state & 1 for state in states) * mmap.PAGESIZE


@pytest.fixture
def llm(write_llama: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> LLM:
    """With memory for all texts apart, which is given in the smallest pieces."""
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", mmap.MADV_NOHUGEPAGE)
    return LLM.load(write_llama(**SHAPE), threads=2, cache_tokens=TEXTS * (WHOLE + 2) * POSITIONS)


def generate(llm: LLM, beginnings: list[list[int]]) -> None:
    """Each with something of its own, and a text that stays within the page."""
    options = GenerationOptions(max_tokens=8, seed=1, ignore_eos=True)
    generations = [llm.stream([*beginning, 10 + number, 11, 12], options)
                   for number, beginning in enumerate(beginnings)]
    for _ in llm.stream_batch(generations):
        pass


def test_sixteen_texts_take_the_memory_of_one(llm: LLM) -> None:
    with llm:
        pool = llm._model.pool
        assert resident(pool) == 0
        generate(llm, [PREFIX])
        one = resident(pool)
        assert (WHOLE + 0.5) * pool.page_bytes < one <= (WHOLE + 1) * pool.page_bytes
        generate(llm, [PREFIX] * TEXTS)
        assert resident(pool) <= one + TEXTS * pool.page_bytes, "a page of its own for each"


def test_texts_apart_take_it_all(llm: LLM) -> None:
    """So that the other test means something."""
    with llm:
        generate(llm, [[20 + number, *PREFIX[1:]] for number in range(TEXTS)])
        assert resident(llm._model.pool) > TEXTS * (WHOLE + 0.5) * llm._model.pool.page_bytes
