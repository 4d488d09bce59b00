"""The embedded GGUF files: size, metadata, one vocabulary, ternary weights, and the stories that come out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lcpu import models
from lcpu.kernels.errors import LcpuError
from lcpu.models.recipe.reference import Reference, generate, logits, read


@pytest.fixture(scope="module")
def loaded() -> dict[str, Reference]:
    return {name: read(models.path(name)) for name in models.NAMES}


def test_path() -> None:
    assert models.path() == models.path("stories")
    assert all(models.path(name).is_file() for name in models.NAMES)
    with pytest.raises(LcpuError, match="no embedded model is named 'novel': choose one of stories"):
        models.path("novel")


def test_total_size() -> None:
    folder = Path(models.__file__).parent
    assert sorted(path.stem for path in folder.glob("*.gguf")) == sorted(models.NAMES)
    assert sum(path.stat().st_size for path in folder.glob("*.gguf")) < 8_000_000


def test_architectures(loaded: dict[str, Reference]) -> None:
    assert loaded["stories"].architecture == "llama"
    assert loaded["stories-draft"].architecture == "llama"
    assert loaded["stories-ternary"].architecture == "bitnet-b1.58"


def test_draft_is_small(loaded: dict[str, Reference]) -> None:
    count = {name: sum(tensor.size for tensor in model.tensors.values()) for name, model in loaded.items()}
    assert count["stories"] > 8 * count["stories-draft"]


def test_one_vocabulary(loaded: dict[str, Reference]) -> None:
    first = loaded["stories"].metadata
    for key in [key for key in first if key.startswith("tokenizer.")]:
        assert all(model.metadata[key] == first[key] for model in loaded.values()), key
    tokens = len(first["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
    for model in loaded.values():
        assert model.metadata["vocab_size"] == tokens == len(model.tensors["token_embd.weight"])


@pytest.mark.parametrize(
    "text", ["Once upon a time", "  two  spaces", "line\nline\n", "Zażółć gęślą jaźń, 日本 🙂", ""]
)
def test_vocabulary_keeps_every_text(loaded: dict[str, Reference], text: str) -> None:
    tokenizer = loaded["stories"].tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ternary_matrices(loaded: dict[str, Reference]) -> None:
    matrices = {n: t for n, t in loaded["stories-ternary"].tensors.items() if n.startswith("blk.") and t.ndim == 2}
    assert len(matrices) == 7 * loaded["stories-ternary"].number("block_count")
    for name, matrix in matrices.items():
        assert matrix.shape[1] % 128 == 0, name
        values = np.unique(matrix)
        assert len(values) == 3, name
        assert values[1] == 0, name
        assert values[0] == -values[2], name


def test_logits_do_not_depend_on_what_follows(loaded: dict[str, Reference]) -> None:
    ids = loaded["stories"].tokenizer.encode("Once upon a time, there was a little fox.")
    for model in loaded.values():
        np.testing.assert_allclose(logits(model, ids)[:5], logits(model, ids[:5]), atol=1e-3)


@pytest.mark.parametrize("name", ["stories", "stories-ternary"])
@pytest.mark.parametrize("prompt", ["Once upon a time", "One day, a little rabbit named Pip"])
def test_greedy_text_is_a_whole_story(loaded: dict[str, Reference], name: str, prompt: str) -> None:
    model = loaded[name]
    tokenizer = model.tokenizer
    ids = generate(model, prompt)
    text = tokenizer.decode(ids)
    assert ids[-1] == tokenizer.eos_id, text
    assert 60 < len(text.split()) < 260, text
    assert text.endswith((".", "!", '"')), text
    sentences = text.split(". ")
    assert len(set(sentences)) == len(sentences), text
