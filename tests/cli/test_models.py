"""`lcpu models`, and the models of other programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcpu.cli import other_caches
from lcpu.cli.main import exit_code
from lcpu.kernels.errors import LcpuError

from ..convert import hub_server
from .test_hub import split

Run = Callable[..., subprocess.CompletedProcess[str]]
OLD = "1111111111111111111111111111111111111111"
NEW = "2222222222222222222222222222222222222222"
DAY = 24 * 3600


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as the hub's client has it."""
    root = tmp_path / "hub"
    write_repo(root, "acme/many", {NEW: {"a-Q4_0.gguf": b"4" * 2000, "Q8_0/a-Q8_0-00001-of-00002.gguf": b"8" * 100,
                                         "Q8_0/a-Q8_0-00002-of-00002.gguf": b"9" * 3000, "README.md": b"r",
                                         "mmproj-F16.gguf": b"m"},
                                   OLD: {"a-Q4_0.gguf": b"3" * 1000, "README.md": b"r"}})
    write_repo(root, "acme/twice", {NEW: {"a-F16.gguf": b"a", "b-F16.gguf": b"b"}})
    write_repo(root, "acme/unnamed", {NEW: {"model.gguf": b"x" * 5 * 2**20}})
    write_repo(root, "acme/weights", {NEW: {"config.json": b"{}", "model.safetensors": b"w" * 10}})
    write_repo(root, "acme/config", {NEW: {"config.json": b"{}"}})
    return root


def write_repo(root: Path, repo: str, revisions: dict[str, dict[str, bytes]]) -> None:
    folder = root / f"models--{repo.replace('/', '--')}"
    for commit, files in revisions.items():
        for name, data in files.items():
            blob = folder / "blobs" / str(hash(data))
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(data)
            os.utime(blob, (1_700_000_000 + (DAY if commit == NEW else 0), 1_700_000_000))
            link = folder / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        os.utime(folder / "snapshots" / commit, (0, 1_700_000_000 if commit == NEW else 1_600_000_000))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(NEW)


@pytest.fixture
def models(lcpu: Run, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """models(*arguments) -> stdout of `lcpu models ...` or the line of its error."""
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))

    def run(*arguments: str) -> str:
        done = lcpu("models", *arguments, TZ="UTC")
        return done.stdout if done.returncode == 0 else done.stderr.removesuffix("\n")

    return run


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}


def test_the_list(models):
    text = models()
    assert text.splitlines()[0].split() == ["name", "type", "size", "last", "use"]
    assert rows(text) == {
        "acme/many:Q4_0": ["Q4_0", "2.93", "KiB", "2023-11-15"],  # of both revisions
        "acme/many:Q8_0": ["Q8_0", "3.03", "KiB", "2023-11-15"],
        "acme/twice/a-F16.gguf": ["F16", "1", "B", "2023-11-15"],
        "acme/twice/b-F16.gguf": ["F16", "1", "B", "2023-11-15"],
        "acme/unnamed": ["5.00", "MiB", "2023-11-15"],
        "acme/weights": ["checkpoint", "12", "B", "2023-11-15"],
    }
    first = json.loads(models("--json"))[0]
    assert first == {"name": "acme/many:Q4_0", "type": "Q4_0", "bytes": 3000, "path": None,
                     "last_used": "2023-11-15T22:13:20+00:00"}


def test_delete(models, cache):
    folder = cache / "models--acme--many"
    assert models("rm", "acme/many:q4_0") == ""
    assert sorted(path.name for path in folder.rglob("*.gguf")) == [
        "a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf"]
    assert sorted(path.stat().st_size for path in (folder / "blobs").iterdir()) == [1, 1, 100, 3000]
    # The last model of a repository goes with all that is there of it.
    assert models("rm", "acme/many:Q8_0", "ACME/unnamed", "acme/twice") == ""
    assert sorted(path.name for path in cache.glob("models--*")) == ["models--acme--config", "models--acme--weights"]
    assert models("rm", "acme/config") == ""  # not in the list, but a repository
    assert rows(models()).keys() == {"acme/weights"}


def test_what_is_not_deleted(models, cache):
    for name in ("acme/none", "acme/many:F16", "nonsense", "../.."):
        assert models("rm", name) == (
            f"lcpu: error: {name}: no such model in the cache: `lcpu models` lists what there is")
    assert len(rows(models())) == 6


def test_wrong_command_lines(models):
    assert models("rm").startswith("lcpu: error: nothing to delete: name models after rm; see")
    assert models("list", "x").startswith("lcpu: error: list takes no names; to delete x, use rm; see")


def test_no_models(lcpu):
    done = lcpu("models")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no models yet: `lcpu run -hf OWNER/NAME` downloads one\n"
    assert lcpu("models", "--json").stdout == "[]\n"


def test_a_download_is_in_the_list(lcpu, tmp_path, tiny_gguf, compiled):
    (tmp_path / "source").mkdir()
    shutil.copy(tiny_gguf, tmp_path / "source" / "tiny-F32.gguf")
    with hub_server.serve(tmp_path / "source") as hub:
        settings = hub_server.environment(hub, tmp_path / "hf")
        assert lcpu("inspect", "-hf", "acme/tiny", **settings).returncode == 0
        assert rows(lcpu("models", **settings).stdout)["acme/tiny:F32"][0] == "F32"
        done = lcpu("models", "rm", "acme/tiny:F32", **settings)
        assert (done.returncode, done.stderr) == (0, "deleted acme/tiny:F32: 152.06 KiB\n")
        assert lcpu("models", **settings).stdout == ""
        assert not list((tmp_path / "hf").glob("models--*"))


# ---- other programs ----


@pytest.fixture
def ollama(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(root))
    digest = "sha256:" + "ab" * 32
    (root / "blobs").mkdir(parents=True)
    shutil.copy(tiny_gguf, root / "blobs" / digest.replace(":", "-"))
    model = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    adapter = {"mediaType": "application/vnd.ollama.image.adapter", "digest": "sha256:" + "cd" * 32}
    missing = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "ef" * 32}
    escaping = {"mediaType": "application/vnd.ollama.image.model", "digest": "../../secret"}
    for name, content in {
        "library/tiny/latest": {"layers": [{"mediaType": "x", "digest": "y"}, model]},
        "library/tiny/1b": {"layers": [model]},
        "someone/tiny/q4": {"layers": [model]},
        "library/adapted/latest": {"layers": [model, adapter]},
        "library/gone/latest": {"layers": [missing]},
        "library/bad/latest": {"layers": [escaping]},
        "library/odd/latest": {"layers": "none"},
        "library/odd/list": [],
    }.items():
        path = root / "manifests" / "registry.example" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (root / "manifests" / "registry.example" / "library" / "odd" / "json").write_bytes(b"\xff{")
    return root


@pytest.fixture
def llama_cpp(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "llama.cpp"
    root.mkdir()
    monkeypatch.setenv("LLAMA_CACHE", str(root))
    shutil.copy(tiny_gguf, root / "acme_tiny_tiny-F32.gguf")
    (root / "acme_tiny_tiny-F32.gguf.json").write_text("{}")
    (root / "acme_tiny_mmproj.gguf").write_bytes(b"GGUF")
    split(tiny_gguf, root)
    return root


def test_all_of_other_programs_in_the_list(ollama, llama_cpp, lcpu):
    found = rows(lcpu("models").stdout)
    assert found.keys() == {"llama.cpp:acme_tiny_tiny-F32.gguf", "llama.cpp:tiny-Q8_0-00001-of-00003.gguf",
                            "ollama:adapted:latest", "ollama:someone/tiny:q4", "ollama:tiny:1b", "ollama:tiny:latest"}
    assert found["llama.cpp:acme_tiny_tiny-F32.gguf"][:3] == ["F32", "152.06", "KiB"]
    assert found["llama.cpp:tiny-Q8_0-00001-of-00003.gguf"][:3] == ["Q8_0", "152.38", "KiB"]
    assert found["ollama:tiny:1b"][:2] == ["152.06", "KiB"]  # neither its name nor its metadata tell a type
    (blob,) = (ollama / "blobs").iterdir()
    assert json.loads(lcpu("models", "--json").stdout)[-1]["path"] == str(blob)


@pytest.mark.parametrize("name", ["ollama:tiny", "ollama:tiny:1b", "ollama:someone/tiny:q4",
                                  "llama.cpp:acme_tiny_tiny-F32.gguf", "llama.cpp:tiny-Q8_0-00001-of-00003.gguf"])
def test_they_run_by_name(ollama, llama_cpp, tiny_gguf, capsys, name, compiled):
    flags = "-p once -n 4 --temp 0 -t 1".split()
    assert exit_code(["run", "-m", str(tiny_gguf), *flags]) == 0
    text = capsys.readouterr().out
    assert exit_code(["run", "-m", name, *flags]) == 0
    assert capsys.readouterr().out == text
    assert exit_code(["inspect", name]) == 0


def test_a_draft_model_and_a_base_model(ollama, engine):
    assert exit_code("run -p hi -m ollama:tiny -md ollama:tiny:1b".split()) == 0
    (blob,) = (ollama / "blobs").iterdir()
    assert [load["path"] for load in engine.LLM.loads] == [blob, blob]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ollama:none", "ollama:none: no such model: `lcpu models` lists what there is"),
        ("ollama:tiny:2b", "ollama:tiny:2b: no such model"),
        ("ollama:../blobs", "ollama:../blobs: no such model"),
        ("ollama:gone", "ollama:gone: no such model"),
        ("ollama:bad", "ollama:bad: no such model"),
        ("ollama:adapted", "ollama:adapted: has an adapter .LoRA., which lcpu does not apply"),
        ("llama.cpp:../x.gguf", "llama.cpp:../x.gguf: no such model"),
    ],
)
def test_what_does_not_run(ollama, llama_cpp, name, message):
    with pytest.raises(LcpuError, match=f"^{message}"):
        other_caches.find(name)


def test_they_are_not_deleted(ollama, llama_cpp, models):
    assert models("rm", "ollama:tiny:1b") == (
        "lcpu: error: ollama:tiny:1b: belongs to another program, whose files lcpu only reads: delete it with "
        "`ollama rm tiny:1b`")
    path = llama_cpp / "acme_tiny_tiny-F32.gguf"
    assert models("rm", f"llama.cpp:{path.name}") == (
        f"lcpu: error: llama.cpp:{path.name}: belongs to another program, whose files lcpu only reads: delete it with "
        f"`rm {path}`")
    assert path.exists()


def test_where_they_are_looked_for(tmp_path, tiny_gguf, monkeypatch):
    monkeypatch.delenv("LLAMA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "llama.cpp").mkdir()
    shutil.copy(tiny_gguf, tmp_path / "llama.cpp" / "a.gguf")
    assert other_caches.find("llama.cpp:a.gguf") == tmp_path / "llama.cpp" / "a.gguf"
    monkeypatch.delenv("OLLAMA_MODELS")
    monkeypatch.setenv("HOME", str(tmp_path))
    manifest = tmp_path / ".ollama/models/manifests/registry.example/library/here/latest"
    blob = tmp_path / ".ollama/models/blobs" / f"sha256-{'0' * 64}"
    for path in (manifest, blob):
        path.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'0' * 64}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    blob.write_bytes(b"GGUF")
    assert other_caches.find("ollama:here") == blob
