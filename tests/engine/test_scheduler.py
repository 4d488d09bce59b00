"""Many sequences at once: each text is what it would be alone, and none waits long for another."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu import models
from lcpu.engine.batch import Piece
from lcpu.engine.generate import Generation, GenerationOptions
from lcpu.engine.llm import LLM
from lcpu.engine.model import BATCH
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.pages import POSITIONS

WriteLlama = Callable[..., Path]
Request = tuple[list[int], GenerationOptions]

CONTEXT = 1536
RANDOM = np.random.default_rng(3)
PREFIX = RANDOM.integers(3, 286, 1000).tolist()
PROMPTS = [RANDOM.integers(3, 286, 1 + number * 3).tolist() for number in range(64)]
TYPES = [("f16", "f16"), ("q8_0", "q8_0")]


def options(number: int, tokens: int = 12) -> GenerationOptions:
    """Every other text is sampled."""
    return GenerationOptions(max_tokens=tokens, temperature=0.8 * (number % 2), seed=number, ignore_eos=True,
                             repeat_penalty=1.1)


def requests(prefix: Sequence[int] = (), count: int = 64, tokens: int = 12) -> list[Request]:
    return [([*prefix, *prompt], options(number, tokens)) for number, prompt in enumerate(PROMPTS[:count])]


def alone(llm: LLM, requests: Sequence[Request], draft: Any = None) -> list[list[int]]:
    """The ids of texts, one after another."""
    found = []
    for ids, chosen in requests:
        generation = llm.stream(ids, chosen, draft)
        list(generation)
        found.append(generation.generated_ids)
    return found


def at_once(llm: LLM, requests: Sequence[Request], draft: Any = None) -> Iterator[tuple[int, Generation, str]]:
    """(number of the request, its generation, a piece of its text) as they come."""
    generations = [llm.stream(ids, options, draft) for ids, options in requests]
    for generation, text in llm.stream_batch(generations):
        yield generations.index(generation), generation, text


def together(llm: LLM, requests: Sequence[Request], draft: Any = None) -> list[list[int]]:
    """The ids of texts, all at once."""
    found: dict[int, list[int]] = {}
    for index, generation, _ in at_once(llm, requests, draft):
        found[index] = generation.generated_ids
    return [found[index] for index in range(len(requests))]


@pytest.fixture(scope="module")
def path(write_llama: WriteLlama) -> Path:
    return write_llama("q8_0", embedding=64, feed_forward=96, heads=2, kv_heads=1, head_dim=32, context=CONTEXT)


@pytest.fixture(scope="module")
def expected(path: Path) -> Callable[[tuple[str, str], bool], list[list[int]]]:
    """The texts of one by one, each without anything in the cache."""
    known: dict[Any, list[list[int]]] = {}

    def texts(types: tuple[str, str], prefixed: bool) -> list[list[int]]:
        if (types, prefixed) not in known:
            with LLM.load(path, threads=1, cache_types=types) as llm:
                known[types, prefixed] = []
                for request in requests(PREFIX if prefixed else ()):
                    llm._scheduler.cache.reset()
                    known[types, prefixed] += alone(llm, [request])
        return known[types, prefixed]

    return texts


Expected = Callable[[tuple[str, str], bool], list[list[int]]]


@pytest.fixture
def llm(path: Path) -> Iterator[LLM]:
    with LLM.load(path, threads=2) as llm:
        yield llm


def count_tokens(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sizes of the pieces of each step."""
    steps: list[list[int]] = []
    step = llm._model.step

    def spy(pieces: Sequence[Piece]) -> np.ndarray:
        steps.append([len(piece.tokens) for piece in pieces])
        return step(pieces)

    monkeypatch.setattr(llm._model, "step", spy)
    return steps


def count_given_up(llm: LLM) -> list[None]:
    """Grows each time that a text gives up its pages to others."""
    given_up: list[None] = []
    free_pages = llm._scheduler.free_pages

    def counting(*beside: Any, **also: Any) -> None:
        given_up.append(None)
        free_pages(*beside, **also)

    llm._scheduler.free_pages = counting  # type: ignore[method-assign]
    return given_up


# ---- texts do not depend on who runs beside them ----


@pytest.mark.parametrize("types", TYPES, ids=["f16", "q8_0"])
@pytest.mark.parametrize("threads", [1, 2])
def test_all_at_once(path: Path, expected: Expected, types: tuple[str, str], threads: int) -> None:
    with LLM.load(path, threads=threads, cache_types=types, cache_tokens=20000, parallel=64) as llm:
        for prefixed in (False, True):
            work = requests(PREFIX if prefixed else ())
            assert together(llm, work) == expected(types, prefixed)
            assert together(llm, work[::-1])[::-1] == expected(types, prefixed), "with all prompts in the cache"


@pytest.mark.parametrize("types", TYPES, ids=["f16", "q8_0"])
def test_with_pages_for_three(path: Path, expected: Expected, types: tuple[str, str]) -> None:
    """Sequences give up their pages again and again, in the middle of prompts and of texts."""
    with LLM.load(path, threads=2, cache_types=types, context=256, cache_tokens=3 * POSITIONS) as llm:
        given_up = count_given_up(llm)
        assert together(llm, requests()) == expected(types, False)
        longer = requests(count=24, tokens=60)
        assert together(llm, longer) == alone(llm, longer)
        assert len(given_up) > 5


@pytest.mark.usefixtures("always_draft")
@pytest.mark.parametrize("types", TYPES, ids=["f16", "q8_0"])
def test_a_draft_model_where_pages_are_few(path: Path, expected: Expected, types: tuple[str, str]) -> None:
    """Both models give pages up again and again, also between a draft and the step that verifies it."""
    three, two = 3 * POSITIONS, 2 * POSITIONS
    with (LLM.load(path, threads=2, cache_types=types, context=256, cache_tokens=three) as llm,
          LLM.load(path, beside=llm, context=256, cache_tokens=two) as same):
        given_up = count_given_up(llm), count_given_up(same)
        assert together(llm, requests(), same) == expected(types, False)
        assert together(llm, requests()[::-1], same)[::-1] == expected(types, False)
        longer, found, accepted = requests(count=24, tokens=60), {}, {}
        for index, generation, _ in at_once(llm, longer, same):
            found[index], accepted[index] = generation.generated_ids, generation.speculation.accepted
        assert [found[index] for index in range(24)] == alone(llm, longer)
        assert min(map(len, given_up)) > 5
        assert sum(accepted.values()) > 200


@pytest.mark.usefixtures("always_draft")
def test_drafts(path: Path, write_llama: WriteLlama, expected: Expected) -> None:
    """From n-grams and from a model, in texts that become alone at the end and in those that always are."""
    repeating = [([5, 6, 7, 8, *PROMPTS[number]] * 4, options(number, 40)) for number in range(6)]
    with LLM.load(path, threads=2) as llm, LLM.load(path, beside=llm) as same:
        plain = alone(llm, repeating)
        for draft in ("ngram", same):
            assert alone(llm, repeating, draft) == plain
            assert together(llm, repeating, draft) == plain
            assert together(llm, requests(), draft) == expected(("f16", "f16"), False)
        generation = llm.stream(*repeating[1], same)
        list(generation)
        assert generation.speculation.accepted > 20


@pytest.mark.skipif(not models.path().exists(), reason="the embedded model is not there")
@pytest.mark.parametrize("types", TYPES, ids=["f16", "q8_0"])
def test_a_trained_model(types: tuple[str, str]) -> None:
    beginnings = ("Once upon a time", "The cat", "", "Lily and Tom went to the park. They saw a big", "One day, a dog")
    prompts = [f"{beginning} {number}" for beginning in beginnings for number in range(4)]
    found = []
    for threads, cache_tokens in ((1, 0), (2, 8192)):
        with LLM.load(threads=threads, context=256, cache_tokens=cache_tokens, cache_types=types) as llm:
            work = [(llm.tokenize(prompt), options(number, 30)) for number, prompt in enumerate(prompts)]
            found += [together(llm, work), alone(llm, work, "ngram")]
            shared: dict[str, Any] = {"max_tokens": 30, "temperature": 0.7, "seed": 4}
            texts = llm.generate_batch(prompts, **shared)
            assert texts == ["".join(llm.generate(prompt, **shared)) for prompt in prompts]
            assert len(set(texts)) > len(texts) / 2
    assert found[0] == found[1] == found[2] == found[3]


# ---- who waits for whom, and what is computed ----


def test_a_long_prompt_does_not_stall_the_others(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = count_tokens(llm, monkeypatch)
    work = [([5, 6, 7], options(0, 40)), ([8, 9], options(1, 40)), ((PREFIX * 2)[:1500], options(2, 20))]
    came: list[int] = []
    for index, _, text in at_once(llm, work):
        if text:
            came.append(index)
    assert max(sum(step) for step in steps) <= BATCH
    prompt = [sizes for sizes in steps if max(sizes) > 3]
    assert len(prompt) <= 4, "1,500 tokens, 512 at a time"
    assert all(len(sizes) == 3 for sizes in prompt), "each step with a piece of the prompt computes the others' tokens"
    assert sum(map(sum, steps)) <= 3 + 2 + 1500 + 40 + 40 + 20


def test_a_shared_prefix_is_computed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM.load(path, threads=2, cache_tokens=len(PREFIX) + 24 + 16 * 2 * POSITIONS) as llm:
        steps = count_tokens(llm, monkeypatch)
        work = [([*PREFIX, 10 + number, 11, 12], options(number, 10)) for number in range(16)]
        together(llm, work)
        assert sum(map(sum, steps)) == len(PREFIX) + 16 * (3 + 9)
        assert max(map(len, steps)) == 16


def test_a_prefix_that_is_known_is_not_computed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by those either that begin together, of whom only one gets its last page without a copy."""
    with LLM.load(path, threads=2, cache_tokens=len(PREFIX) + 24 + 16 * 2 * POSITIONS) as llm:
        llm.logits(PREFIX)
        steps = count_tokens(llm, monkeypatch)
        together(llm, [([*PREFIX, 10 + number, 11, 12], options(number, 10)) for number in range(16)])
        assert sum(map(sum, steps)) == 16 * (3 + 9)


def test_interleaved_chats_stay_warm(llm: LLM) -> None:
    chats = {"one": PREFIX[:300], "two": PREFIX[300:550]}
    known = dict.fromkeys(chats, 0)
    for turn in range(4):
        for name, ids in chats.items():
            generation = llm.stream(ids, options(turn, 10))
            list(generation)
            assert generation.reused_tokens == known[name]
            known[name] = len(ids) + 9  # the last token is only chosen
            chats[name] = [*ids, *generation.generated_ids, *PROMPTS[turn]]
            if turn == 0:
                known[name] = min(known[name], len(chats[name]) - 1)


def test_reused_tokens_are_those_of_the_beginning(path: Path) -> None:
    """What is computed again, since pages were given up meanwhile, has not been there before."""
    with LLM.load(path, threads=1, context=384, cache_tokens=384) as llm:
        reused = {}
        for index, generation, _ in at_once(llm, [(prompt, options(9, 30)) for prompt in PROMPTS[30:40]]):
            reused[index] = generation.reused_tokens
        assert set(reused.values()) == {0}


def test_no_more_at_once_than_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM.load(path, threads=1, parallel=3) as llm:
        steps = count_tokens(llm, monkeypatch)
        together(llm, requests(count=10))
        assert max(map(len, steps)) == 3
    for parallel in (0, -1, BATCH + 1):
        with pytest.raises(LcpuError, match=f"{parallel} texts at once: choose 1 to 512"):
            LLM.load(path, parallel=parallel)


def test_a_full_step_of_single_tokens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM.load(path, threads=2, parallel=BATCH, cache_tokens=BATCH * POSITIONS) as llm:
        steps = count_tokens(llm, monkeypatch)
        work = [([3 + number % 280, 3 + number // 280], options(0, 3)) for number in range(600)]
        assert together(llm, work)[::100] == alone(llm, work[::100])
        assert max(map(sum, steps[:-20])) == BATCH


# ---- odd ends ----


def test_nothing_to_compute(llm: LLM) -> None:
    assert llm.generate_batch([]) == []
    assert llm.generate_batch(["abc", "de"], max_tokens=0) == ["", ""]
    work = [([5, 6], GenerationOptions(max_tokens=0)), ([5, 6], options(0, 4)), ([7], GenerationOptions(max_tokens=0))]
    assert [len(ids) for ids in together(llm, work)] == [0, 4, 0]
    llm._scheduler.step()


def test_a_model_does_not_draft_for_itself(llm: LLM) -> None:
    with pytest.raises(LcpuError, match="a model cannot draft for itself: leave the draft model out"):
        llm.stream([5], draft=llm)


def test_values_that_are_no_numbers_stay_in_their_text(write_llama: WriteLlama, path: Path) -> None:
    """Token 250 poisons all that comes after it, and pages that others get later."""
    embedding = np.random.default_rng(5).standard_normal((286, 32), dtype=np.float32)
    poisoned = embedding.copy()
    poisoned[250] = np.nan
    with LLM.load(write_llama(tensors={"token_embd.weight": embedding}, context=256), threads=2) as llm:
        texts = [*zip(requests(count=30), alone(llm, requests(count=30)), strict=True)]
    clean = [request for request, text in texts if 250 not in request[0] + text]
    expected = [text for request, text in texts if 250 not in request[0] + text]
    assert len(clean) > 12
    bad = [([7, 8, 250, 9], options(0)), ([*PROMPTS[50][:130], 250], options(1))]
    work = [bad[0], *clean[:10], bad[1], *clean[10:], bad[0]]
    with LLM.load(write_llama(tensors={"token_embd.weight": poisoned}, context=256), threads=2,
                  cache_tokens=0) as llm:
        for _ in range(2):
            found, errors = {}, {}
            for index, generation, _ in at_once(llm, work):
                found[index], errors[index] = generation.generated_ids, generation.error
            broken = [0, 11, len(work) - 1]
            assert [found[index] for index in range(len(work)) if index not in broken] == expected
            assert all("not numbers" in str(errors[index]) for index in broken)
            assert sum(error is not None for error in errors.values()) == 3
        with pytest.raises(LcpuError, match="not numbers"):
            list(llm.stream(*bad[0]))
        with pytest.raises(LcpuError, match="not numbers"):
            list(llm.stream([*[250, 9] * 8, 250], options(0), "ngram"))
        assert alone(llm, clean) == expected


def test_abandoned_iterators(llm: LLM) -> None:
    """What nobody reads any more gives its pages back."""
    expected = alone(llm, requests(count=3))
    for number in range(40):
        pieces = iter(llm.stream(PROMPTS[number], options(number, 100)))
        next(pieces)
    kept = iter(llm.stream(PREFIX, options(0, 100)))
    next(kept)
    batch = at_once(llm, requests(count=30))
    for _ in range(5):
        next(batch)
    del batch, pieces
    assert alone(llm, requests(count=3)) == expected
    assert together(llm, requests(count=3)) == expected
    kept.close()  # type: ignore[attr-defined]
    import gc

    gc.collect()
    llm.logits([5])
    llm.logits([5])
    scheduler = llm._scheduler
    assert not scheduler._running
    assert not scheduler._waiting
    assert scheduler.cache.available() >= llm._model.pool.count - 1  # all but those of the last logits


def test_iterators_in_threads(path: Path, expected: Expected) -> None:
    """Whoever steps computes for all: nobody loses a token by that."""
    found: dict[int, list[int]] = {}
    with LLM.load(path, threads=2, parallel=4, cache_tokens=0) as llm:

        def single(numbers: Sequence[int]) -> None:
            for number in numbers:
                found[number] = alone(llm, [requests()[number]])[0]

        def batch(numbers: Sequence[int]) -> None:
            for number, ids in zip(numbers, together(llm, [requests()[number] for number in numbers]), strict=True):
                found[number] = ids

        threads = [threading.Thread(target=work, args=(range(start, 64, 6),))
                   for start, work in enumerate([single, batch] * 3)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert [found.get(number) for number in range(64)] == expected(("f16", "f16"), False)


STORM = """
import random, signal, sys
from lcpu.engine.generate import GenerationOptions
from lcpu.engine.llm import LLM

prompts = ["abc", "a" * 150, "xyz " * 60, "abc " * 30, "b", "a" * 150 + "c"]
options = dict(max_tokens=6, temperature=0.0)
choose, interrupts = random.Random(2), 0
with LLM.load(sys.argv[1], threads=2, parallel=4, cache_tokens=384) as llm, LLM.load(sys.argv[1], beside=llm) as other:
    expected = llm.generate_batch(prompts, **options)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    suspended = llm.generate("abc", max_tokens=300, temperature=0.0)
    text = "".join(llm.generate("abc", max_tokens=300, temperature=0.0))
    parts = [next(suspended)]
    while interrupts < 200:
        try:
            signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-4, 3e-2))
            while True:
                assert llm.generate_batch(prompts, draft=other if interrupts % 2 else None, **options) == expected
        except KeyboardInterrupt:
            interrupts += 1
            parts.append(next(suspended))
    assert text.startswith("".join(parts)), (text, parts)
    parts += suspended
    assert text == "".join(parts)
    assert llm.generate_batch(prompts, **options) == expected
print(interrupts)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_interrupts_at_any_moment(write_llama: WriteLlama) -> None:
    """Hundreds of Ctrl-C over batches: a text that was begun before goes on, and the next batch is as the first."""
    path = str(write_llama(context=384))
    done = subprocess.run([sys.executable, "-c", STORM, path], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")
