"""Each step of sampling against a plain twin, and what the draws look like."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import Sampler, gumbel, top_k
from lcpu.kernels.errors import LcpuError

from . import sampler_reference

NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}


def twin(logits: np.ndarray, ids: list[int], options: GenerationOptions) -> dict[int, float]:
    """The probability of every token that may be drawn, by llama.cpp's steps in llama.cpp's order."""
    o = options
    values = {token: float(value) for token, value in enumerate(logits)}
    recent = ids if o.repeat_last_n < 0 else ids[len(ids) - min(o.repeat_last_n, len(ids)) :]
    for token in set(recent):
        values[token] = values[token] / o.repeat_penalty if values[token] > 0 else values[token] * o.repeat_penalty
    order = sorted(values, key=lambda token: (-values[token], token))
    if o.top_k > 0:
        order = order[: o.top_k]
    total = sum(math.exp(values[token] - values[order[0]]) for token in order)
    kept, mass = [], 0.0
    for token in order:
        if kept and mass >= o.top_p and o.top_p < 1:
            break
        kept.append(token)
        mass += math.exp(values[token] - values[order[0]]) / total
    if o.min_p > 0:
        kept = [token for token in kept if math.exp(values[token] - values[kept[0]]) >= o.min_p]
    weights = {token: math.exp((values[token] - values[kept[0]]) / o.temperature) for token in kept}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


def draws(logits: np.ndarray, ids: list[int], options: GenerationOptions, count: int) -> Counter[int]:
    """What as many seeds choose: one seed chooses the same token of a text again and again."""
    assert options.seed is not None
    samplers = (Sampler(replace(options, seed=options.seed + number)) for number in range(count))
    return Counter(sampler.choose(logits, ids) for sampler in samplers)


def assert_like(counted: Counter[int], expected: dict[int, float]) -> None:
    """Only tokens that may be drawn, and as often as they should (chi-square, beyond 5 standard deviations)."""
    count = sum(counted.values())
    assert set(counted) <= set(expected)
    chi_square = sum((counted[token] - count * p) ** 2 / (count * p) for token, p in expected.items())
    freedom = len(expected) - 1
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom)


LOGITS = np.array([2.0, 1.5, 3.0, -1.0, 0.5, 2.0, -2.5, 2.9, 1.0, 0.0], np.float32)
IDS = [2, 7, 3, 3, 6, 0]


@pytest.mark.parametrize("changes", [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 4},  # tokens 0 and 5 are equal: the first goes first
    {"top_k": 1000},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.8},
    {"top_p": 0.999},
    {"min_p": 0.2},
    {"min_p": 0.95},
    {"min_p": 1.0},
    {"top_k": 5, "top_p": 0.7},  # top-p counts what top-k has left
    {"top_p": 0.9, "min_p": 0.3, "temperature": 4.0},  # the temperature comes last
    {"top_k": 6, "top_p": 0.9, "min_p": 0.1, "temperature": 0.7, "repeat_penalty": 1.5},
    {"repeat_penalty": 1.3},
    {"repeat_penalty": 3.0, "repeat_last_n": 2},
    {"repeat_penalty": 3.0, "repeat_last_n": -1},
    {"repeat_penalty": 3.0, "repeat_last_n": 0},
    {"repeat_penalty": 3.0, "repeat_last_n": 1000},
    {"repeat_penalty": 0.5},
], ids=str)
def test_each_step(changes: dict[str, Any]) -> None:
    options = GenerationOptions(**NEUTRAL | changes)
    assert_like(draws(LOGITS, IDS, options, 4000), twin(LOGITS, IDS, options))


def test_the_twin_knows_the_steps() -> None:
    """Worked out by hand."""
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))

    def allowed(**changes: Any) -> dict[int, float]:
        return twin(logits, [], GenerationOptions(**NEUTRAL | changes))

    assert allowed() == pytest.approx({0: 0.5, 1: 0.25, 2: 0.125, 3: 0.125})
    assert allowed(top_p=0.6) == pytest.approx({0: 2 / 3, 1: 1 / 3})
    assert allowed(min_p=0.4) == pytest.approx({0: 2 / 3, 1: 1 / 3})
    assert allowed(top_k=3, top_p=0.8) == pytest.approx({0: 2 / 3, 1: 1 / 3})  # 6/7 is enough
    assert allowed(temperature=0.5, top_k=2) == pytest.approx({0: 0.8, 1: 0.2})
    penalized = twin(np.array([1.0, -1.0]), [0, 1], GenerationOptions(**NEUTRAL, repeat_penalty=2.0))
    assert penalized == pytest.approx({0: 1 / (1 + math.exp(-2.5)), 1: 1 / (1 + math.exp(2.5))})


def test_many_tokens_and_the_defaults() -> None:
    logits = np.random.default_rng(5).standard_normal(3000).astype(np.float32) * 3
    options = GenerationOptions(seed=2)
    assert (options.temperature, options.top_k, options.top_p, options.min_p) == (0.8, 40, 0.95, 0.05)
    assert_like(draws(logits, [], options, 5000), twin(logits, [], options))


def test_greedy() -> None:
    greedy = Sampler(GenerationOptions(temperature=0.0))
    assert greedy.choose(LOGITS, []) == 2
    assert greedy.choose(np.array([1, 5, 0, 5, 5], np.float32), []) == 1
    assert greedy.choose(np.zeros(9, np.float32), []) == 0
    assert greedy.choose(np.array([-np.inf, -3, -np.inf], np.float32), []) == 1
    assert Sampler(GenerationOptions(temperature=0.0, repeat_penalty=2.0)).choose(LOGITS, [2, 7]) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [[1, np.nan, 2], [np.nan] * 3, [1, np.inf, 2], [-np.inf] * 3])
def test_not_numbers(bad: list[float], temperature: float) -> None:
    for penalty in (1.0, 1.5):
        sampler = Sampler(GenerationOptions(temperature=temperature, repeat_penalty=penalty))
        with pytest.raises(LcpuError, match="values that are not numbers"):
            sampler.choose(np.array(bad, np.float32), [0, 1, 2])


def test_impossible_tokens_are_never_drawn() -> None:
    logits = np.array([-np.inf, 1, -np.inf, 1], np.float32)
    assert set(draws(logits, [], GenerationOptions(**NEUTRAL), 200)) == {1, 3}
    banned = Sampler(GenerationOptions(**NEUTRAL), banned=(7, 2))
    assert {banned.choose(LOGITS, [0] * length) for length in range(2000)} == set(range(10)) - {2, 7}
    assert Sampler(GenerationOptions(temperature=0.0), banned=(2,)).choose(LOGITS, []) == 7


def test_extreme_temperatures() -> None:
    assert set(draws(LOGITS, [], GenerationOptions(**NEUTRAL | {"temperature": 1e-300}), 50)) == {2}
    flat = draws(LOGITS, [], GenerationOptions(**NEUTRAL | {"temperature": 1e6}), 4000)
    assert_like(flat, dict.fromkeys(range(10), 0.1))


def test_logits_stay_as_they_are() -> None:
    logits = LOGITS.copy()
    logits.flags.writeable = False
    Sampler(GenerationOptions(seed=1, repeat_penalty=2.0), banned=(1,)).choose(logits, IDS)
    assert np.array_equal(logits, LOGITS)


def test_seeds() -> None:
    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(GenerationOptions(**NEUTRAL | {"seed": seed}))
        return [sampler.choose(LOGITS, [0] * length) for length in range(40)]

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)
    assert tokens(None) != tokens(None)
    assert tokens(2**80) == tokens(2**80)
    assert tokens(2**80) != tokens(0)


def test_positions_of_one_text() -> None:
    """Along a text with one seed, tokens come as often as they should, and independently of those before."""
    sampler = Sampler(GenerationOptions(**NEUTRAL))
    text = [sampler.choose(LOGITS, [0] * length) for length in range(6000)]
    expected = twin(LOGITS, [], GenerationOptions(**NEUTRAL))
    assert_like(Counter(text), expected)
    pairs = {(a, b): p * q for a, p in expected.items() for b, q in expected.items()}
    assert_like(Counter(zip(text[::2], text[1::2], strict=True)), pairs)


def test_a_token_is_chosen_whatever_was_chosen_before() -> None:
    forwards, backwards = (Sampler(GenerationOptions(**NEUTRAL)) for _ in range(2))
    chosen = [forwards.choose(LOGITS, [0] * length) for length in range(50)]
    assert [backwards.choose(LOGITS, [0] * length) for length in reversed(range(50))] == chosen[::-1]


def test_gumbel_noise() -> None:
    noise = gumbel(7, 3, np.arange(100_000))
    assert np.isfinite(noise).all()
    assert abs(noise.mean() - np.euler_gamma) < 0.02
    assert abs(noise.var() - np.pi**2 / 6) < 0.04
    assert np.array_equal(gumbel(7, 3, np.array([5, 17, 5])), noise[[5, 17, 5]])


def test_gumbel_noise_stays_as_it_is() -> None:
    """Or a seed would belong to another text than before."""
    noise = gumbel(7, 3, np.array([0, 5, 151935]))
    assert noise.tolist() == [-1.351337080282237, 0.859087451337547, -1.204577169375779]


SHAPES = {
    "random": lambda random, size: random.standard_normal(size),
    "flat": lambda random, size: np.zeros(size),
    "narrow": lambda random, size: random.standard_normal(size) * 1e-3,
    "wide": lambda random, size: random.standard_normal(size) * 30,
    "ties": lambda random, size: np.round(random.standard_normal(size) * 2) / 2,
    "few values": lambda random, size: random.integers(-2, 2, size),
    "peaked": lambda random, size: random.standard_normal(size) + 20 * (random.random(size) < 1e-3),
    "impossible": lambda random, size: np.where(random.random(size) < 0.9, -np.inf, random.standard_normal(size)),
}


@pytest.mark.parametrize("size", [300, 4097, 32000, 151936])
@pytest.mark.parametrize("shape", SHAPES)
def test_like_the_plainest_way(shape: str, size: int) -> None:
    """The same token for every setting, along a text that grows, and of which guessed tokens are taken back."""
    random = np.random.default_rng(size)
    for _ in range(6):
        logits = SHAPES[shape](random, size).astype(np.float32)
        options = GenerationOptions(
            seed=int(random.integers(2**62)), temperature=random.choice([0.1, 0.8, 2.0, 1e5]),
            top_k=int(random.choice([0, 0, 40, 4096, 4097, size // 2, size, 10**9])),
            top_p=random.choice([0.0, 0.5, 0.95, 0.999, 1.0, 1.0]), min_p=random.choice([0.0, 0.0, 1e-4, 0.05, 1.0]),
            repeat_penalty=random.choice([1.0, 1.1]), repeat_last_n=int(random.choice([64, 600, -1])),
        )  # fmt: skip
        banned = random.integers(0, size, 3).tolist()
        sampler = Sampler(options, banned)
        ids = random.integers(0, size, int(random.choice([1, 100, 1500]))).tolist()
        for back in (0, 1, 0, 70, 0):
            del ids[len(ids) - min(back, len(ids) - 1) :]
            token = sampler.choose(logits, ids)
            assert options.seed is not None
            assert token == sampler_reference.choose(logits, ids, options, options.seed, banned), options
            ids.append(token)


@pytest.mark.parametrize("changes", [
    {}, {"top_p": 0.95}, {"top_p": 0.5, "temperature": 3.0}, {"min_p": 0.05}, {"top_k": 100_000, "top_p": 0.95},
    {"repeat_penalty": 1.1, "repeat_last_n": -1},
], ids=str)  # fmt: skip
def test_many_tokens_are_not_sorted_for_a_draw(changes: dict[str, Any]) -> None:
    """A draw from all of a large vocabulary, after a long text, takes a fraction of sorting it."""
    options = GenerationOptions(**NEUTRAL | changes)
    sampler = Sampler(options)
    random = np.random.default_rng(1)
    logits = random.standard_normal(151_936).astype(np.float32)
    ids = random.integers(0, len(logits), 40_000).tolist()

    def seconds(choose: Callable[[], int]) -> float:
        started = time.perf_counter()
        choose()
        return time.perf_counter() - started

    plain = min(seconds(lambda: sampler_reference.choose(logits, ids, options, 1)) for _ in range(5))
    assert min(seconds(lambda: sampler.choose(logits, ids)) for _ in range(20)) < plain / 2


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=400), st.integers(1, 450))
def test_top_k_is_sorting(values: list[int], k: int) -> None:
    """Few different values, so that there are ties everywhere, also at the edge."""
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    assert top_k(np.array(values, np.float32), k).tolist() == order[:k]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 640, 4096, 4159, 32000])
@pytest.mark.parametrize("k", [1, 2, 9, 10, 40, 63, 64, 65, 499, 500, 501])
def test_top_k_around_chunks(size: int, k: int) -> None:
    random = np.random.default_rng(size)
    for logits in (random.standard_normal(size).astype(np.float32), random.integers(0, 3, size).astype(np.float32),
                   np.arange(size, dtype=np.float32), np.full(size, -np.inf, np.float32)):
        assert np.array_equal(top_k(logits, k), np.argsort(-logits, kind="stable")[:k])


@pytest.mark.parametrize(("name", "value"), [
    ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("top_k", -1),
    ("top_p", -0.1), ("top_p", 1.1), ("top_p", float("nan")), ("min_p", -1), ("min_p", 2), ("repeat_penalty", 0.0),
    ("repeat_penalty", float("nan")), ("repeat_last_n", -2), ("max_tokens", -2), ("seed", -1), ("stop", ("a", "")),
])
def test_options_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(LcpuError, match="stop string is empty" if name == "stop" else f"^{name} is ") as caught:
        GenerationOptions(**{name: value})
    assert "\n" not in str(caught.value)
