"""The table of pre-tokenizers."""

from __future__ import annotations

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from lcpu.engine.tokenizer.pretokenizers import CHARACTERS, PRETOKENIZERS, REFUSED, find
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
        ("afmoe", ["We", "'ll", " pay", " ", "12", "345", "!!", " ", " now"]),
        ("kimi-k2", ["We'll", " pay", " ", "123", "45", "!!", " ", " now"]),
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
    assert cut("kimi-k2", "漢字ok Ünï") == ["漢字", "ok", " Ünï"]
    assert cut("youtu", "한국어漢字ok。") == ["한국어", "漢字", "ok", "。"]
    assert cut("qwen35", "हिन्दी") == ["हिन्दी"]
    assert len(cut("qwen2", "हिन्दी")) > 1


# All that llama.cpp tells apart (src/llama-vocab.cpp), as of llama-cpp-python 0.3.36.
LLAMA_CPP = """
    a.x-4.0 afmoe bailingmoe bailingmoe2 bloom chameleon chatglm-bpe codeshell cohere2moe command-r dbrx
    deepseek-coder deepseek-llm deepseek-r1-qwen deepseek-v3 default exaone exaone-moe exaone4 f2llmv2 falcon
    falcon-h1 falcon3 gemma4 gigachat glm4 glm5 gpt-2 gpt-4o gpt3-finnish granite-docling granite-embed-multi-311m
    granite-embed-multi-97m grok-2 hunyuan hunyuan-dense hy_v4 jais jais-2 jina-de jina-es jina-v1-en jina-v2-code
    jina-v2-de jina-v2-es jina-v5-nano joyai-llm kanana2 kimi-k2 kormo laguna lfm2 llada-moe llama-bpe llama-v3
    llama3 llama4 megrez mellum mellum2 midm-2.0 minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral
    poro-chat qwen2 qwen35 refact roberta-bpe sarvam-moe seed-coder smaug-bpe smollm solar-open spark2_5 stablelm2
    starcoder superbpe talkie tekken tiny_aya trillion ufakzeka viking whitespace youtu
""".split()


def test_every_name_of_llama_cpp_is_known_or_refused_by_name():
    assert set(LLAMA_CPP) <= PRETOKENIZERS.keys() | REFUSED.keys() | {CHARACTERS}
    assert not PRETOKENIZERS.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name):
    with pytest.raises(LcpuError, match=rf"tokenizer.ggml.pre = '{name}' .*, which lcpu does not do: take another"):
        find(name)


def test_an_unknown_name_says_what_is_known():
    with pytest.raises(LcpuError, match=r"'klingon'.*bloom.*llama-bpe.*qwen2") as caught:
        find("klingon")
    assert "\n" not in str(caught.value)
