"""A text that is longer takes longer in proportion, whatever it is made of: long numbers, runs of spaces, scripts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import pytest
from tokenizers import Regex, pre_tokenizers

from lcpu.engine.tokenizer.pretokenizers import PRETOKENIZERS, find
from lcpu.engine.tokenizer.special import partition

SIZE = 250  # characters of the shorter text
GROWTH = 64  # how many times as long the longer one is
BOUND = 512  # how many times as long it may take: 64 if time is linear (150 as memory gets slower), 4096 if quadratic
UNITS = ["7", "٣", "½", "a", "A", "aB", " ", "\n", "\t", "\r\n", " \n", "!", "._", "/", "'", "漢", "か", "한", "🦙",
         "a\u0301", "क्", "\u00a0", " a", "a1 .\n漢🦙", "IMGIMGA", "<sentinel:1"]
ENDS = ["", "a", "1", "_", "!", "漢", "\u0301", "\n", " x"]
EXPRESSIONS = {entry.patterns: name for name, entry in reversed(PRETOKENIZERS.items())}  # one name for each


def cutter(patterns: Sequence[str]) -> Callable[[str], list]:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence(splits).pre_tokenize_str


def fastest(work: Callable[[str], object], text: str, tries: int) -> float:
    """Seconds of this thread in the fastest of some tries: what else the machine does only ever adds to it."""
    times = []
    for _ in range(tries):
        started = time.thread_time()
        work(text)
        times.append(time.thread_time() - started)
    return min(times)


def is_linear(work: Callable[[str], object], unit: str, end: str = "", attempts: Sequence[int] = (1, 3, 5)) -> bool:
    """Whether GROWTH times the text takes less than BOUND times as long; measured again where it seems not."""
    short, long = (unit * (size // len(unit)) + end for size in (SIZE, GROWTH * SIZE))
    return any(fastest(work, long, tries) < BOUND * fastest(work, short, tries) for tries in attempts)


@pytest.mark.parametrize("patterns", EXPRESSIONS, ids=EXPRESSIONS.get)
def test_cutting_into_words(patterns: tuple[str, ...]) -> None:
    cut = cutter(patterns)
    slow = [(unit, end) for unit in UNITS for end in ENDS if not is_linear(cut, unit, end)]
    assert not slow


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "tiny_aya", "deepseek-llm"])
def test_byte_level_tokenizers(make_bpe, pre: str) -> None:
    tokenizer = make_bpe(pre=pre)
    assert not [unit for unit in [*UNITS, "hell", "12"] if not is_linear(tokenizer.encode, unit, "a")]


def test_sentencepiece_tokenizers(spm) -> None:
    assert not [unit for unit in [*UNITS, "hello", "he"] if not is_linear(spm.encode, unit, "a")]


def test_special_tokens_in_a_text() -> None:
    tokens = [("<|im_start|>", 1), ("<|im_end|>", 2), ("<", 3), ("aa", 4)]
    for unit in ("<|im_start|>", "<|im_", "<", "a", "x<|im_end|>"):
        assert is_linear(lambda text: partition(text, tokens, frozenset({2})), unit, "|>")


# What the expressions of these were before they were made linear: the same pieces, but in quadratic time.
BEFORE = {
    "tiny_aya": ((r"\d{1,3}(?=(?:\d{3})*\b)", find("tiny_aya").patterns[-1]), "7", "a"),
    "deepseek-llm": (tuple(r"\s+$" if "$" in p else p for p in find("deepseek-llm").patterns), " ", "1"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_quadratic_time_is_noticed(name: str) -> None:
    patterns, unit, end = BEFORE[name]
    assert not is_linear(cutter(patterns), unit, end, attempts=(1,))


@pytest.mark.parametrize("name", BEFORE)
def test_the_same_pieces_as_before(name: str) -> None:
    before, now = cutter(BEFORE[name][0]), cutter(find(name).patterns)
    choose = random.Random(12)
    for _ in range(20_000):
        text = "".join(choose.choices("1177777aA .,_\t\n\r\u0301\u00a0\u3000½٣Ⅷ漢'é-", k=choose.randrange(1, 24)))
        assert now(text) == before(text)
