"""`lcpu perplexity` on the embedded model and on tiny ones: its numbers are the engine's, and where they go."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lcpu.cli import console
from lcpu.cli.main import exit_code
from lcpu.engine import perplexity
from lcpu.engine.llm import LLM

TEXT = (
    "Once upon a time there was a little girl named Lily. She had a red ball, and she liked to play with it in the "
    "garden. One day the ball rolled under a big tree, and a small bird sat on it. Lily asked the bird to give the "
    "ball back. The bird sang a song and flew away. Lily was happy, and she went home to tell her mother about it all."
)
COMPILING = "compiling kernels for this processor (first run only)...\n"


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT + "\n")
    return str(path)


@pytest.fixture(scope="module")
def expected() -> perplexity.Estimate:
    with LLM.load(threads=1, context=24) as llm:
        windows = perplexity.windows(llm, TEXT, 24)
        return perplexity.perplexity(np.concatenate([perplexity.score(llm, window) for window in windows]))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert exit_code(["perplexity", *arguments]) == 0
    out, err = capsys.readouterr()
    return out, err.replace(COMPILING, "")


def failure(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one line of an error."""
    assert exit_code(["perplexity", *arguments]) == code
    out, err = capsys.readouterr()
    err = err.replace(COMPILING, "")
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("lcpu: error: ").rstrip("\n")


def test_the_line_of_llama_cpp(capsys, text_file, expected):
    out, err = run(capsys, "-f", text_file, "-c", "24")
    assert out == f"Final estimate: PPL = {expected.value:.4f} +/- {expected.uncertainty:.5f}\n"
    assert err.startswith("3 windows of 24 tokens, 33 scored · ")
    assert err.endswith(" tok/s\n")
    assert err.count("\n") == 1
    assert expected.value > 1


def test_a_file_is_read_as_it_is(capsys, tmp_path):
    """With its BOM and the newlines of Windows, as llama.cpp reads it: these are tokens that count."""
    text = "\ufeff" + TEXT.replace(". ", ".\r\n")
    (tmp_path / "text.txt").write_bytes(text.encode() + b"\n")
    with LLM.load(threads=1, context=24) as llm:
        scores = np.concatenate([perplexity.score(llm, window) for window in perplexity.windows(llm, text, 24)])
    estimate = perplexity.perplexity(scores)
    out, _ = run(capsys, "-f", str(tmp_path / "text.txt"), "-c", "24")
    assert out == f"Final estimate: PPL = {estimate.value:.4f} +/- {estimate.uncertainty:.5f}\n"
    assert len(scores) > 33, "the newlines of Windows are tokens"


def test_a_pipe_is_the_text(lcpu, expected):
    done = lcpu("perplexity", "-c", "24", "-b", "64", stdin=TEXT)
    assert done.returncode == 0
    assert done.stdout == f"Final estimate: PPL = {expected.value:.4f} +/- {expected.uncertainty:.5f}\n"


def test_json_is_one_document_and_nothing_else(capsys, text_file, expected):
    assert exit_code(["perplexity", "-f", text_file, "-c", "24", "-t", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert out.count("\n") == 1
    assert document.pop("seconds") > 0
    assert document.pop("isa")
    assert document.pop("model").startswith("llama ")
    assert document == {
        "path": None,
        "threads": 1,
        "context": 24,
        "chunks": 3,
        "scored_tokens": 33,
        "ppl": {"value": expected.value, "uncertainty": expected.uncertainty},
    }


def test_neither_threads_nor_the_environment_change_the_result(capsys, monkeypatch, text_file):
    first = run(capsys, "-f", text_file, "-c", "24")[0]
    monkeypatch.setenv("LCPU_CONTEXT", "16")
    assert run(capsys, "-f", text_file, "-c", "24", "-t", "2")[0] == first


@pytest.mark.parametrize(("given", "count"), [("1", 1), ("2", 2), ("99", 3), ("-1", 3)])
def test_chunks(capsys, text_file, given, count):
    document = json.loads(run(capsys, "-f", text_file, "-c", "24", "--chunks", given, "--json")[0])
    assert (document["chunks"], document["scored_tokens"]) == (count, 11 * count)


def test_a_window_longer_than_training_is_said(capsys, write_tiny, text_file):
    path = write_tiny(**{"llama.context_length": 24})
    assert run(capsys, "-m", str(path), "-f", text_file, "-c", "25")[1].startswith(
        "the model was trained for 24 tokens: windows of 25 are longer\n"
    )
    assert run(capsys, "-m", str(path), "-f", text_file, "-c", "24")[1].count("\n") == 1


def test_kl_of_a_model_with_itself(capsys, tiny_gguf, text_file):
    out, _ = run(capsys, "-m", str(tiny_gguf), "--kl", str(tiny_gguf), "-f", text_file, "-c", "24")
    lines = {line[:20].rstrip(): line[20:] for line in out.splitlines()}
    assert lines["PPL(model)"] == lines["PPL(base)"]
    assert lines["PPL(model)/PPL(base)"].split() == ["1.000000", "+/-", "0.000000"]
    assert lines["Mean KLD"].split() == ["0.000000", "+/-", "0.000000"]
    assert lines["Maximum KLD"].split() == ["0.000000"]
    assert lines["Same top token"].split() == ["1.000000", "+/-", "0.000000"]


def test_kl_of_two_models(capsys, tiny_gguf, write_tiny, text_file):
    other = write_tiny(**{"llama.rope.freq_base": 100.0})
    arguments = ["-m", str(other), "--kl", str(tiny_gguf), "-f", text_file, "-c", "24"]
    document = json.loads(run(capsys, *arguments, "--json")[0])
    with LLM.load(other, threads=1) as llm, LLM.load(tiny_gguf, threads=1) as base:
        windows = perplexity.windows(llm, TEXT, 24)
        found = perplexity.divergence(np.concatenate([perplexity.compare(llm, base, window) for window in windows]))
    assert document["path"] == str(other)
    assert document["base_path"] == str(tiny_gguf)
    assert document["base_model"] == "llama 36.9K F32"
    for name in ("ppl", "base_ppl", "ppl_ratio", "kl_mean", "same_top", "delta_p"):
        estimate = getattr(found, name)
        assert document[name] == {"value": estimate.value, "uncertainty": estimate.uncertainty}
    for name in ("kl_median", "kl_90", "kl_99", "kl_999", "kl_max", "delta_p_rms"):
        assert document[name] == getattr(found, name)
    assert 0 < found.kl_median < found.kl_max
    assert found.ppl != found.base_ppl
    table = run(capsys, *arguments)[0].splitlines()
    assert len(table) == 12
    assert table[3].split() == ["Mean", "KLD", f"{found.kl_mean.value:.6f}", "+/-", f"{found.kl_mean.uncertainty:.6f}"]


def test_kl_wants_one_vocabulary(capsys, tiny_gguf, write_tiny, text_file):
    error = failure(capsys, 1, "--kl", str(tiny_gguf), "-f", text_file)
    assert "have different vocabularies (1536 tokens against 286): --kl compares files of one model" in error
    with LLM.load(tiny_gguf, threads=1) as llm:
        tokens = list(llm.tokenizer.vocabulary.tokens)
    tokens[270] = "zz"
    other = write_tiny(**{"tokenizer.ggml.tokens": tokens})
    error = failure(capsys, 1, "-m", str(other), "--kl", str(tiny_gguf), "-f", text_file)
    assert f"{other} and {tiny_gguf} have different vocabularies (token 270 is 'zz' against 'k')" in error


def test_too_short_a_text(capsys, text_file):
    error = failure(capsys, 1, "-f", text_file)
    assert error.startswith("the text has ")
    assert "but at least 1024 are needed, two windows of 512: give a longer text, or a smaller window: -c " in error
    window = error.rpartition(" ")[2]
    assert run(capsys, "-f", text_file, "-c", window)[1].startswith(f"2 windows of {window} tokens, ")
    error = failure(capsys, 1, "-f", text_file, "-c", str(int(window) + 1))
    assert error.endswith(f"-c {window}")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "no text: give -f FILE or a pipe on stdin; see 'lcpu perplexity --help'"),
        (["-f", "x", "--chunks", "0"], "--chunks 0 scores nothing: give a number of windows, or -1 for all; see "),
        (["-f", "x", "-c", "7"], "Invalid value for '-c'"),
    ],
)
def test_usage_errors(capsys, stdin, arguments, error):
    stdin("", terminal=True)
    assert failure(capsys, 2, *arguments).startswith(error)


def test_files_that_cannot_be_read(capsys, tmp_path, text_file):
    absent = str(tmp_path / "absent")
    assert f"{absent}: No such file or directory" in failure(capsys, 1, "-f", absent)
    assert failure(capsys, 1, "-f", text_file, "-m", absent).startswith(f"{absent}: no such file")
    assert failure(capsys, 1, "-f", text_file, "--kl", absent).startswith(f"{absent}: no such file")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_progress_on_a_terminal(capsys, monkeypatch, text_file, json_flag):
    monkeypatch.setattr(console, "PROGRESS_DELAY", 0)
    monkeypatch.setattr(console, "PROGRESS_PERIOD", 0)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run(capsys, "-f", text_file, "-c", "24", *json_flag)
    shown = terminal.getvalue()
    assert [f"window {number}/3, PPL " in shown for number in (1, 2, 3)] == [not json_flag] * 3
    assert (shown == "") == bool(json_flag)
