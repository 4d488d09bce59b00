"""Which model flags and variables name, on a scripted engine and a scripted hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lcpu.cli.main import exit_code
from lcpu.convert import gguf_repo, hub

RUN = ["run", "-p", "hi"]


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is asked of the hub: (repository, type, file, revision)."""
    asked: list[tuple[Any, ...]] = []

    def fetch(*arguments: Any, show_progress: bool, announce: Any) -> Path:
        asked.append(arguments)
        return Path("/cache") / arguments[0]

    monkeypatch.setattr(gguf_repo, "fetch", fetch)
    return asked


def loaded(engine: Any) -> list[Path | None]:
    return [load["path"] for load in engine.LLM.loads]


@pytest.mark.parametrize(
    ("arguments", "fetched"),
    [
        ("-hf a/b", ("a/b", None, None, None)),
        ("-hfr a/b:q8_0", ("a/b", "q8_0", None, None)),
        ("--hf-repo a/b --hf-file c.gguf --revision v1", ("a/b", None, "c.gguf", "v1")),
        ("-hf a/b -hff x/c.gguf", ("a/b", None, "x/c.gguf", None)),
    ],
)
def test_a_repository(engine, fetches, arguments, fetched):
    assert exit_code([*RUN, *arguments.split()]) == 0
    assert fetches == [fetched]
    assert loaded(engine) == [Path("/cache/a/b")]


def test_the_command_line_wins_over_the_environment(engine, fetches, monkeypatch, tiny_gguf):
    monkeypatch.setenv("LCPU_MODEL", str(tiny_gguf))
    assert exit_code([*RUN, "-hf", "a/b"]) == 0
    monkeypatch.delenv("LCPU_MODEL")
    monkeypatch.setenv("LCPU_HF_REPO", "c/d")
    monkeypatch.setenv("LCPU_HF_FILE", "e.gguf")
    assert exit_code([*RUN, "-m", str(tiny_gguf)]) == 0
    assert exit_code(RUN) == 0
    assert loaded(engine) == [Path("/cache/a/b"), tiny_gguf, Path("/cache/c/d")]
    assert fetches == [("a/b", None, None, None), ("c/d", None, "e.gguf", None)]


def test_two_settings_of_the_environment(engine, fetches, monkeypatch, capsys):
    monkeypatch.setenv("LCPU_MODEL", "a.gguf")
    monkeypatch.setenv("LCPU_HF_REPO", "c/d")
    assert exit_code(RUN) == 2
    assert "-m and -hf both name a model: leave out one of them" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-hfd", "-hfrd", "-mdhf", "--hf-repo-draft"])
def test_a_draft_model(engine, fetches, flag):
    assert exit_code([*RUN, "-hf", "a/b", flag, "c/d:q4_0"]) == 0
    assert fetches == [("a/b", None, None, None), ("c/d", "q4_0", None, None)]
    assert loaded(engine) == [Path("/cache/a/b"), Path("/cache/c/d")]


def test_a_draft_model_that_nothing_uses(engine, fetches, monkeypatch, capsys):
    assert exit_code([*RUN, "-hfd", "c/d", "--spec", "none"]) == 2
    assert "-hfd names a draft model, but --spec none has no use for it" in capsys.readouterr().err
    monkeypatch.setenv("LCPU_HF_REPO_DRAFT", "c/d")
    assert exit_code([*RUN, "--spec", "none"]) == 0
    assert exit_code(["bench", "-m", "none.gguf"]) == 1  # a setting for `run`
    assert exit_code(["bench", "-m", "none.gguf", "-md", "none.gguf"]) == 2
    assert fetches == []
    assert exit_code(RUN) == 0
    assert fetches == [("c/d", None, None, None)]


def test_nothing_is_downloaded_for_a_wrong_command_line(engine, fetches, capsys):
    assert exit_code([*RUN, "-hf", "a/b", "-f", "also.txt"]) == 2
    assert exit_code([*RUN, "-hf", "a/b", "--prompt-cache", "no/folder/x"]) == 1
    assert exit_code(["batch", "-hf", "a/b", "-f", "none.jsonl"]) == 1
    assert exit_code(["bench", "-hf", "a/b", "-p", "many"]) == 2
    assert fetches == []


def test_the_type_of_a_checkpoint(engine, monkeypatch, tmp_path, tiny_gguf):
    """`:TYPE` of a repository is that of the file to take, or with --convert the one to convert to."""
    types = []
    load = engine.LLM.load.__func__

    def with_type(cls: type, path: Any = None, *, type: str | None = None, **settings: Any) -> Any:
        types.append(type)
        return load(cls, path, **settings)

    monkeypatch.setattr(engine.LLM, "load", classmethod(with_type))
    monkeypatch.setattr(hub, "fetch", lambda *arguments, **settings: (tmp_path, None))
    for flags in ("-hf a/b --convert", "-hf a/b:q8_0 --convert", "-hf a/b:q8_0 --convert --type q4_0",
                  f"-m {tmp_path} --type Q6_K"):
        assert exit_code([*RUN, *flags.split()]) == 0
    assert types == [None, "q8_0", "q4_0", "Q6_K"]
