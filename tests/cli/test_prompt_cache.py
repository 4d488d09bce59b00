"""--prompt-cache: when a run writes its file, and what of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lcpu.cli.main import exit_code
from lcpu.kernels.errors import LcpuError

pytestmark = pytest.mark.usefixtures("compiled")

HI = [256, *b"hi"]
SAVED = {"cache.bin": HI}
ALL = {"cache.bin": [*HI, 0, 1, 2, 3, 4, 5]}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "cache.bin")


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_the_prompt_is_saved(engine, file, json_flag):
    assert exit_code(["run", "-p", "hi", "--prompt-cache", file, *json_flag]) == 0
    assert engine.LLM.files == SAVED


def test_all_of_the_text_is_saved(engine, file):
    assert exit_code(["run", "-p", "hi", "--prompt-cache", file, "--prompt-cache-all"]) == 0
    assert engine.LLM.files == ALL


@pytest.mark.parametrize("flags", [[], ["--prompt-cache-ro"]])
def test_a_file_that_has_the_prompt_is_left_alone(engine, file, flags):
    engine.LLM.files, engine.LLM.file_error = ALL, AssertionError()
    assert exit_code(["run", "-p", "hi", "--prompt-cache", file, *flags]) == 0
    assert engine.LLM.files == ALL


def test_a_file_with_another_prompt_is_updated(engine, file):
    engine.LLM.files = {"cache.bin": [256, *b"hello"]}
    assert exit_code(["run", "-p", "hi", "--prompt-cache", file]) == 0
    assert engine.LLM.files == SAVED


def test_read_only(engine, file, capsys):
    engine.LLM.file_error = AssertionError()
    assert exit_code(["run", "-p", "hi", "--prompt-cache", file, "--prompt-cache-ro"]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {file}: there is no prompt cache yet; without")


def test_a_text_goes_on_when_its_prompt_cannot_be_saved(engine, file, capsys):
    engine.LLM.file_error = LcpuError("no room")
    assert exit_code(["run", "-p", "hi", "--prompt-cache", file, "--prompt-cache-all"]) == 0
    out, err = capsys.readouterr()
    assert out == " there was a café.\n"
    assert err.splitlines()[0] == "warning: no room"
    assert err.count("no room") == 1


@pytest.mark.parametrize(("flags", "message"), [
    ("--prompt-cache-all", "--prompt-cache-all needs a file: add --prompt-cache FILE"),
    ("--prompt-cache-ro", "--prompt-cache-ro needs a file: add --prompt-cache FILE"),
    ("--prompt-cache x --prompt-cache-all --prompt-cache-ro", "--prompt-cache-ro writes nothing"),
])  # fmt: skip
def test_flags_that_make_no_sense(engine, capsys, flags, message):
    assert exit_code(["run", "-p", "hi", *flags.split()]) == 2
    assert capsys.readouterr().err.startswith(f"lcpu: error: {message}")
    assert engine.LLM.loads == ()


def test_a_folder_that_is_not_there(engine, capsys, tmp_path):
    """Is said before the model is loaded."""
    assert exit_code(["run", "-p", "hi", "--prompt-cache", str(tmp_path / "absent" / "x")]) == 1
    assert "absent is not there: make it first or name another file" in capsys.readouterr().err
    assert engine.LLM.loads == ()


def test_conversation(engine, file, stdin):
    """The file has the last prompt: the conversation up to the last reply."""
    stdin("one\ntwo\n")
    assert exit_code(["run", "--chat", "--prompt-cache", file]) == 0
    assert bytes(engine.LLM.files["cache.bin"][1:]).endswith(b"user:two\n")


def test_speeds_tell_what_was_reused(lcpu: Callable[..., CompletedProcess[str]], tiny_gguf: Path,
                                     tmp_path: Path) -> None:
    command = ["run", "-m", str(tiny_gguf), "-n", "8", "-s", "3", "-p", "abc def", "--prompt-cache", "cache.bin"]
    first, second = lcpu(*command), lcpu(*command, "--json")
    assert first.returncode == second.returncode == 0
    document = json.loads(second.stdout)
    assert document["text"] + "\n" == first.stdout
    tokens = document["timings"]
    assert (tokens["prompt_tokens"], tokens["reused_tokens"]) == (1, 8)
    assert " (8 reused) · " in lcpu(*command).stderr
    (tmp_path / "cache.bin").write_bytes((tmp_path / "cache.bin").read_bytes()[:-1])
    refused = lcpu(*command)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == ("lcpu: error: cache.bin: is a prompt cache that is cut or damaged: delete it or name "
                              "another file\n")  # fmt: skip
