"""BPE vocabularies of characters, as Gemma 4's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.tokenizer import Tokenizer, from_metadata
from lcpu.kernels.errors import LcpuError

_SPECIAL = {"<pad>": 3, "<eos>": 3, "<bos>": 3, "<unk>": 2, "<turn|>": 3, "<|tool_response>": 4}
_PIECES = ["h", "e", "l", "o", "▁", "\n", "é", "he", "ll", "▁he", "hell", "▁hell", "\n\n", "\n\n\n", "</s>", "oho"]
_MERGES = ["h e", "l l", "▁ he", "he ll", "▁he ll"]


def vocabulary(**changes: Any) -> dict[str, Any]:
    tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *_PIECES]
    types = [*_SPECIAL.values(), *[6] * 256, *[1] * len(_PIECES)]
    metadata = {"model": "gemma4", "tokens": tokens, "token_type": types, "merges": _MERGES, "bos_token_id": 2,
                "eos_token_id": 1, "unknown_token_id": 3} | changes
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return from_metadata(vocabulary())


def test_merges_go_over_spaces(tokenizer: Tokenizer, tokens_of: Callable[..., list[str]]) -> None:
    assert tokens_of(tokenizer, "hell hello  he") == ["hell", "▁hell", "o", "▁", "▁he"]


def test_line_ends_cut_and_are_taken_whole(tokenizer: Tokenizer, tokens_of: Callable[..., list[str]]) -> None:
    """No merge makes the tokens of two and three."""
    assert tokens_of(tokenizer, "h\n\nh\n\n\nh\n") == ["h", "\n\n", "h", "\n\n\n", "h", "\n"]
    assert tokens_of(tokenizer, "\n\n\n\n") == ["\n"] * 4


def test_whole_tokens_do_not_come_before_merges(tokenizer: Tokenizer, tokens_of: Callable[..., list[str]]) -> None:
    assert tokens_of(tokenizer, "oho") == ["o", "h", "o"]


def test_characters_without_a_token_are_bytes(tokenizer: Tokenizer, tokens_of: Callable[..., list[str]]) -> None:
    assert tokens_of(tokenizer, "éä") == ["é", "<0xC3>", "<0xA4>"]


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bos_goes_before_a_text_whatever_the_file_says() -> None:
    """As in llama.cpp."""
    tokenizer = from_metadata(vocabulary(add_bos_token=False))
    assert tokenizer.encode("h")[0] == 2
    assert not from_metadata(vocabulary(bos_token_id=None)).add_bos


def test_what_ends_an_answer(tokenizer: Tokenizer) -> None:
    """An HTML tag does not, though other models end texts with it."""
    ends = {tokenizer.vocabulary.tokens[token] for token in tokenizer.end_ids}
    assert ends == {"<eos>", "<turn|>", "<|tool_response>"}
    assert tokenizer.decode([tokenizer.vocabulary.ids["</s>"]]) == "</s>"


def test_the_name_of_a_pretokenizer_tells_too() -> None:
    assert from_metadata(vocabulary(model="gpt2", pre="gemma4")).vocabulary.merges_characters


def test_merges_must_be_there() -> None:
    with pytest.raises(LcpuError, match=r"the model has no tokenizer\.ggml\.merges"):
        from_metadata(vocabulary(merges=None))
