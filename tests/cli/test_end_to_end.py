"""`lcpu run` as its users run it: in a process of its own, on the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "lcpu", "run"]
GREEDY = ("--temp", "0", "-n", "16")
DRAFT_MODEL = Path(__file__).parents[2] / "models" / "stories-draft.gguf"
COMPILING = "compiling kernels for this processor (first run only)...\n"

Lcpu = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def greedy_text() -> str:
    done = subprocess.run(
        [*COMMAND, "-p", "Once upon a time", *GREEDY],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_default_prompt_of_the_embedded_model(lcpu, greedy_text):
    done = lcpu("run", *GREEDY)
    assert (done.returncode, done.stdout) == (0, greedy_text)
    assert len(greedy_text.split()) > 4
    assert greedy_text.endswith("\n")
    assert not greedy_text.endswith("\n\n")


def test_stderr_ends_with_the_speeds(lcpu):
    done = lcpu("run", "-p", "Once upon a time", *GREEDY)
    line = done.stderr.removeprefix(COMPILING)
    assert line.startswith("load ")
    assert "generation 16 tokens, " in line
    assert line.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_every_source_of_a_prompt_gives_the_same_text(lcpu, greedy_text, tmp_path):
    (tmp_path / "prompt.txt").write_text("Once upon a time\n")
    assert lcpu("run", *GREEDY, stdin="Once upon a time\n").stdout == greedy_text
    assert lcpu("run", "-p", "-", *GREEDY, stdin="Once upon a time").stdout == greedy_text
    assert lcpu("run", "-f", "prompt.txt", *GREEDY).stdout == greedy_text
    assert lcpu("run", "-p", "Once upon a time", *GREEDY, stdin="another").stdout == greedy_text


def test_a_stdin_that_never_ends_is_left_alone_with_p():
    reader, writer = os.pipe()
    try:
        done = subprocess.run([*COMMAND, "-p", "Once", *GREEDY], stdin=reader, capture_output=True, timeout=280)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0


def test_json_document(lcpu, greedy_text):
    done = lcpu("run", "-p", "Once upon a time", *GREEDY, "-t", "1", "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["text"] == greedy_text.removesuffix("\n")
    assert len(document["ids"]) == document["timings"]["generated_tokens"] == 16
    assert document["finish_reason"] == "length"
    assert document["threads"] == 1
    assert document["model"]
    assert document["isa"]
    assert document["timings"]["load_seconds"] > 0


def ids(done: subprocess.CompletedProcess[str]) -> list[int]:
    return json.loads(done.stdout)["ids"]


def test_seeds_reproduce(lcpu):
    sampled = ("run", "-p", "Once upon a time", "-n", "32", "--temp", "1.5", "--json")
    first = lcpu(*sampled, "--seed", "1")
    assert ids(first) == ids(lcpu(*sampled, "--seed", "1"))
    assert ids(first) != ids(lcpu(*sampled, "--seed", "2"))
    unseeded = lcpu(*sampled)
    assert ids(unseeded) == ids(lcpu(*sampled, "--seed", str(json.loads(unseeded.stdout)["seed"])))


def test_threads_never_change_the_text(lcpu):
    sampled = ("run", "-p", "Once upon a time", "-n", "32", "-s", "3", "--json")
    assert ids(lcpu(*sampled, "-t", "1")) == ids(lcpu(*sampled, "-t", "2")) == ids(lcpu(*sampled, "-t", "3"))


@pytest.mark.parametrize("sampling", [("--temp", "0"), ("--temp", "1", "-s", "3")])
def test_drafts_never_change_the_text(lcpu, sampling):
    command = ("run", "-p", "Once upon a time", "-n", "60", *sampling)
    plain = lcpu(*command, "--spec", "none")
    assert (plain.returncode, len(plain.stdout.split()) > 20) == (0, True)
    assert "draft" not in plain.stderr
    for flags in (["--spec", "ngram"], ["--spec", "auto"], ["-md", str(DRAFT_MODEL)]):
        done = lcpu(*command, *flags)
        assert (done.returncode, done.stdout) == (0, plain.stdout), flags


def test_a_draft_model_is_named_and_accounted_for(lcpu):
    """Whether it drafts anything depends on how fast it is."""
    command = ("run", "-p", "Once upon a time", *GREEDY, "-md", str(DRAFT_MODEL))
    rows = dict(line.split("  ", 1) for line in lcpu(*command, "-v").stderr.splitlines() if "  " in line)
    assert rows["drafts"].strip().startswith("from n-grams and llama ")
    done = lcpu(*command, "--json")
    assert done.stderr == ""
    figures = json.loads(done.stdout)["speculation"]
    drafted, accepted = figures["drafted"], figures["accepted"]
    assert 0 <= accepted <= drafted
    assert accepted < 16, "the first token is never drafted"
    assert figures["acceptance_rate"] == (accepted / drafted if drafted else 0)
    assert figures["speed_up"] > 0


def test_a_draft_model_with_another_vocabulary_is_one_line(lcpu, tiny_gguf):
    done = lcpu("run", "-p", "Once upon a time", *GREEDY, "-md", str(tiny_gguf))
    assert (done.returncode, done.stdout) == (1, "")
    error = done.stderr.removeprefix(COMPILING)
    assert error.startswith("lcpu: error: the draft model has another vocabulary: token ")
    assert error.count("\n") == 1


def test_stop_text_ends_before_it(lcpu, greedy_text):
    stop = greedy_text.split()[3]
    done = lcpu("run", "-p", "Once upon a time", *GREEDY, "--stop", stop, "--json")
    document = json.loads(done.stdout)
    assert document["text"] == greedy_text.partition(stop)[0]
    assert document["finish_reason"] == "stop"


def test_echo_puts_the_prompt_in_front(lcpu, greedy_text):
    assert lcpu("run", "-p", "Once upon a time", *GREEDY, "--echo").stdout == "Once upon a time" + greedy_text


def test_verbose_names_the_processor_path(lcpu, greedy_text):
    done = lcpu("run", "-p", "Once upon a time", *GREEDY, "-v", LCPU_THREADS="1")
    assert done.stdout == greedy_text
    names = [line.split("  ")[0] for line in done.stderr.removeprefix(COMPILING).splitlines()]
    assert names[0] == "model"
    assert {"simd path", "threads", "context", "seed"} <= set(names)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"GGUF"])
def test_bad_model_is_one_line(lcpu, tmp_path, content):
    if content is not None:
        (tmp_path / "bad.gguf").write_bytes(content)
    done = lcpu("run", "-m", "bad.gguf", "-p", "hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lcpu: error: ")
    assert "bad.gguf" in done.stderr
    assert "unexpected" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_prompt_longer_than_the_context_is_one_line(lcpu):
    done = lcpu("run", "-p", "one two three four five six seven", *GREEDY, "-c", "4")
    assert (done.returncode, done.stdout) == (1, "")
    error = done.stderr.removeprefix(COMPILING)
    assert error.startswith("lcpu: error: ")
    assert "unexpected" not in error
    assert error.count("\n") == 1


def test_closed_pipe_ends_quietly(tmp_path):
    command = [*COMMAND, "-p", "Once upon a time", "-n", "-1", "--ignore-eos"]
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        assert process.stdout is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.wait(280) == 0
    said = errors.read_text().removeprefix(COMPILING)
    # The text may have been complete before the pipe closed, and then the speeds follow.
    assert said == "" or (said.startswith("load ") and said.count("\n") == 1) or said.startswith("the context of ")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals for one process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_exit_code(tmp_path, number, code):
    reader, writer = os.pipe()
    fill(writer)  # the run gets as far as its first piece of text, and waits there
    with subprocess.Popen(
        [*COMMAND, "-p", "Once upon a time", "-v"],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        while not process.stderr.readline().startswith("seed "):
            assert process.poll() is None
        process.send_signal(number)
        with open(reader, "rb") as pipe:
            pipe.read()
        said = process.stderr.read()
    assert (process.returncode, said) == (code, "")


def fill(writer: int) -> None:
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"\n")
    except BlockingIOError:
        os.set_blocking(writer, True)


def test_api_is_what_the_command_runs(greedy_text):
    from lcpu import LLM

    with LLM.load() as llm:
        text = "".join(llm.generate("Once upon a time", max_tokens=16, temperature=0))
    assert text == greedy_text.removesuffix("\n")


def test_shared_model_gives_its_golden_text(lcpu):
    """The same tokens that llama.cpp gives, through the whole command."""
    shared = Path(__file__).parents[3] / "shared"
    model, golden = shared / "models" / "stories260K-f32.gguf", shared / "golden" / "stories260K-f32.json"
    if not (model.exists() and golden.exists()):
        pytest.skip("needs the optional folder ../shared")
    expected = json.loads(golden.read_text())
    done = lcpu("run", "-m", str(model), "-p", expected["prompt"], "--temp", "0", "-n", "40", "--ignore-eos", "--json")
    assert [*expected["prompt_tokens"], *ids(done)] == expected["greedy_tokens"][: len(expected["prompt_tokens"]) + 40]
