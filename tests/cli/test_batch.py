"""`lcpu batch`, in this process and on the tiny model; and in processes of its own where it is interrupted."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcpu.cli import batch_files, console
from lcpu.cli.batch_files import Answered, Answers, open_output, read_lines
from lcpu.cli.batch_run import line_seed
from lcpu.cli.main import exit_code
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

from .batches import LINES, Batch, answers_in, written

pytestmark = pytest.mark.usefixtures("compiled")

def test_answers_are_what_run_gives(batch: Batch, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answers, err = batch(LINES, "-s 1 -np 3")
    assert code == 0
    assert [answer["id"] for answer in answers] == [1, "fox", 3, 4, 5, 6, 7]
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4, 5, 6, 7]
    assert len({answer["seed"] for answer in answers}) == 7
    assert answers[3]["seed"] == 9
    for line, answer in zip(LINES, answers, strict=True):
        if not isinstance(line["prompt"], str):
            continue
        names = {"max_tokens": "-n", "temperature": "--temp", "repeat_penalty": "--repeat-penalty"}
        given = [part for name, flag in names.items() if name in line for part in (flag, str(line[name]))]
        stops = [part for stop in line.get("stop", []) for part in ("-r", stop)]
        flags = ["--json", "-s", str(answer["seed"]), "-p", line["prompt"], *given, *stops]
        assert exit_code(["run", "-m", str(tiny_gguf), *flags]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert (answer["text"], answer["finish_reason"]) == (alone["text"], alone["finish_reason"])
        assert answer["usage"]["completion_tokens"] == len(alone["ids"])
        assert answer["usage"]["prompt_tokens"] == alone["timings"]["prompt_tokens"]
    assert err.startswith("load ")
    assert " · 7 answers · prompts " in err
    assert err.count("\n") == 1


def test_usage_counts_what_was_cached(batch: Batch) -> None:
    """The second text begins with the first one's prompt, which has been computed by then."""
    _, answers, err = batch([{"prompt": "abcdefgh" * 5, "max_tokens": 1}] * 2, "-s 1 -np 1")
    assert [answer["usage"] for answer in answers] == [
        {"prompt_tokens": 42, "completion_tokens": 1, "total_tokens": 43,
         "prompt_tokens_details": {"cached_tokens": cached}} for cached in (0, 41)]  # fmt: skip
    assert " · prompts 43 tokens (41 reused) · generation 2 tokens · " in err


@pytest.mark.parametrize("flags", ["-np 1", "-np 2 --as-completed", "-np 7 -t 1", "-ctk f16 -ctv f16 -c 64"])
def test_the_run_as_a_whole_is_reproducible(batch: Batch, flags: str) -> None:
    def texts(answers: list[Any]) -> list[Any]:
        return sorted((answer["line"], answer["seed"], answer["text"]) for answer in answers)

    expected = texts(batch(LINES)[1])
    assert texts(batch(LINES, f"-s 1 {flags}")[1]) == expected
    other = texts(batch(LINES, "-s 2")[1])
    assert other[0] != expected[0]
    assert other[3] == expected[3], "which has a seed of its own"


def test_seeds() -> None:
    seeds = {line_seed(seed, line) for seed in range(100) for line in range(1, 101)}
    assert len(seeds) == 10_000
    assert 0 <= min(seeds) <= max(seeds) < 2**32
    assert line_seed(1, 1) == 1189033389, "which is a promise: a run of yesterday can be continued"


def test_flags_are_the_settings_of_lines_without(batch: Batch) -> None:
    _, answers, _ = batch([{"prompt": "abc"}, {"prompt": "abc", "n_predict": 2, "stop": []}], "-s 1 -n 7 --temp 0 -r z")
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [7, 2]
    assert answers[0]["text"].startswith(answers[1]["text"])


def test_a_bad_line_is_an_error_in_its_answer(batch: Batch) -> None:
    lines = [LINES[0], "{", "", {"prompt": "a" * 90, "id": "long"}, {"prompt": "b", "top_p": 3}, {"prompt": []},
             {"prompt": [999]}, {"messages": [{"role": "user", "content": "Hi"}]}, "  ", LINES[1]]
    code, answers, err = batch(lines)
    assert code == 0
    assert [(answer["line"], answer.get("error", "")[:50]) for answer in answers] == [
        (1, ""), (2, "the line is not JSON: Expecting property name encl"),
        (4, "the prompt has 92 tokens and the context only 64: s"[:50]), (5, "top_p is 3.0; it must be 0 to 1"),
        (6, "the prompt is empty: give at least one token"),
        (7, "token 999 is not one of the model's 286: they are 0 to 285"[:50]),
        (8, "this model is not made for chat (no chat template); take another"[:50]), (10, "")]  # fmt: skip
    assert answers[2]["id"] == "long"
    assert answers[6]["error"].endswith("take another with -m, or write a prompt instead of messages")
    assert " · 8 answers, 6 failed · " in err


def test_what_is_ignored_is_said_once(batch: Batch) -> None:
    _, _, err = batch([{"prompt": "a", "max_tokens": 1, "category": 1}] * 3)
    assert err.startswith("warning: line 1: category is no setting of lcpu and is ignored\nload ")


def test_messages(batch: Batch, write_tiny: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Through the model's template, as `run --chat` does."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}assistant:"
    path = str(write_tiny(**{"tokenizer.chat_template": template}))
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    _, (answer, openai), _ = batch(
        [{"messages": messages, "max_tokens": 9},
         {"custom_id": "c", "url": "/v1/chat/completions", "body": {"messages": messages, "max_tokens": 9, "seed": 5}}],
        f"-m {path} -s 1")  # fmt: skip
    for seed, text in ((answer["seed"], answer["text"]),
                       (5, openai["response"]["body"]["choices"][0]["message"]["content"])):
        flags = ["--chat", "-sys", "s", "-p", "hi", "-n", "9", "-s", str(seed), "--json"]
        assert exit_code(["run", "-m", path, *flags]) == 0
        assert json.loads(capsys.readouterr().out)["text"] == text


def test_what_the_template_is_told(batch: Batch, write_tiny: Callable[..., Path]) -> None:
    template = "{{ word }}{% for m in messages %}{{ m.content }}{% endfor %}"
    path = str(write_tiny(**{"tokenizer.chat_template": template}))
    reply = "<|channel|>final<|message|>up"
    messages = [{"role": "user", "content": "on"}, {"role": "assistant", "content": reply}]
    _, (told, plain), _ = batch([{"messages": messages, "chat_template_kwargs": {"word": "Once "}, "max_tokens": 9},
                                 {"prompt": "Once onup", "max_tokens": 9}], f"-m {path} --temp 0")
    assert told["text"] == plain["text"]


def test_openai_s_form(batch: Batch) -> None:
    body = {"model": "some-model", "prompt": "abc", "max_tokens": 4, "seed": 3}
    _, (own, answer, failed), _ = batch([
        {"prompt": "abc", "max_tokens": 4, "seed": 3},
        {"custom_id": "one", "method": "POST", "url": "/v1/completions", "body": body},
        {"custom_id": "two", "method": "POST", "url": "/v1/completions", "body": {**body, "n": 2}}])  # fmt: skip
    response = answer["response"]
    assert (answer["id"], answer["custom_id"], answer["error"]) == ("batch_req_2", "one", None)
    assert (response["status_code"], response["request_id"]) == (200, "req_2")
    created = response["body"].pop("created")
    assert abs(created - time.time()) < 100
    assert response["body"] == {
        "id": "cmpl-2", "object": "text_completion", "model": "some-model", "seed": 3, "usage": own["usage"] | {
            "prompt_tokens_details": response["body"]["usage"]["prompt_tokens_details"]},
        "choices": [{"index": 0, "text": own["text"], "logprobs": None, "finish_reason": "length"}]}  # fmt: skip
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("two", 400)
    assert failed["response"]["body"]["error"]["message"] == failed["error"]["message"]
    assert failed["error"]["message"].startswith("n is 2, which lcpu cannot do")


def test_a_full_context(batch: Batch) -> None:
    body = {"prompt": "abc", "ignore_eos": True}
    _, (own, openai), _ = batch([body, {"url": "/v1/completions", "body": body}])
    assert own["finish_reason"] == "context"
    assert openai["response"]["body"]["choices"][0]["finish_reason"] == "length", "which OpenAI's readers know"


def test_one_that_fails_later(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    from lcpu.engine.sequence import TokenSequence

    take = TokenSequence.take

    def failing(self: TokenSequence, *arguments: Any) -> None:
        if self.prompt_tokens == 10 and len(self.ids) == 13:
            self.error = LcpuError("odd logits")
        else:
            take(self, *arguments)

    monkeypatch.setattr(TokenSequence, "take", failing)
    lines = [{"prompt": "abc"}, {"prompt": "abcdefgh"}, {"url": "/v1/completions", "body": {"prompt": "abcdefgh"}}]
    code, (fine, own, openai), err = batch(lines, "-s 1 -n 9 --ignore-eos")
    assert (code, fine["finish_reason"], own["error"]) == (0, "length", "odd logits")
    assert openai["response"]["status_code"] == 500
    assert " · 3 answers, 2 failed · " in err


# ---- files, pipes and order ----


def test_files(batch: Batch) -> None:
    Path("in.jsonl").write_text(written(LINES))
    _, expected, _ = batch(LINES)
    code, printed, err = batch(None, "-f in.jsonl -o out.jsonl -s 1")
    assert (code, printed, answers_in("out.jsonl")) == (0, [], expected)
    code, _, err = batch(None, "-f in.jsonl -o out.jsonl -s 1")
    assert code == 1
    assert err == "lcpu: error: out.jsonl: is there already; --resume continues it, --force overwrites it\n"
    assert batch(None, "-f in.jsonl -o out.jsonl -s 1 --force")[0] == 0
    assert answers_in("out.jsonl") == expected
    assert batch(LINES, "-f - -o - -s 1")[1] == expected
    assert batch(None, "-f in.jsonl -o - -s 1")[1] == expected
    assert batch([], "")[:2] == (0, [])
    assert batch(None, "") == (2, [], "lcpu: error: no requests: give -f FILE or a pipe on stdin; see 'lcpu batch "
                                      "--help'\n")  # fmt: skip


def test_a_file_on_stdin_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(written(LINES))
    with path.open("rb") as stdin:
        done = subprocess.run([sys.executable, "-m", "lcpu", "batch", "-o", str(path), "--force"], stdin=stdin,
                              capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is the input and the output" in done.stderr
    assert path.read_text() == written(LINES)


def test_order() -> None:
    """Answers wait for those before them, unless as they come."""
    for ordered, expected in ((True, ["1", "2", "3"]), (False, ["3", "1", "2"])):
        file = io.StringIO()
        answers = Answers(file, ordered=ordered)
        for line in (1, 2, 3):
            answers.expect(line)
        answers.add(3, {"line": 3})
        assert answers.is_full is False
        assert file.getvalue().count("\n") == (0 if ordered else 1)
        answers.add(1, {"line": 1})
        answers.add(2, {"line": 2})
        assert [line[-2] for line in file.getvalue().splitlines()] == expected


def test_an_answer_is_a_line_for_every_reader() -> None:
    """str.splitlines knows more ends of lines than a newline."""
    file, text = io.StringIO(), "é\x85\u2028\u2029\x0b\x0c\x1c\r\n\"\\"
    Answers(file, ordered=False).add(1, {"text": text})
    (line,) = file.getvalue().splitlines()
    assert json.loads(line)["text"] == text
    assert "é" in line


def test_answers_that_wait_are_bounded(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one long text, no more than so many are computed ahead."""
    monkeypatch.setattr(batch_files, "MOST_HELD", 3)
    most, is_full = 0, Answers.is_full.fget

    def watched(self: Answers) -> bool:
        nonlocal most
        most = max(most, len(self._held))
        return is_full(self)

    monkeypatch.setattr(Answers, "is_full", property(watched))
    lines = [{"prompt": "abc", "ignore_eos": True}, *[{"prompt": "x", "max_tokens": 1}] * 50]
    _, answers, _ = batch(lines, "-s 1 -np 2")
    assert [answer["line"] for answer in answers] == list(range(1, 52))
    assert 3 <= most <= 3 + 4


def test_a_file_is_read_as_it_is_needed(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    read, most_ahead, ended = 0, 0, 0
    stream = LLM.stream

    def counted(self: LLM, *arguments: Any) -> Any:
        nonlocal read, most_ahead
        read += 1
        most_ahead = max(most_ahead, read - ended)
        return stream(self, *arguments)

    add = Answers.add

    def added(self: Answers, *arguments: Any) -> None:
        nonlocal ended
        ended += 1
        add(self, *arguments)

    monkeypatch.setattr(LLM, "stream", counted)
    monkeypatch.setattr(Answers, "add", added)
    Path("in.jsonl").write_text(written([{"prompt": "x", "max_tokens": 2}] * 200))
    assert batch(None, "-f in.jsonl -o out.jsonl -np 2 -s 1")[0] == 0
    assert (read, ended) == (200, 200)
    assert most_ahead <= 5


def test_a_slow_pipe_does_not_hold_up_what_is_there(tiny_gguf: Path) -> None:
    """Each answer comes before the next request is written."""
    command = [sys.executable, "-m", "lcpu", "batch", "-m", str(tiny_gguf), "-s", "1", "-n", "5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, bufsize=1) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1, 4):
            process.stdin.write('{"prompt": "abc"}\n')
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_lines_of_a_pipe() -> None:
    """None only where others wait, and an error of the pipe is not lost."""
    go_on = threading.Event()

    class Pipe(io.RawIOBase):
        def __iter__(self) -> Any:
            yield b"a\n"
            yield b"\n"
            go_on.wait()
            yield b"b"
            raise OSError(5, "Input/output error")

    lines = read_lines(Pipe(), lambda: not go_on.is_set())  # type: ignore[arg-type]
    assert next(line for line in lines if line) == (1, b"a\n")
    assert list(itertools.islice(lines, 3)) == [None] * 3
    go_on.set()
    assert next(line for line in lines if line) == (3, b"b")
    with pytest.raises(OSError, match="Input/output error"):
        list(lines)


# ---- interrupted and continued ----


def test_resume(batch: Batch) -> None:
    Path("in.jsonl").write_text(written([*LINES, "{", *LINES]))
    batch(None, "-f in.jsonl -o whole.jsonl -s 1")
    whole = Path("whole.jsonl").read_bytes()
    assert whole.count(b"\n") == 15

    def texts(path: str) -> list[Any]:
        return [(answer["line"], answer.get("text"), answer.get("error")) for answer in answers_in(path)]

    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        Path("out.jsonl").write_bytes(whole[:cut])
        code, printed, err = batch(None, "-f in.jsonl -o out.jsonl -s 1 --resume")
        assert (code, printed, texts("out.jsonl")) == (0, [], texts("whole.jsonl"))
        before = whole[:cut].count(b"\n")
        assert Path("out.jsonl").read_bytes().startswith(whole[: whole[:cut].rfind(b"\n") + 1])
        assert (f" and {before} from before" in err) == (before > 0)
    Path("out.jsonl").unlink()
    assert batch(None, "-f in.jsonl -o out.jsonl -s 1 --resume")[0] == 0, "there was nothing yet"
    assert texts("out.jsonl") == texts("whole.jsonl")
    lines = Path("whole.jsonl").read_text().splitlines(keepends=True)
    Path("out.jsonl").write_text("".join(lines[i] for i in (4, 0, 9)))
    batch(None, "-f in.jsonl -o out.jsonl -s 1 --resume --as-completed")
    assert sorted(texts("out.jsonl")) == sorted(texts("whole.jsonl"))


def test_resume_with_other_requests(batch: Batch) -> None:
    Path("in.jsonl").write_text(written(LINES[:2]))
    batch(None, "-f in.jsonl -o out.jsonl -s 1")
    Path("other.jsonl").write_text(written([LINES[0], {**LINES[1], "id": "cat"}, LINES[2]]))
    code, _, err = batch(None, "-f other.jsonl -o out.jsonl -s 1 --resume")
    assert code == 1
    assert err == ("lcpu: error: line 2 has the id 'cat', but its answer 'fox': --resume needs the same requests in "
                   "the same order\n")  # fmt: skip


@pytest.mark.parametrize("content", ["a note", "a note\n", '{"prompt": "a"}', '{"prompt": "a"}\n', "\n", '{"id": 1}\n'])
def test_resume_leaves_a_file_of_something_else_alone(batch: Batch, content: str) -> None:
    Path("in.jsonl").write_text(written(LINES))
    Path("out").write_text(content)
    code, _, err = batch(None, "-f in.jsonl -o out --resume")
    assert (code, err.partition(":")[2].partition(":")[0]) == (1, " error")
    assert "out: line 1 is no answer of lcpu batch" in err
    assert Path("out").read_text() == content


def test_answered_lines(tmp_path: Path) -> None:
    answered = Answered()
    for line in (1, 2, 5, 4, 9):
        answered.add(line, line)
    assert [line in answered for line in range(1, 11)] == [True, True, False, True, True, *[False] * 3, True, False]
    answered.add(3, "x")
    assert (answered.up_to, answered.beyond, answered.last) == (5, {9}, (3, "x"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_interrupted_and_continued(batch: Batch, tmp_path: Path, tiny_gguf: Path, number: int, code: int) -> None:
    lines = [{"prompt": f"abc{i}", "ignore_eos": True} for i in range(300)]
    Path("in.jsonl").write_text(written(lines))
    command = [sys.executable, "-m", "lcpu", "batch", "-m", str(tiny_gguf), "-f", "in.jsonl", "-s", "1", "-np", "4"]
    with subprocess.Popen([*command, "-o", "out.jsonl"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not Path("out.jsonl").exists() or Path("out.jsonl").stat().st_size < 1000:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == code
    count = len(answers_in("out.jsonl")) if Path("out.jsonl").read_bytes().endswith(b"\n") else None
    assert count is None or 0 < count < 300
    assert batch(None, "-f in.jsonl -o out.jsonl -s 1 --resume")[0] == 0
    assert [answer["line"] for answer in answers_in("out.jsonl")] == list(range(1, 301))
    assert batch(None, "-f in.jsonl -o whole.jsonl -s 1")[0] == 0
    texts = [[answer["text"] for answer in answers_in(path)] for path in ("out.jsonl", "whole.jsonl")]
    assert texts[0] == texts[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_it_waits_for_a_pipe(tiny_gguf: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "lcpu", "batch", "-m", str(tiny_gguf), "-n", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          bufsize=1) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"prompt": "abc"}\n')
        process.stdout.readline()
        process.send_signal(number)
        process.wait(60)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == code


# ---- what is seen of it ----


def test_progress_on_a_terminal(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(console, "PROGRESS_DELAY", 0)
    monkeypatch.setattr(console, "PROGRESS_PERIOD", 0)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    Path("in.jsonl").write_text(written(LINES))
    batch(None, "-f in.jsonl -o out.jsonl -s 1 -np 1")
    shown = terminal.getvalue()
    assert "0 answers" in shown
    assert "6 answers, " in shown
    assert "100%" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")
    batch(LINES, "-s 1 -np 1")
    assert "6 answers, " in terminal.getvalue()[len(shown) :], "of a pipe, too, whose end nobody knows"


def test_verbose(batch: Batch) -> None:
    _, _, err = batch(LINES, "-v -s 1 -np 3 -n 20 -c 64")
    assert "\ncache " in err
    assert "192 tokens" not in err
    assert "tokens (keys F16, values F16)\n" in err


def test_the_cache_has_room_for_all_at_once(batch: Batch, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so has that of a draft model."""
    asked: list[Any] = []
    load = LLM.load.__func__

    def recorded(cls: Any, *arguments: Any, **options: Any) -> Any:
        asked.append((options["parallel"], options["cache_tokens"]))
        assert options["beside"] is None or options["context"] == 64
        return load(cls, *arguments, **options)

    monkeypatch.setattr(LLM, "load", classmethod(recorded))
    Path("in.jsonl").write_text(written([{"prompt": "x" * 1000, "max_tokens": 1}, *LINES]))
    batch(LINES, "-n 100 -np 4")  # of a pipe, nothing is known
    batch(None, "-f in.jsonl -o 1 -n 100")
    batch(None, "-f in.jsonl -o 2 -n 100 -c 64 -np 2")
    batch(None, "-f in.jsonl -o 3")
    batch(LINES, f"-n 100 -np 2 -md {tiny_gguf}")
    size = len(written([{"prompt": "x" * 1000, "max_tokens": 1}])) // 2
    assert asked == [(4, 4 * 1124), (16, 16 * (size + 100)), (2, 128), (16, 16 * (size + 2048)),
                     *[(2, 2 * 1124)] * 2]


def test_open_output_takes_devices(tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb"), (tmp_path / "in").open("rb") as source:
        target, answered = open_output(Path(os.devnull), source, resume=False, force=False)
        assert target is not None
        target.close()
        assert 1 not in answered
