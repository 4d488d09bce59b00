"""A real model, as its users run it: `make test-models` fetches it and names it in LCPU_TEST_MODEL."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcpu.cli.main import exit_code
from lcpu.engine.chat import render
from lcpu.engine.llm import LLM
from lcpu.engine.options import GenerationOptions

HERE = Path(__file__).parent
GOLDEN: dict[str, Any] = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
PROMPTS = [case["prompt"] for case in GOLDEN["greedy"]]
MODEL = os.environ.get("LCPU_TEST_MODEL", "")

pytestmark = pytest.mark.skipif(not MODEL, reason="LCPU_TEST_MODEL is not set: `make test-models` fetches the model")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM.load(MODEL, context=1024) as llm:
        yield llm


@pytest.fixture
def lcpu(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """lcpu(arguments...) -> what the command prints."""

    def run(*arguments: str) -> str:
        assert exit_code([*arguments, "-m", MODEL]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("case", GOLDEN["greedy"], ids=PROMPTS)
def test_greedy_texts_are_those_of_llama_cpp(llm: LLM, case: dict[str, Any]) -> None:
    ids = llm.tokenize(case["prompt"], parse_special=True)
    assert ids == case["prompt_ids"]
    generation = llm.stream(ids, GenerationOptions(max_tokens=len(case["ids"]), temperature=0.0))
    list(generation)
    assert generation.generated_ids == case["ids"]


def test_many_texts_at_once_are_those_of_one(llm: LLM) -> None:
    for options in ({"temperature": 0.0}, {"seed": 7}):
        alone = ["".join(llm.generate(prompt, max_tokens=40, draft=None, **options)) for prompt in PROMPTS]
        assert llm.generate_batch(PROMPTS, max_tokens=40, **options) == alone
        assert llm.generate_batch(PROMPTS, max_tokens=40, draft="ngram", **options) == alone


def test_a_chat(llm: LLM) -> None:
    prompt = render(llm.chat_template, [{"role": "user", "content": GOLDEN["chat"]["message"]}])
    ids = llm.tokenize(prompt, add_bos=False, parse_special=True)
    generation = llm.stream(ids, GenerationOptions(max_tokens=32, temperature=0.0))
    assert "".join(generation) == GOLDEN["chat"]["reply"]
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize("cache", ["f16", "q8_0"])
def test_perplexity(lcpu: Callable[..., str], cache: str) -> None:
    """That of llama.cpp within a hundredth, for a text of two windows; and nearly the same with Q8_0 pages."""
    expected = GOLDEN["perplexity"]
    out = lcpu("perplexity", "-f", str(HERE / "text.txt"), "-c", str(expected["window"]), "-ctk", cache, "-ctv", cache,
               "--json")
    assert json.loads(out)["ppl"]["value"] == pytest.approx(expected["value"], rel=0.01)


def test_lcpu_batch(lcpu: Callable[..., str], llm: LLM, tmp_path: Path) -> None:
    lines, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    lines.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS), encoding="utf-8")
    lcpu("batch", "-f", str(lines), "-o", str(answers), "-n", "20", "--temp", "0", "-np", "4")
    texts = [json.loads(line)["text"] for line in answers.read_text(encoding="utf-8").splitlines()]
    assert texts == ["".join(llm.generate(prompt, max_tokens=20, temperature=0.0)) for prompt in PROMPTS]


def test_a_prompt_cache(lcpu: Callable[..., str], tmp_path: Path) -> None:
    command = ("run", "-p", PROMPTS[1], "-n", "20", "--temp", "0", "--json")
    cached = (*command, "--prompt-cache", str(tmp_path / "prompt.cache"))
    plain, first, again = (json.loads(lcpu(*each)) for each in (command, cached, cached))
    assert plain["text"] == first["text"] == again["text"]
    assert again["timings"]["reused_tokens"] > 0
