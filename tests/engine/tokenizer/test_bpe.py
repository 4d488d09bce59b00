"""Byte-level BPE vocabularies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.tokenizer import bpe as module

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def test_the_alphabet_is_gpt2s():
    characters = module.BYTE_CHARACTERS
    assert [characters[byte] for byte in b"A\n \xc3\xa1"] == ["A", "Ċ", "Ġ", "Ã", "¡"]
    assert len(set(characters.values())) == 256
    assert all(module.piece_bytes(character) == bytes([byte]) for byte, character in characters.items())


def test_a_token_in_no_alphabet_is_its_own_text():
    assert module.piece_bytes("｜ok") == "｜ok".encode()


def test_the_earliest_merge_comes_first(bpe, tokens_of):
    assert tokens_of(bpe, "hello") == ["hell", "o"]
    assert tokens_of(bpe, "o hello hell") == ["o", "Ġhell", "o", "Ġhell"]
    assert tokens_of(bpe, "123é") == ["123", "Ã", "©"]


def test_the_pretokenizer_cuts_before_merging(make_bpe, tokens_of):
    assert tokens_of(make_bpe(pre="qwen2"), "123") == ["1", "2", "3"]


def test_words_that_are_tokens_are_taken_whole_if_merges_are_ignored(bpe, make_bpe, tokens_of):
    tokens = [*bpe.vocabulary.tokens, "oho"]
    types = [*bpe.vocabulary.types.tolist(), 1]
    assert tokens_of(make_bpe(tokens=tokens, token_type=types), "oho") == ["o", "h", "o"]
    assert tokens_of(make_bpe(tokens=tokens, token_type=types, pre="llama-bpe"), "oho") == ["oho"]


def test_merges_of_tokens_that_are_not_there_are_passed_over(make_bpe, tokens_of):
    merges = ["x yz", "o o", "h e", "l l", "he ll"]
    assert tokens_of(make_bpe(merges=merges), "oohello") == ["o", "o", "hell", "o"]


def test_nothing_merges_into_a_control_token(bpe, make_bpe, tokens_of):
    types = bpe.vocabulary.types.tolist()
    types[bpe.vocabulary.ids["hell"]] = 3
    assert tokens_of(make_bpe(token_type=types), "hell") == ["he", "ll"]
    assert tokens_of(make_bpe(token_type=types), "hell", parse_special=True) == ["hell"]


def test_a_byte_is_never_reserved(bpe, make_bpe, tokens_of):
    types = bpe.vocabulary.types.tolist()
    types[bpe.vocabulary.ids["h"]] = 3
    assert tokens_of(make_bpe(token_type=types), "oh") == ["o", "h"]


def test_bytes_without_a_token_are_left_out(make_bpe, tokens_of):
    tokenizer = make_bpe(tokens=["a", "b"], token_type=[1, 1], merges=[], bos_token_id=None, eos_token_id=None)
    assert tokens_of(tokenizer, "abcab") == ["a", "b", "a", "b"]


def test_no_token_types_means_ordinary_tokens(make_bpe, tokens_of):
    assert tokens_of(make_bpe(token_type=None), "hello") == ["hell", "o"]


@given(text=TEXT)
def test_text_comes_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("pre", ["deepseek-llm", "llama-bpe", "falcon", "default"])
@given(text=TEXT)
def test_text_comes_back_whatever_cuts_it(make_bpe, pre, text):
    tokenizer = make_bpe(pre=pre)
    assert tokenizer.decode(tokenizer.encode(text)) == text
