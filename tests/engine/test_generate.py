"""Generations: how they end, what their text is, what they count, and that nothing disturbs the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.batch import Piece
from lcpu.engine.generate import Generation, GenerationOptions, StopStrings
from lcpu.engine.llm import LLM
from lcpu.engine.scheduler import Scheduler
from lcpu.engine.sequence import TokenSequence
from lcpu.engine.tokenizer import Tokenizer
from lcpu.kernels.errors import LcpuError

EOS = 2
PROMPT = [1, 262, 266, 270]


@pytest.fixture(scope="module")
def llm(tiny_gguf: Path) -> Iterator[LLM]:
    with LLM.load(tiny_gguf, threads=2) as llm:
        yield llm


@pytest.fixture(scope="module")
def tokenizer(llm: LLM) -> Tokenizer:
    return llm.tokenizer


class Script:
    """A model that says these ids, one after another, and then the first again."""

    h = SimpleNamespace(vocab_size=286)
    team = SimpleNamespace(lock=threading.RLock())
    pool = SimpleNamespace(count=8, copy=lambda source, target: None,
                           states=SimpleNamespace(slots=0, copy=lambda source, target: None))

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids

    def step(self, pieces: Sequence[Piece]) -> np.ndarray:
        (piece,) = pieces
        logits = np.zeros((piece.outputs, 286), np.float32)
        for row, position in enumerate(range(piece.start + len(piece.tokens) - piece.outputs, piece.start
                                             + len(piece.tokens))):
            logits[row, self._ids[(position + 1 - len(PROMPT)) % len(self._ids)]] = 9
        return logits


def generation_of(model: Any, tokenizer: Tokenizer, context: int = 1000, **options: Any) -> Generation:
    chosen = GenerationOptions(**({"temperature": 0.0} | options))
    scheduler = Scheduler(model, 286)
    return Generation(scheduler, TokenSequence(PROMPT, context, chosen, tokenizer.end_ids), tokenizer, chosen.stop)


def spell(text: str) -> list[int]:
    """The byte tokens of a text."""
    return [3 + byte for byte in text.encode()]


def say(tokenizer: Tokenizer, ids: Sequence[int], context: int = 1000, **options: Any) -> tuple[Generation, list[str]]:
    generation = generation_of(Script(ids), tokenizer, context, **options)
    return generation, list(generation)


def test_end_of_text(tokenizer: Tokenizer) -> None:
    generation, pieces = say(tokenizer, [*spell("hey"), EOS, *spell("no")])
    assert pieces == ["h", "e", "y"]
    assert generation.finish_reason == "stop"
    assert generation.generated_ids == spell("hey")


def test_end_at_once(tokenizer: Tokenizer) -> None:
    generation, pieces = say(tokenizer, [EOS])
    assert (pieces, generation.generated_ids, generation.finish_reason) == ([], [], "stop")


def test_ignore_eos(tokenizer: Tokenizer) -> None:
    class Insists(Script):
        def step(self, pieces: Sequence[Piece]) -> np.ndarray:
            logits = super().step(pieces)
            logits[:, EOS] = 10
            return logits

    generation = generation_of(Insists(spell("x")), tokenizer, ignore_eos=True, max_tokens=5)
    assert "".join(generation) == "xxxxx"
    assert generation.finish_reason == "length"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_max_tokens(tokenizer: Tokenizer, count: int) -> None:
    generation, pieces = say(tokenizer, spell("abc"), max_tokens=count)
    assert "".join(pieces) == "abcab"[:count]
    assert generation.finish_reason == "length"
    assert len(generation.generated_ids) == count


def test_no_prompt_is_computed_for_no_tokens(tokenizer: Tokenizer) -> None:
    class Nothing(Script):
        def step(self, pieces: Sequence[Piece]) -> np.ndarray:
            raise AssertionError

    assert list(generation_of(Nothing([]), tokenizer, max_tokens=0)) == []


def test_values_that_are_no_numbers(tokenizer: Tokenizer) -> None:
    class Broken(Script):
        def step(self, pieces: Sequence[Piece]) -> np.ndarray:
            return super().step(pieces) * np.float32(np.nan)

    generation = generation_of(Broken(spell("x")), tokenizer)
    with pytest.raises(LcpuError, match="not numbers"):
        list(generation)
    assert generation.finish_reason == "error"


def test_full_context(tokenizer: Tokenizer) -> None:
    """The last token is computed at the last position, and one more is known."""
    generation, pieces = say(tokenizer, spell("abc"), context=len(PROMPT) + 6)
    assert "".join(pieces) == "abcabca"
    assert generation.finish_reason == "context"
    generation, pieces = say(tokenizer, spell("abc"), context=len(PROMPT))
    assert ("".join(pieces), generation.finish_reason) == ("a", "context")


def test_full_context_of_a_model(llm: LLM) -> None:
    generation = llm.stream(PROMPT, GenerationOptions(ignore_eos=True, seed=1))
    list(generation)
    assert generation.finish_reason == "context"
    assert len(PROMPT) + len(generation.generated_ids) == llm.context + 1 == 65


def test_whole_characters(tokenizer: Tokenizer) -> None:
    text = "a→🙂é"
    generation, pieces = say(tokenizer, [*spell(text), EOS])
    assert pieces == list(text)
    assert len(generation.generated_ids) == len(text.encode())


def test_a_character_that_never_ends(tokenizer: Tokenizer) -> None:
    _, pieces = say(tokenizer, spell("a🙂"), max_tokens=3)
    assert "".join(pieces) == "a�"
    _, pieces = say(tokenizer, [*spell("é")[:1], *spell("b"), EOS])
    assert "".join(pieces) == "�b"


@pytest.mark.parametrize(("stop", "expected"), [
    (("three",), "one two "),
    (("three", "two"), "one "),
    (("two", "three"), "one "),
    (("e t", "wo"), "on"),
    (("o", "one"), ""),
    (("four",), "one two three"),
    (("three!",), "one two three"),  # held back to the end, then given
    (("ee",), "one two thr"),
    ((), "one two three"),
])
def test_stop_strings(tokenizer: Tokenizer, stop: tuple[str, ...], expected: str) -> None:
    generation, pieces = say(tokenizer, [*spell("one two three"), EOS], stop=stop)
    assert "".join(pieces) == expected
    assert generation.finish_reason == "stop"
    assert all(pieces)


def test_a_stop_string_ends_the_computing(tokenizer: Tokenizer) -> None:
    generation, _ = say(tokenizer, spell("one two three "), stop=("two",))
    assert generation.generated_ids == spell("one two")
    generation, pieces = say(tokenizer, spell("one two"), stop=("two!",), max_tokens=7)
    assert ("".join(pieces), generation.finish_reason) == ("one two", "length")


def test_text_comes_as_soon_as_it_is_certain(tokenizer: Tokenizer) -> None:
    _, pieces = say(tokenizer, [*spell("aab abc"), EOS], stop=("abx", "bcd"))
    assert pieces == ["a", "ab ", "a", "bc"]


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=5), max_size=4),
       st.lists(st.integers(0, 30), max_size=10))
def test_stop_strings_in_any_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    """The stop string that is complete first ends the text, the longest of several."""
    complete = [(at + len(stop), at) for stop in stops for at in range(len(text)) if text.startswith(stop, at)]
    stream, shown = StopStrings(stops), ""
    cuts = [0, *sorted(cuts), len(text)]
    for start, end in pairwise(cuts):
        if not stream.found:
            shown += stream.feed(text[start:end])
    shown += stream.flush()
    assert stream.found == bool(complete)
    assert shown == (text[: min(complete)[1]] if complete else text)


def test_counts_and_times(llm: LLM) -> None:
    prompt = [211, 262, 266, 270]  # that no other test has
    generation = llm.stream(prompt, GenerationOptions(max_tokens=8, seed=1, ignore_eos=True))
    assert generation.prompt_tokens == 4
    assert (generation.generated_ids, generation.prompt_seconds, generation.finish_reason) == ([], 0.0, None)
    pieces = iter(generation)
    next(pieces)
    assert generation.reused_tokens == 0
    assert generation.prompt_seconds > 0
    first = generation.generation_seconds
    list(pieces)
    assert generation.generation_seconds > first >= 0
    assert len(generation.generated_ids) == 8
    again = llm.stream(prompt, GenerationOptions(max_tokens=1))
    list(again)
    assert again.reused_tokens == 3  # the last one is computed again, for its logits


def greedy(llm: LLM, prompt: Sequence[int], count: int = 20) -> list[int]:
    generation = llm.stream(prompt, GenerationOptions(max_tokens=count, temperature=0.0, ignore_eos=True))
    list(generation)
    return generation.generated_ids


@pytest.fixture(scope="module")
def expected(tiny_gguf: Path) -> dict[int, list[int]]:
    """The greedy ids after [1, n], each of a model of its own."""
    found = {}
    for n in (10, 20, 30, 40):
        with LLM.load(tiny_gguf, threads=1) as llm:
            found[n] = greedy(llm, [1, n])
    assert len({tuple(ids) for ids in found.values()}) == 4
    return found


def test_a_closed_generation(llm: LLM, expected: dict[int, list[int]]) -> None:
    pieces = iter(llm.stream([1, 10], GenerationOptions(seed=3, ignore_eos=True)))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert list(pieces) == []
    assert greedy(llm, [1, 10]) == expected[10]


def test_an_exception_in_the_consumer(llm: LLM, expected: dict[int, list[int]]) -> None:
    def consume() -> None:
        for _ in llm.generate("abc", seed=3):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert greedy(llm, [1, 20]) == expected[20]


@pytest.mark.parametrize("after", [False, True])
def test_interrupted_within_a_step(llm: LLM, expected: dict[int, list[int]], monkeypatch: pytest.MonkeyPatch,
                                   after: bool) -> None:
    """Ctrl-C before or after the kernels have run: what the cache holds is still known."""
    step, calls = llm._model.step, 0

    def interrupted(*batch: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3 and not after:
            raise KeyboardInterrupt
        logits = step(*batch)
        if calls == 3:
            raise KeyboardInterrupt
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(llm._model, "step", interrupted)
        generation = llm.stream([1, 30], GenerationOptions(temperature=0.0, ignore_eos=True))
        with pytest.raises(KeyboardInterrupt):
            list(generation)
    assert generation.generated_ids == expected[30][:2]
    continued = greedy(llm, [1, 30, *expected[30][:2]], 18)
    assert continued == expected[30][2:]
    assert greedy(llm, [1, 40]) == expected[40]


def test_an_interrupted_prompt(llm: LLM, expected: dict[int, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*batch: Any) -> np.ndarray:
        raise KeyboardInterrupt

    greedy(llm, [1, 40])
    with monkeypatch.context() as patch:
        patch.setattr(llm._model, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.logits([1, 10, 10])
        with pytest.raises(KeyboardInterrupt):
            greedy(llm, [1, 10])
    assert greedy(llm, [1, 40]) == expected[40]


def test_two_at_once_in_turns(llm: LLM, expected: dict[int, list[int]]) -> None:
    options = GenerationOptions(max_tokens=20, temperature=0.0, ignore_eos=True)
    both = [llm.stream([1, n], options) for n in (10, 20)]
    turns = [iter(generation) for generation in both]
    while turns:
        turns = [turn for turn in turns if next(turn, None) is not None]
        llm.logits([9, 9, 9])
    assert [generation.generated_ids for generation in both] == [expected[10], expected[20]]


def test_seeded_text_does_not_depend_on_what_ran_before(llm: LLM) -> None:
    first = list(llm.generate("abc", seed=5, max_tokens=20))
    list(llm.generate("xyz", seed=6, max_tokens=20))
    assert list(llm.generate("abc", seed=5, max_tokens=20)) == first


def test_two_threads(llm: LLM, expected: dict[int, list[int]]) -> None:
    found: dict[int, list[list[int]]] = {n: [] for n in expected}

    def work(n: int) -> None:
        for _ in range(5):
            found[n].append(greedy(llm, [1, n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [ids] * 5 for n, ids in expected.items()}


def test_closed_meanwhile(tiny_gguf: Path) -> None:
    with LLM.load(tiny_gguf, threads=1) as llm:
        pieces = iter(llm.stream(PROMPT, GenerationOptions(ignore_eos=True, seed=1)))
        next(pieces)
    with pytest.raises(LcpuError, match="the model is closed"):
        list(pieces)


STORM = """
import random, signal, sys
from lcpu.engine.generate import GenerationOptions
from lcpu.engine.llm import LLM

options = GenerationOptions(max_tokens=20, temperature=0.0, ignore_eos=True)
choose, interrupts = random.Random(1), 0
with LLM.load(sys.argv[1], threads=2) as llm:
    def greedy():
        return "".join(llm.stream([1, 10], options))

    expected = greedy()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    while interrupts < 200:
        try:
            signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-4, 1e-2))
            while True:
                assert greedy() == expected
        except KeyboardInterrupt:
            interrupts += 1
    assert greedy() == expected
print(interrupts)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_interrupts_at_any_moment(tiny_gguf: Path) -> None:
    """Hundreds of Ctrl-C: none leaves the threads or the cache in a state that later text would show."""
    done = subprocess.run([sys.executable, "-c", STORM, str(tiny_gguf)], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")
