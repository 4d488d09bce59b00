"""SentencePiece vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.tokenizer.spm import SPACE
from lcpu.kernels.errors import LcpuError

# U+2581 stands for a space inside the vocabulary, and comes back as one.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE))


def test_the_best_score_merges_first(spm, tokens_of):
    assert tokens_of(spm, "hello") == ["▁he", "llo"]
    assert tokens_of(spm, "hellhello") == ["▁he", "ll", "he", "llo"]


def test_what_has_no_token_becomes_bytes(spm, tokens_of):
    assert tokens_of(spm, "é") == ["▁", "<0xC3>", "<0xA9>"]
    assert tokens_of(spm, "\0\n") == ["▁", "<0x00>", "<0x0A>"]


def test_spaces_are_kept_as_they_are(spm, tokens_of):
    assert tokens_of(spm, "  o ") == ["▁", "▁", "▁", "o", "▁"]
    assert spm.decode(spm.encode("  o ")) == "  o "


@given(text=TEXT)
def test_text_comes_back(spm, text):
    assert spm.decode(spm.encode(text)) == text
    assert spm.decode(spm.encode(text, add_bos=False)) == text


@given(text=TEXT)
def test_text_comes_back_without_a_space_in_front(make_spm, text):
    tokenizer = _without_prefix(make_spm)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_space_in_front_if_the_file_says_so(make_spm, tokens_of):
    assert tokens_of(_without_prefix(make_spm), "hello") == ["he", "llo"]


def test_a_space_in_front_again_after_a_special_token(spm, tokens_of):
    found = tokens_of(spm, "he<|im_end|>he<tool>", parse_special=True)
    assert found == ["▁he", "<|im_end|>", "▁he", "<tool>"]


def test_where_spaces_go_by_the_scheme_of_metaspace(make_spm, tokens_of):
    text = "he<tool>he<tool> he"
    schemes = {scheme: make_spm(prepend_scheme=scheme) for scheme in ("first", "always")}
    assert tokens_of(make_spm(), text) == ["▁he", "<tool>", "▁he", "<tool>", "▁", "▁he"]
    assert tokens_of(schemes["always"], text) == ["▁he", "<tool>", "▁he", "<tool>", "▁he"]
    assert tokens_of(schemes["first"], text) == ["▁he", "<tool>", "he", "<tool>", "▁he"]
    for tokenizer in schemes.values():
        assert tokens_of(tokenizer, " he") == tokens_of(tokenizer, f"{SPACE}he") == ["▁he"]
    assert tokens_of(schemes["first"], "<tool>he") == ["<tool>", "he"]
    assert tokens_of(make_spm(prepend_scheme="first", add_space_prefix=False), "he") == ["he"]


def test_an_unknown_scheme(make_spm):
    with pytest.raises(LcpuError, match=r"tokenizer\.ggml\.prepend_scheme = 'last' is not supported"):
        make_spm(prepend_scheme="last")


def test_more_than_one_unknown_token(spm, make_spm, tokens_of):
    types = [2, 2, *spm.vocabulary.types[2:].tolist()]
    assert tokens_of(make_spm(token_type=types), "helloé") == ["▁he", "llo", "<0xC3>", "<0xA9>"]


def test_no_unknown_token(spm, make_spm, tokens_of):
    types = [3, *spm.vocabulary.types[1:].tolist()]
    assert tokens_of(make_spm(token_type=types), "helloé") == ["▁he", "llo", "<0xC3>", "<0xA9>"]


def test_no_byte_tokens(make_spm, tokens_of):
    letters = {"tokens": ["<unk>", "▁", "o"], "scores": [0.0, -1.0, -2.0], "bos_token_id": None, "eos_token_id": None}
    assert tokens_of(make_spm(token_type=[2, 1, 1], **letters), "oéo") == ["▁", "o", "<unk>", "o"]
    with pytest.raises(LcpuError, match="cannot express"):
        make_spm(token_type=[1, 1, 1], **letters).encode("oéo")


def test_byte_tokens_of_another_type(make_spm, spm, tokens_of):
    types = [1 if kind == 6 else kind for kind in spm.vocabulary.types.tolist()]
    tokenizer = make_spm(token_type=types)
    assert tokens_of(tokenizer, "é\n") == ["▁", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert tokenizer.decode(tokenizer.encode("hé\n")) == "hé\n"


@pytest.mark.parametrize("kind", [1, 5, 6])
def test_a_token_that_is_a_line_break_serves_for_its_byte(make_spm, spm, tokens_of, kind, caplog):
    tokens = ["\n" if token == "<0x0A>" else token for token in spm.vocabulary.tokens]
    types = spm.vocabulary.types.tolist()
    types[tokens.index("\n")] = kind
    tokenizer = make_spm(tokens=tokens, token_type=types)
    assert tokens_of(tokenizer, "he\né\n\n") == ["▁he", "\n", "<0xC3>", "<0xA9>", "\n", "\n"]
    assert not caplog.records


def test_bytes_without_a_token_are_unknown_and_warned_of_once(make_spm, spm, tokens_of, caplog):
    tokens = [f"gone{n}" if token in ("<0x0A>", "<0xA9>") else token for n, token in enumerate(spm.vocabulary.tokens)]
    tokenizer = make_spm(tokens=tokens)
    assert tokens_of(tokenizer, "hello") == ["▁he", "llo"]
    assert not caplog.records
    assert tokens_of(tokenizer, "he\né") == ["▁he", "<unk>", "<0xC3>", "<unk>"]
    tokenizer.encode("\n")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the model sees '<unk>' instead" in caplog.records[0].getMessage()


def test_bytes_without_a_token_where_nothing_is_unknown(make_spm):
    few = {"tokens": ["a", "<0x0A>", "▁"], "scores": [0.0] * 3, "token_type": [1, 6, 1], "eos_token_id": None}
    tokenizer = make_spm(**few, bos_token_id=None)
    assert tokenizer.encode("a\na", add_bos=False) == [2, 0, 1, 0]
    with pytest.raises(LcpuError, match="cannot express"):
        tokenizer.encode("é")


def test_no_scores(make_spm, tokens_of):
    """As llama.cpp: of equal pairs, the first is merged first."""
    assert tokens_of(make_spm(scores=None), "hello") == ["▁he", "llo"]


def test_no_token_types(make_spm, tokens_of):
    assert tokens_of(make_spm(token_type=None), "he\né") == ["▁he", "<0x0A>", "<0xC3>", "<0xA9>"]


def test_what_sentencepiece_refuses(spm, make_spm):
    with pytest.raises(LcpuError, match=r"^SentencePiece refuses the vocabulary .*convert the model again$"):
        make_spm(tokens=["a\0b", *spm.vocabulary.tokens[1:]])


def test_integer_scores(spm, make_spm, tokens_of):
    scores = spm.vocabulary.scores.astype(np.int32)
    assert tokens_of(make_spm(scores=scores), "hello") == ["▁he", "llo"]


def test_the_space_in_front_makes_no_user_defined_token(spm, make_spm, tokens_of):
    tokens = [*spm.vocabulary.tokens, "  "]
    tokenizer = make_spm(
        tokens=tokens, scores=[*spm.vocabulary.scores, 0], token_type=[*spm.vocabulary.types.tolist(), 4]
    )
    assert tokens_of(tokenizer, " o") == ["▁", "▁", "o"]
    assert tokens_of(tokenizer, "  o") == ["  ", "▁", "o"]


def _without_prefix(make_spm):
    return make_spm(add_space_prefix=False)
