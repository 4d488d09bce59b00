"""Exit codes, and errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lcpu
from lcpu.cli.main import SUBCOMMANDS, exit_code
from lcpu.kernels.errors import LcpuError


def test_help_lists_every_subcommand(capsys):
    assert exit_code(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in SUBCOMMANDS:
        assert f"\n  {name} " in out
        assert exit_code([name, "-h"]) == 0


def test_version(capsys):
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"lcpu {lcpu.__version__}\n"


def test_no_subcommand_shows_the_help_on_stderr(capsys):
    assert exit_code([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: lcpu" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["walk"], r"lcpu: error: No such command 'walk'; see 'lcpu --help'"),
        (["run", "--nonsense"], r"lcpu: error: No such option"),
        (["run", "-n", "many"], r"lcpu: error: Invalid value for '-n'"),
        (["run", "--top-p", "2"], r"lcpu: error: Invalid value for '--top-p'"),
        (["run", "-p"], r"lcpu: error: Option '-p' requires an argument; see 'lcpu run --help'"),
        (["run", "-p", "a", "-f", "b"], r"lcpu: error: -p and -f are both prompts"),
        (["run", "-p", "a", "-sys", "b"], r"lcpu: error: -sys is the system prompt of a conversation: add --chat"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    assert exit_code(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LcpuError("no such model; check -m"), "lcpu: error: no such model; check -m\n"),
        (MemoryError("8 EiB"), "lcpu: error: out of memory; take a smaller model, or a shorter context with -c\n"),
        (RuntimeError("can't start new thread"),
         "lcpu: error: the system refuses to start a thread; raise the limit on threads (ulimit -u, or the "
         "container's)\n"),
        (FileNotFoundError(2, "No such file or directory", "x.gguf"),
         "lcpu: error: No such file or directory: x.gguf\n"),
        (KeyError("a\nb"),
         "lcpu: error: unexpected KeyError: 'a\\nb' (please report it, with what LCPU_DEBUG=1 prints)\n"),
        (ValueError("a\nb"),
         "lcpu: error: unexpected ValueError: a b (please report it, with what LCPU_DEBUG=1 prints)\n"),
    ],
)  # fmt: skip
def test_errors_are_one_line(engine, capsys, error, message):
    engine.LLM.error = error
    assert exit_code(["run", "-p", "a"]) == 1
    assert capsys.readouterr() == ("", message)


def test_debug_adds_the_traceback(engine, capsys, monkeypatch):
    monkeypatch.setenv("LCPU_DEBUG", "1")
    engine.LLM.error = ValueError("odd")
    assert exit_code(["run", "-p", "a"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("lcpu: error: unexpected ValueError")


def test_interrupted(engine, capsys):
    engine.LLM.error = KeyboardInterrupt()
    assert exit_code(["run", "-p", "a"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, Path(__file__).with_name("fake_engine.py"), "run", "-p", "a"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "lcpu: error: No space left on device\n"


def test_closed_pipe_ends_quietly():
    command = [sys.executable, Path(__file__).with_name("fake_engine.py"), "run", "-p", "forever"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == " on"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0
