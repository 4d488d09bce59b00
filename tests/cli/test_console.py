"""The terminal: streams, progress, colour."""

from __future__ import annotations

import contextlib
import io
import logging
import sys

import pytest

from lcpu.cli import console
from lcpu.kernels import kernel_cache


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(console, "PROGRESS_DELAY", 0)
    monkeypatch.setattr(console, "PROGRESS_PERIOD", 0)
    monkeypatch.setenv("TERM", "xterm-256color")


def load(stages=("loading", "loading", "compiling", "compiling", "loading")):
    with console.LoadProgress() as progress:
        for done, stage in enumerate(stages):
            progress(stage, done, len(stages))


@pytest.mark.usefixtures("at_once")
def test_progress_without_a_terminal_is_one_line(capsys):
    load()
    assert capsys.readouterr() == ("", "compiling kernels for this processor (first run only)...\n")


def test_kernels_that_cannot_be_kept_are_not_only_for_the_first_run(capsys, monkeypatch):
    monkeypatch.setattr(kernel_cache, "can_keep", lambda: False)
    load()
    assert capsys.readouterr() == ("", "compiling kernels for this processor...\n")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("no_color", [None, "1"])
def test_progress_on_a_terminal(monkeypatch, no_color):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    load()
    shown = terminal.getvalue()
    assert "loading" in shown
    assert ("\x1b[38;5;" in shown or "\x1b[3" in shown) == (no_color is None)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is hidden once and comes back"


@pytest.mark.usefixtures("at_once")
def test_the_cursor_comes_back_when_interrupted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with contextlib.suppress(KeyboardInterrupt), console.LoadProgress() as progress:
        progress("loading", 1, 2)
        raise KeyboardInterrupt
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1


def test_a_quick_load_shows_no_bar(monkeypatch):
    monkeypatch.setattr(console, "PROGRESS_DELAY", 3600)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    load(("loading",) * 3)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("before", "pieces", "result"),
    [
        ("", ["a", "b"], "ab\n"),
        ("", ["a", "\n", ""], "a\n"),
        ("a", [], "a\n"),
        ("a", ["b\n"], "ab\n"),
        ("", [], "\n"),
    ],
)
def test_stream_ends_its_last_line_once(capsys, before, pieces, result):
    console.stream(iter(pieces), before)
    assert capsys.readouterr().out == result


def test_stdout_is_utf8_in_any_locale(monkeypatch):
    stdout = io.TextIOWrapper(data := io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    console.prepare()
    console.write("é€\ud800")
    assert data.getvalue() == "é€?".encode()


def test_stderr_is_utf8_in_any_locale(monkeypatch):
    stderr = io.TextIOWrapper(data := io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stderr)
    console.prepare()
    console.notice("é\udcff")
    assert data.getvalue() == "é\\udcff\n".encode()


def test_without_stderr_nothing_goes_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    console.notice("a")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [OSError, BrokenPipeError, ValueError])
def test_a_stderr_that_takes_nothing_ends_no_run(monkeypatch, error):
    class Full(io.StringIO):
        def flush(self) -> None:
            raise error

    monkeypatch.setattr(sys, "stderr", Full())
    console.notice("a")


def test_a_piped_stdin_is_utf8_in_any_locale(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\n".encode() + b"\xff"), encoding="latin-1"))
    console.prepare()
    assert sys.stdin.read() == "é\n\ufffd"


@pytest.mark.parametrize(("verbose", "shown"), [(False, "warning: a, b\n"), (True, "warning: a, b\nnote: c\n")])
def test_messages_of_the_engine(capsys, verbose, shown):
    console.prepare()
    console.prepare()
    console.show_messages(verbose)
    logger = logging.getLogger("lcpu")
    logger.warning("a,\n%s", "b")
    logger.info("c")
    assert capsys.readouterr() == ("", shown)
