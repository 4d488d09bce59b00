"""Where a prompt comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lcpu.cli.options import UsageError
from lcpu.cli.prompt import read_prompt, unescape
from lcpu.kernels.errors import LcpuError


class Untouchable:
    """A stdin that must not be read."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"stdin.{name}")


def test_text_leaves_stdin_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Untouchable())
    assert read_prompt("hi", None, escape=True, pipe=True) == "hi"


def test_file_leaves_stdin_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", Untouchable())
    (tmp_path / "prompt").write_text("hi\n")
    assert read_prompt(None, tmp_path / "prompt", escape=True, pipe=True) == "hi"


def test_pipe_is_the_prompt(stdin):
    stdin("two\nlines\n\n")
    assert read_prompt(None, None, escape=True, pipe=True) == "two\nlines\n"


def test_pipe_is_left_when_not_wanted(stdin):
    stdin("for the conversation")
    assert read_prompt(None, None, escape=True, pipe=False) is None


@pytest.mark.parametrize(("text", "file"), [("-", None), (None, Path("-"))])
def test_dash_is_stdin(stdin, text, file):
    stdin("hé\n", terminal=True)
    assert read_prompt(text, file, escape=True, pipe=True) == "hé"


def test_terminal_and_empty_pipe_are_no_prompt(stdin, monkeypatch):
    stdin("not for us", terminal=True)
    assert read_prompt(None, None, escape=True, pipe=True) is None
    stdin("")
    assert read_prompt(None, None, escape=True, pipe=True) is None
    monkeypatch.setattr(sys, "stdin", None)
    assert read_prompt(None, None, escape=True, pipe=True) is None


def test_explicit_empty_prompt_is_a_prompt(stdin):
    assert read_prompt("", None, escape=True, pipe=True) == ""
    stdin("")
    assert read_prompt("-", None, escape=True, pipe=True) == ""


def test_both_are_refused(tmp_path):
    with pytest.raises(UsageError, match="-p and -f"):
        read_prompt("a", tmp_path, escape=True, pipe=True)


def test_unreadable_files(tmp_path):
    with pytest.raises(LcpuError, match=r"missing: No such file.*-f"):
        read_prompt(None, tmp_path / "missing", escape=True, pipe=True)
    with pytest.raises(LcpuError, match="cannot read the file"):
        read_prompt(None, tmp_path, escape=True, pipe=True)
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    with pytest.raises(LcpuError, match="byte 0xe9 at offset 3"):
        read_prompt(None, tmp_path / "latin1", escape=True, pipe=True)


def test_a_file_is_taken_as_it_is(tmp_path):
    (tmp_path / "prompt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\n")
    assert read_prompt(None, tmp_path / "prompt", escape=True, pipe=True) == "\ufeffa\r\nb\r\n"


def test_an_exact_pipe_is_taken_as_a_file_is(stdin):
    stdin(b"\xef\xbb\xbfa\r\nb\r\n\n")
    assert read_prompt(None, None, escape=False, pipe=True, exact=True) == "\ufeffa\r\nb\r\n"


def test_windows_text(stdin):
    stdin(b"\xef\xbb\xbfa\r\nb\r\n")
    assert read_prompt(None, None, escape=True, pipe=True) == "a\nb"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"a\nb\tc\rd", "a\nb\tc\rd"),
        (r"\\n", r"\n"),
        (r"\"\'", "\"'"),
        (r"\xe2\x82\xac", "€"),
        (r"\q \x4", r"\q \x4"),
        ("€\\", "€\\"),
    ],
)
def test_escapes(text, result):
    assert unescape(text) == result


def test_escapes_are_for_arguments_only(stdin):
    assert read_prompt(r"a\n", None, escape=True, pipe=True) == "a\n"
    assert read_prompt(r"a\n", None, escape=False, pipe=True) == r"a\n"
    stdin(r"a\n")
    assert read_prompt(None, None, escape=True, pipe=True) == r"a\n"


@pytest.mark.parametrize("escape", [True, False])
def test_bytes_that_are_not_utf8_become_replacement_characters(escape):
    assert read_prompt("a\udcff", None, escape=escape, pipe=True) == "a\ufffd"
