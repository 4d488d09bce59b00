"""Files that contradict themselves where it does no harm: the same logits as of the sound file, and a note."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

WriteLlama = Callable[..., Path]
TOKENS = [1, 260, 270, 280, 5, 261]


def logits(path: Path) -> np.ndarray:
    with LLM.load(path, threads=2) as llm:
        return llm.logits(TOKENS)


def stored(path: Path) -> dict[str, TensorToWrite]:
    with GGUFFile.open(path) as file:
        return {name: TensorToWrite(name, info.shape, info.type_id, bytes(file.data(name)))
                for name, info in file.tensors.items()}


@pytest.fixture
def notes(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger="lcpu")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


# ---- counts that the tensors tell ----

COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "embedding": ({"llama.embedding_length": 64}, "key 'llama.embedding_length' says 64, but the tensors say 32: 32"),
    "feed-forward": ({"llama.feed_forward_length": 1}, "key 'llama.feed_forward_length' says 1, but the .* say 64: 64"),
    "vocabulary": ({"llama.vocab_size": 200}, "key 'llama.vocab_size' says 200, but the tensors say 286: 286 is used"),
    "huge vocabulary": ({"llama.vocab_size": 2**30}, "says 1073741824, but the tensors say 286: 286 is used"),
}


@pytest.mark.parametrize(("changes", "note"), COUNTS.values(), ids=COUNTS.keys())
def test_counts(write_llama: WriteLlama, notes: Callable[[], list[str]], changes: dict[str, Any], note: str) -> None:
    expected = logits(write_llama())
    assert not notes()
    assert np.array_equal(logits(write_llama(**changes)), expected)
    line, = notes()
    assert re.search(note, line)


def test_rows_without_a_token_are_no_tokens(write_llama: WriteLlama, notes: Callable[[], list[str]]) -> None:
    path = write_llama(vocab=299, **{"llama.vocab_size": None})
    with LLM.load(path, threads=1) as llm:
        assert llm.logits(TOKENS).shape == (len(TOKENS), 299)
        ids = llm.stream(TOKENS)
        "".join(ids)
        assert max(ids.generated_ids) < 286
    assert "key 'tokenizer.ggml.tokens' says 286, but the tensors say 299: 299 is used" in notes()[0]


# ---- dimensions of 1 ----

def test_dimensions_of_one(write_llama: WriteLlama, notes: Callable[[], list[str]]) -> None:
    path = write_llama()
    tensors = stored(path)
    longer = {name: TensorToWrite(name, (1,) * (4 - len(t.shape)) + t.shape, t.type_id, t.data)
              for name, t in tensors.items()}
    assert np.array_equal(logits(write_llama(tensors=longer)), logits(path))
    line, = notes()
    assert "'token_embd.weight' has the shape 1 x 1 x 286 x 32 and is read as 286 x 32" in line


# ---- fused queries, keys and values ----

def fused(tensors: dict[str, TensorToWrite], layers: int = 2) -> dict[str, TensorToWrite | None]:
    """What turns attn_q, attn_k and attn_v into attn_qkv: None for what goes."""
    changes: dict[str, TensorToWrite | None] = {}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            names = [f"blk.{layer}.attn_{each}.{kind}" for each in "qkv"]
            if names[0] not in tensors:
                continue
            parts = [tensors[name] for name in names]
            tail = TENSOR_TYPES[parts[0].type_id].tail_bytes
            rows = [bytes(part.data)[: part.nbytes - tail] for part in parts]
            scale = bytes(parts[0].data)[parts[0].nbytes - tail :]
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            name = f"blk.{layer}.attn_qkv.{kind}"
            changes |= dict.fromkeys(names)
            changes[name] = TensorToWrite(name, shape, parts[0].type_id, b"".join(rows) + scale)
    return changes


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0", "q6_k"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_fused_queries_keys_and_values(write_llama: WriteLlama, architecture: str, kind: str) -> None:
    size = {"embedding": 256, "feed_forward": 256} if kind == "q6_k" else {}
    kinds = {"attn_q.weight": kind, "attn_k.weight": kind, "attn_v.weight": kind, "": "f32"}
    options: dict[str, Any] = {"architecture": architecture, "heads": 6, "kv_heads": 3, "head_dim": 10, **size}
    path = write_llama(kinds, **options)
    changes = fused(stored(path))
    assert len(changes) == (16 if architecture == "qwen2" else 8)
    assert np.array_equal(logits(write_llama(kinds, **options, tensors=changes)), logits(path))


def test_fused_ternary_weights(write_llama: WriteLlama) -> None:
    """I2_S has one scale for a tensor, behind its rows: here, for all three."""
    kinds = {"token_embd.weight": "f32", "output.weight": "f32", "": "i2_s"}
    options: dict[str, Any] = {"embedding": 128, "feed_forward": 256, "heads": 16, "kv_heads": 1, "head_dim": 8}
    tensors = stored(write_llama(kinds, **options))
    scales = {name[:6]: bytes(t.data)[-32:] for name, t in tensors.items() if name.endswith("attn_q.weight")}
    same = {name: TensorToWrite(name, t.shape, t.type_id, bytes(t.data)[:-32] + scales[name[:6]])
            for name, t in tensors.items() if name.endswith(("attn_k.weight", "attn_v.weight"))}
    path = write_llama(kinds, **options, tensors=same)
    assert np.array_equal(logits(write_llama(kinds, **options, tensors=fused(stored(path)))), logits(path))


def test_the_shape_of_a_fused_tensor(write_llama: WriteLlama) -> None:
    changes = fused(stored(write_llama()))
    changes["blk.1.attn_qkv.weight"] = TensorToWrite("blk.1.attn_qkv.weight", (63, 32), 0, bytes(63 * 32 * 4))
    with pytest.raises(LcpuError, match=r"'blk.1.attn_qkv.weight' has the shape 63 x 32, but the .* say 64 x 32"):
        LLM.load(write_llama(tensors=changes))
