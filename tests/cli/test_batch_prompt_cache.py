"""`lcpu batch --prompt-cache`: the beginning that all prompts share is kept, and answers are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

from .batches import Batch, answers_in, said, written

pytestmark = pytest.mark.usefixtures("compiled")

SHARED = "once upon a time there was"
LINES = [{"prompt": f"{SHARED} {end}", "max_tokens": 8} for end in ("a cat", "a dog", "the sun", "a cat", "no more")]
COMMON = 29  # tokens: BOS, a space, the letters and a space
FLAGS = "-f in.jsonl -s 1 --prompt-cache cache.bin"


@pytest.fixture(scope="module")
def llm(tiny_gguf: Path) -> Iterator[LLM]:
    with LLM.load(tiny_gguf, threads=1) as llm:
        yield llm


@pytest.fixture(autouse=True)
def _lines(batch: Batch) -> None:
    """In the folder of the test."""
    Path("in.jsonl").write_text(written(LINES))


def held(llm: LLM) -> str:
    """The text in the file."""
    return llm.detokenize(llm.restore_prompt("cache.bin"))


def record(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens are written each time."""
    sizes: list[int] = []
    save = LLM.save_prompt

    def saving(self: LLM, path: Path, ids: Sequence[int]) -> int:
        sizes.append(save(self, path, ids))
        return sizes[-1]

    monkeypatch.setattr(LLM, "save_prompt", saving)
    return sizes


@pytest.mark.parametrize("flags", ["", "-np 1", "-np 2 --as-completed --spec none", "-md {model}"])
def test_answers_are_the_same_and_sooner(batch: Batch, llm: LLM, tiny_gguf: Path, flags: str) -> None:
    flags = flags.format(model=tiny_gguf)
    _, expected, _ = batch(None, "-f in.jsonl -s 1 --spec none")
    for cached in (0, COMMON):
        code, answers, _ = batch(None, f"{FLAGS} {flags}")
        assert (code, said(sorted(answers, key=lambda answer: answer["line"]))) == (0, said(expected))
        found = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers]
        assert found[0] == cached
        assert min(found) >= cached
        assert held(llm) == f"{SHARED} "
    Path("other.jsonl").write_text(written([{"prompt": f"{SHARED} once", "max_tokens": 1}]))
    _, answers, _ = batch(None, f"{FLAGS} -f other.jsonl --prompt-cache-ro")
    assert answers[0]["usage"]["prompt_tokens_details"]["cached_tokens"] == COMMON


def test_what_is_in_common_becomes_less(batch: Batch, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written for what was read when the first answer came, and again once a prompt has less."""
    sizes = record(monkeypatch)
    lines = [{"prompt": f"{SHARED} a cat", "max_tokens": 3}] * 4 + LINES
    Path("in.jsonl").write_text(written(lines))
    batch(None, f"{FLAGS} -np 1")
    assert sizes == [COMMON + 5, COMMON + 2, COMMON]
    assert held(llm) == f"{SHARED} "


def test_a_file_that_has_more_is_left_alone(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    batch(None, FLAGS)
    content = Path("cache.bin").read_bytes()
    sizes = record(monkeypatch)
    Path("in.jsonl").write_text(written([{"prompt": "once upon a time", "max_tokens": 2}, *LINES[:2]]))
    assert batch(None, FLAGS)[0] == 0
    assert sizes == []
    assert Path("cache.bin").read_bytes() == content


def test_another_beginning_takes_its_place(batch: Batch, llm: LLM) -> None:
    batch(None, FLAGS)
    Path("in.jsonl").write_text(written([{"prompt": f"and then {line['prompt']}", "max_tokens": 2} for line in LINES]))
    batch(None, FLAGS)
    assert held(llm) == f"and then {SHARED} "


def test_one_prompt_is_kept_as_a_whole(batch: Batch, llm: LLM) -> None:
    Path("in.jsonl").write_text(written(LINES[:1]))
    assert batch(None, FLAGS)[2].count("\n") == 1
    assert held(llm) == f"{SHARED} a cat"


def test_nothing_in_common(batch: Batch) -> None:
    Path("in.jsonl").write_text(written([*LINES, {"prompt": "zebra", "max_tokens": 2}, {"prompt": "oz"}, "{"]))
    code, answers, err = batch(None, f"{FLAGS} -n 4")
    assert (code, len(answers)) == (0, 8)
    assert err.startswith("warning: cache.bin is not written: the prompts have only 2 tokens in common\nload ")
    assert not Path("cache.bin").exists()


def test_read_only(batch: Batch) -> None:
    _, _, err = batch(None, f"{FLAGS} --prompt-cache-ro")
    assert err.startswith("warning: cache.bin: there is no prompt cache yet; without --prompt-cache-ro, this run")
    assert not Path("cache.bin").exists()
    batch(None, FLAGS)
    content = Path("cache.bin").read_bytes()
    Path("in.jsonl").write_text(written([{"prompt": f"and {line['prompt']}"} for line in LINES]))
    assert batch(None, f"{FLAGS} -n 2 --prompt-cache-ro")[0] == 0
    assert Path("cache.bin").read_bytes() == content


def test_answers_come_although_it_cannot_be_written(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: LLM, path: Path, ids: Sequence[int]) -> int:
        raise LcpuError("no room")

    _, expected, _ = batch(None, "-f in.jsonl -s 1")
    monkeypatch.setattr(LLM, "save_prompt", failing)
    code, answers, err = batch(None, FLAGS)
    assert (code, answers) == (0, expected)
    assert err.startswith("warning: no room\nload ")
    assert err.count("\n") == 2


@pytest.mark.parametrize(("damage", "message"), [
    (lambda content: content[:-1], "is a prompt cache that is cut or damaged"),
    (lambda content: content[:17] + b"\7" + content[18:], "is a prompt cache of another version of lcpu"),
    (lambda content: content[:-40] + b"x" * 8 + content[-32:], "is a damaged prompt cache"),
    (lambda content: b"a note", "is not a prompt cache"),
], ids=["cut", "version", "damaged", "foreign"])  # fmt: skip
def test_a_file_that_is_refused(batch: Batch, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes],
                                message: str) -> None:
    """Before anything is computed, and with nothing on stdout."""
    batch(None, FLAGS)
    content = damage(Path("cache.bin").read_bytes())
    Path("cache.bin").write_bytes(content)
    monkeypatch.setattr(LLM, "stream", None)
    assert batch(None, FLAGS) == (1, [], f"lcpu: error: cache.bin: {message}: delete it or name another file\n")
    assert Path("cache.bin").read_bytes() == content


def test_of_another_model(batch: Batch, write_tiny: Callable[..., Path]) -> None:
    batch(None, FLAGS)
    code, answers, err = batch(None, f"{FLAGS} -m {write_tiny(**{'general.name': 'other'})}")
    assert (code, answers) == (1, [])
    assert err == "lcpu: error: cache.bin: is the prompt cache of another model: delete it or name another file\n"


def test_resumed_with_all_answered(batch: Batch) -> None:
    batch(None, "-f in.jsonl -o out.jsonl -s 1")
    assert batch(None, f"{FLAGS} -o out.jsonl --resume")[0] == 0
    assert not Path("cache.bin").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_continued(batch: Batch, llm: LLM, tiny_gguf: Path, number: int) -> None:
    """There is a file after the first answer, and what remains is answered with it."""
    lines: list[Any] = [{"prompt": f"{SHARED} {i}", "ignore_eos": True} for i in range(300)]
    Path("in.jsonl").write_text(written(lines))
    command = [sys.executable, "-m", "lcpu", "batch", "-m", str(tiny_gguf), *FLAGS.split(), "-o", "out.jsonl"]
    with subprocess.Popen([*command, "-np", "4"], stderr=subprocess.PIPE, text=True) as process:
        while not Path("out.jsonl").exists() or Path("out.jsonl").stat().st_size < 1000:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert held(llm) == f"{SHARED} "
    before = Path("out.jsonl").read_bytes().count(b"\n")
    assert 0 < before < 300
    assert batch(None, f"{FLAGS} -o out.jsonl --resume")[0] == 0
    assert batch(None, "-f in.jsonl -o whole.jsonl -s 1")[0] == 0
    answers = answers_in("out.jsonl")
    assert said(answers) == said(answers_in("whole.jsonl"))
    assert all(answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= COMMON for answer in answers[before:])
