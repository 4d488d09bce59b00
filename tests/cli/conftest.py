"""What the tests of the command share: the real one in a subprocess, and one on a scripted engine."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lcpu.cli.main import exit_code
from lcpu.engine.llm import LLM
from lcpu.kernels.probe import Peaks

from .batches import Batch, written
from .fake_model import FakeModel

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting and no model of whoever runs the tests, save for where compiled kernels are kept."""
    nowhere = tmp_path_factory.getbasetemp() / "nowhere"
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(nowhere))
    for name in [name for name in os.environ if name.startswith("LCPU_") and name != "LCPU_CACHE_DIR"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def compiled(tiny_gguf: Path) -> None:
    """The kernels of the tiny model: a run that has to compile them says so on stderr."""
    with LLM.load(tiny_gguf, threads=1) as llm:
        llm.logits([1])


@pytest.fixture
def lcpu(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `lcpu ARGUMENTS...` in another directory, with a text as the pipe on its stdin."""

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lcpu", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=os.environ | environment,
            timeout=280,
        )

    return run


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The scripted engine, in the place of the real one for one test."""
    spec = importlib.util.spec_from_file_location("fake_engine", FAKE_ENGINE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, part in module.modules().items():
        monkeypatch.setitem(sys.modules, name, part)
    return module


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes, bool], None]:
    """Sets what stdin holds, and whether it is a terminal."""

    def set_stdin(content: str | bytes, terminal: bool = False) -> None:
        data = content.encode() if isinstance(content, str) else content
        stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(sys, "stdin", stream)

    return set_stdin


@pytest.fixture
def batch(tmp_path: Path, tiny_gguf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
          stdin: Callable[..., None]) -> Batch:
    """batch(lines or None, flags) -> exit code, answers on stdout, stderr; lines go through stdin."""
    monkeypatch.chdir(tmp_path)

    def run(lines: list[Any] | None, flags: str = "-s 1") -> tuple[int, list[Any], str]:
        stdin(written(lines) if lines is not None else "", lines is None)
        code = exit_code(["batch", "-m", str(tiny_gguf), *flags.split()])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    """The models that `lcpu bench` loads, none of which computes, on a machine of eight processors."""
    loaded: list[FakeModel] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(FakeModel, "loaded", loaded, raising=False)
    monkeypatch.setattr("lcpu.engine.model.Model", FakeModel)
    monkeypatch.setattr("lcpu.engine.peaks.measure",
                        lambda threads, memory: Peaks(threads, 1e9, 2e9, 3e9, 6e9))
    return loaded


@pytest.fixture
def tests(models: list[FakeModel], capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    """tests(arguments) -> the tests of the rows that `lcpu bench` prints."""

    def run(arguments: str) -> list[str]:
        assert exit_code(["bench", "-r", "1", "-o", "jsonl", *arguments.split()]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return [json.loads(line)["test"] for line in out.splitlines()]

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[str, str], None]:
    """refused(arguments, message): `lcpu bench ARGUMENTS` is a wrong command line, and one line says why."""

    def check(arguments: str, message: str) -> None:
        assert exit_code(["bench", *arguments.split()]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"lcpu: error: {message}")
        assert err.endswith("; see 'lcpu bench --help'\n")
        assert err.count("\n") == 1

    return check
