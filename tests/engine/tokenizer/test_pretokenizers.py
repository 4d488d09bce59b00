"""The table of pre-tokenizers."""

from __future__ import annotations

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from lcpu.engine.tokenizer.pretokenizers import PRETOKENIZERS, find
from lcpu.kernels.errors import LcpuError


def cut(name: str, text: str) -> list[str]:
    """The pieces that a pre-tokenizer cuts a text into."""
    splits = [Split(Regex(pattern), "isolated") for pattern in find(name).patterns]
    return [piece for piece, _ in Sequence(splits).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_nothing_is_lost(name):
    text = "I'LL pay 1234567 for fooBar,\r\n\n\t  naïve 文字カナ 한국어 Привет हिन्दी (x_y) 'tis ½ ...!!  \n 🦙 "
    pieces = cut(name, text)
    assert "".join(pieces) == text
    assert len(pieces) > 10


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("gpt-2", ["We", "'ll", " pay", " 12345", "!!", " ", " now"]),
        ("default", ["We", "'", "ll", " pay", " ", "123", "45", "!!", " ", " now"]),
        ("falcon", ["We", "'", "ll", " pay", " ", "123", "45", "!!", " ", " now"]),
        ("starcoder", ["We", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " now"]),
        ("llama-bpe", ["We", "'ll", " pay", " ", "123", "45", "!!", " ", " now"]),
        ("qwen2", ["We", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " now"]),
        ("minicpm5", ["We", "'ll", " pay", " ", "123", "45", "!!", " ", " now"]),
        ("ufakzeka", ["We", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " now"]),
        ("deepseek-llm", ["We", "'", "ll", " pay", " ", "12345", "!!", " ", " now"]),
        ("deepseek-coder", ["We", "'", "ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " now"]),
        ("deepseek-v3", ["We", "'ll", " pay", " ", "123", "45", "!!", " ", " now"]),
        ("gpt-4o", ["We'll", " pay", " ", "123", "45", "!!", " ", " now"]),
        ("tekken", ["We", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", " ", " now"]),
        ("tiny_aya", ["We'll", " pay", " ", "12", "345", "!!", " ", " now"]),
        ("bloom", ["We'll", " pay", " 12345", "!! ", " now"]),
        ("viking", ["We'll", " pay", " ", "1", "2", "3", "4", "5", "!! ", " now"]),
    ],
)
def test_where_words_end(name, pieces):
    assert cut(name, "We'll pay 12345!!  now") == pieces


def test_capitals_start_words_in_some():
    assert cut("gpt-4o", "fooBar HTMLPage") == ["foo", "Bar", " HTMLPage"]
    assert cut("llama-bpe", "fooBar HTMLPage") == ["fooBar", " HTMLPage"]


def test_scripts():
    assert cut("deepseek-v3", "漢字かな语ABC") == ["漢字かな语", "ABC"]
    assert cut("deepseek-llm", "Жизнь 漢字") == ["Жизнь", " ", "漢字"]
    assert cut("youtu", "한국어漢字ok。") == ["한국어", "漢字", "ok", "。"]
    assert cut("qwen35", "हिन्दी") == ["हिन्दी"]
    assert len(cut("qwen2", "हिन्दी")) > 1


def test_an_unknown_name_says_what_is_known():
    with pytest.raises(LcpuError, match=r"'klingon'.*bloom.*llama-bpe.*qwen2") as caught:
        find("klingon")
    assert "\n" not in str(caught.value)
