"""`lcpu run` at a real (pseudo) terminal: Ctrl-C, Ctrl-D, and what is left behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="needs pseudo terminals")
termios = pytest.importorskip("termios", reason="needs pseudo terminals")

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


class Session:
    """The command at a terminal of its own, on the scripted engine."""

    def __init__(self, *arguments: str) -> None:
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, FAKE_ENGINE, "run", *arguments],
            stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True, env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"},
        )  # fmt: skip

    def wait_for(self, text: str) -> None:
        """Reads until `text` is shown, and forgets what was shown up to its end."""
        while text not in self.shown:
            assert select.select([self.master], [], [], 30)[0], f"no {text!r} after {self.shown[-200:]!r}"
            piece = os.read(self.master, 4096).decode()
            self.shown += piece
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def session() -> Iterator[type[Session]]:
    opened: list[Session] = []

    class Recorded(Session):
        def __init__(self, *arguments: str) -> None:
            opened.append(self)
            super().__init__(*arguments)

    yield Recorded
    for each in opened:
        each.close()


def test_interrupted_run_ends_with_130_and_a_whole_line(session):
    run = session("-p", "forever")
    run.wait_for(" on on")
    run.interrupt()
    assert run.process.wait(30) == 130
    run.wait_for("\r\n")
    assert "Traceback" not in run.shown
    assert termios.tcgetattr(run.slave) == run.settings


def test_interrupt_stops_one_reply_and_keeps_the_conversation(session):
    chat = session("--chat")
    chat.wait_for("> ")
    chat.type("forever\n")
    chat.wait_for(" on on")
    chat.interrupt()
    chat.wait_for("> ")
    chat.type("hello\n")
    chat.wait_for(" there was a café.")
    chat.wait_for("> ")
    chat.type("/exit\n")
    chat.wait_for("load 0.25 s")
    assert chat.process.wait(30) == 0
    assert termios.tcgetattr(chat.slave) == chat.settings


def test_interrupt_before_the_reply_forgets_the_message(session):
    chat = session("--chat")
    chat.wait_for("> ")
    chat.type("silence " + "and " * 13 + "\n")
    chat.wait_for("the prompt is long")
    chat.interrupt()
    chat.wait_for("this message is forgotten")
    chat.wait_for("> ")
    chat.type("hello " * 10 + "\n")  # both messages would be too long for the context
    chat.wait_for(" there was a café.")
    chat.type("/exit\n")
    assert chat.process.wait(30) == 0


def test_interrupt_at_the_prompt_ends_with_130(session):
    chat = session("--chat")
    chat.wait_for("> ")
    for _ in range(6):  # readline may show its prompt a moment before it listens for signals
        chat.interrupt()
        with contextlib.suppress(subprocess.TimeoutExpired):
            chat.process.wait(5)
            break
    assert chat.process.returncode == 130
    assert termios.tcgetattr(chat.slave) == chat.settings


def test_control_d_ends(session):
    chat = session("--chat")
    chat.wait_for("> ")
    chat.type("\x04")
    chat.wait_for("load 0.25 s")
    assert chat.process.wait(30) == 0
