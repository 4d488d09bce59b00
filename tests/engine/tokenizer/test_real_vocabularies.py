"""Real vocabularies against llama.cpp's own test vectors, where `../shared` is there."""

from __future__ import annotations

import json

import pytest

from lcpu.engine.tokenizer import Utf8Stream, load

NAMES = ["deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"]


@pytest.fixture(scope="module", params=NAMES)
def case(request, shared):
    """A tokenizer, and pairs of a text and its ids."""
    path = shared / "vocabs" / f"ggml-vocab-{request.param}.gguf"
    texts = path.with_name(f"{path.name}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = path.with_name(f"{path.name}.out").read_text().splitlines()
    assert len(lines) > 40
    assert texts[len(lines) :] in ([], [""])
    return load(path), [
        (text, [int(token) for token in line.split()]) for text, line in zip(texts, lines, strict=False)
    ]


def test_the_vectors_of_llama_cpp(case):
    tokenizer, vectors = case
    for text, ids in vectors:
        assert tokenizer.encode(text, add_bos=False) == ids


def test_text_comes_back(case):
    tokenizer, vectors = case
    for text, ids in vectors:
        assert tokenizer.decode(ids) == text
        stream = Utf8Stream()
        streamed = "".join(stream.feed(tokenizer.token_bytes(token)) for token in ids) + stream.flush()
        assert streamed.removeprefix(" " if tokenizer.vocabulary.add_space_prefix else "") == text


def test_every_token_has_bytes_or_none(case):
    tokenizer, _ = case
    assert tokenizer.end_ids <= set(range(tokenizer.vocab_size))
    assert sum(1 for token in range(tokenizer.vocab_size) if tokenizer.token_bytes(token)) > tokenizer.vocab_size * 0.95


def test_stories(shared):
    golden = json.loads((shared / "golden" / "stories260K-f32.json").read_text())
    tokenizer = load(shared / "models" / "stories260K-f32.gguf")
    assert tokenizer.encode(golden["prompt"]) == golden["prompt_tokens"]
    assert tokenizer.decode(golden["greedy_tokens"]) == golden["text"]
    assert tokenizer.encode(golden["text"]) == golden["greedy_tokens"]
