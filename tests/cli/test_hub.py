"""`-hf`: models from a hub. The real client and the real engine, against a server on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile

from ..convert import hub_server
from ..convert.checkpoints import write_checkpoint

Run = Callable[..., subprocess.CompletedProcess[str]]
FLAGS = "-p once -n 4 --temp 0 -t 1".split()
REPO = "acme/tiny"


@pytest.fixture(autouse=True)
def _compiled(compiled: None) -> None:
    """A run that has to compile says so on stderr."""


@pytest.fixture
def folder(tmp_path: Path, write_tiny: Callable[..., Path]) -> Path:
    """What the hub has: three files of a model, which differ in their names only, and what is no model."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("tiny-F32.gguf", "tiny-Q4_K_M.gguf", "tiny-IQ1_S.gguf"):
        shutil.copy(write_tiny(**{"general.name": name}), folder / name)
    (folder / "mmproj-F16.gguf").write_bytes(b"GGUF")
    (folder / "README.md").write_text("not needed")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def run(lcpu: Run, tmp_path: Path) -> Run:
    """run(hub, *arguments, **environment) -> `lcpu run -hf acme/tiny ...` against a hub, with a cache of its own."""

    def run(hub: hub_server.Hub | None, *arguments: str, repo: str = REPO,
            **environment: str) -> subprocess.CompletedProcess[str]:
        settings = hub_server.environment(hub, tmp_path / "hf") | environment
        return lcpu("run", "-hf", repo, *FLAGS, *arguments, **settings)

    return run


@pytest.fixture
def text(lcpu: Run, tiny_gguf: Path) -> str:
    return lcpu("run", "-m", str(tiny_gguf), *FLAGS).stdout


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a failed run."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("lcpu: error: ")
    assert done.stderr.count("lcpu: error: ") == 1
    return done.stderr.splitlines()[-1].removeprefix("lcpu: error: ")


def downloads(hub: hub_server.Hub) -> list[str]:
    return [path.partition("/resolve/")[2].partition("/")[2] for method, path, _ in hub.requests
            if method == "GET" and "/resolve/" in path]


def split(path: Path, folder: Path, count: int = 3) -> list[Path]:
    """The files that llama.cpp's gguf-split makes of a model."""
    with GGUFFile.open(path) as file:
        names = list(file.tensors)
        paths = [folder / f"tiny-Q8_0-{number + 1:05}-of-{count:05}.gguf" for number in range(count)]
        for number, part in enumerate(paths):
            metadata = dict(file.metadata.items()) if number == 0 else {}
            metadata |= {"split.no": np.uint16(number), "split.count": np.uint16(count),
                         "split.tensors.count": np.int32(len(names))}
            tensors = [TensorToWrite(name, file.tensors[name].shape, file.tensors[name].type_id, file.data(name))
                       for name in names[number::count]]
            write_gguf(part, metadata, tensors)
    return paths


def test_one_file_is_downloaded_once(run, folder, text):
    with hub_server.serve(folder) as hub:
        done = run(hub)
        assert (done.returncode, done.stdout) == (0, text)
        first, *rest = done.stderr.splitlines()
        assert first == "downloading acme/tiny: tiny-Q4_K_M.gguf, 0.1 MiB"
        assert len(rest) == 1
        assert rest[0].startswith("load ")
        assert downloads(hub) == ["tiny-Q4_K_M.gguf"]
        hub.requests.clear()
        done = run(hub)
        assert (done.returncode, done.stdout) == (0, text)
        assert "downloading" not in done.stderr
        assert downloads(hub) == []


def test_a_type_and_a_file_of_the_repository(run, folder, tmp_path):
    with hub_server.serve(folder) as hub:
        assert run(hub, repo=f"{REPO}:f32").returncode == 0
        assert run(hub, "--hf-file", "tiny-IQ1_S.gguf").returncode == 0
        assert run(hub, repo="", LCPU_HF_REPO=REPO, LCPU_HF_FILE="tiny-F32.gguf").returncode == 1
        assert downloads(hub) == ["tiny-F32.gguf", "tiny-IQ1_S.gguf"]
        assert error(run(hub, repo=f"{REPO}:Q6_K")) == (
            "acme/tiny: has no GGUF file of type Q6_K: it has F32, IQ1_S, Q4_K_M")


def test_offline_and_out_of_reach(run, folder, text):
    message = "acme/tiny: is not in the cache, and the hub is out of reach ("
    assert error(run(None, HF_HUB_OFFLINE="1")).startswith(message)
    assert error(run(None)).startswith(message)
    with hub_server.serve(folder) as hub:
        assert run(hub, repo=f"{REPO}:F32").returncode == 0
    for hub, environment in ((None, {"HF_HUB_OFFLINE": "1"}), (None, {})):
        done = run(hub, **environment)  # of the types, it is the one that is there
        assert (done.returncode, done.stdout) == (0, text), done.stderr
    assert error(run(None, repo=f"{REPO}:Q4_K_M", HF_HUB_OFFLINE="1")) == (
        "acme/tiny: has no GGUF file of type Q4_K_M: it has F32")


def test_a_bar_on_a_terminal(folder, tmp_path, text):
    pty, fcntl, termios = (pytest.importorskip(name, reason="needs pseudo terminals")
                           for name in ("pty", "fcntl", "termios"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with hub_server.serve(folder) as hub:
        settings = os.environ | hub_server.environment(hub, tmp_path / "hf")
        done = subprocess.run([sys.executable, "-m", "lcpu", "run", "-hf", REPO, *FLAGS], cwd=tmp_path, env=settings,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, encoding="utf-8")
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert (done.returncode, done.stdout) == (0, text)
    assert "tiny-Q4_K_M.gguf: 100%" in shown


def test_a_lost_connection_is_taken_up_where_it_broke(run, folder, tmp_path, text):
    (tmp_path / "sitecustomize.py").write_text("from huggingface_hub import constants\n"
                                               "constants.DOWNLOAD_CHUNK_SIZE = 1 << 14\n")
    with hub_server.serve(folder, drops={"tiny-Q4_K_M.gguf": [100_000]}) as hub:
        done = run(hub, PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stdout) == (0, text), done.stderr
        assert hub.gets("tiny-Q4_K_M.gguf") == [None, f"bytes={6 << 14}-"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_an_interrupted_download_goes_on_in_the_next_run(run, tmp_path, tiny_gguf, text):
    (tmp_path / "sitecustomize.py").write_text("from huggingface_hub import constants\n"
                                               "constants.DOWNLOAD_CHUNK_SIZE = 1000\n")
    folder = tmp_path / "split"
    folder.mkdir()
    names = [path.name for path in split(tiny_gguf, folder)]
    command = [sys.executable, "-m", "lcpu", "run", "-hf", REPO, *FLAGS]
    with hub_server.serve(folder, stalls={names[1]: 5000}) as hub:
        settings = os.environ | hub_server.environment(hub, tmp_path / "hf") | {"PYTHONPATH": str(tmp_path)}
        with subprocess.Popen(command, cwd=tmp_path, env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            until(lambda: any(path.stat().st_size for path in (tmp_path / "hf").rglob("*.incomplete")))
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            out, err = process.communicate(timeout=60)
            assert time.monotonic() - started < 10
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[0] == f"downloading acme/tiny: {names[0]} and 2 more, 0.1 MiB"
        (partial,) = (tmp_path / "hf").rglob("*.incomplete")
        begun = partial.stat().st_size
        hub.go_on.set()
        hub.stalls.clear()
        hub.requests.clear()
        done = run(hub)
        assert (done.returncode, done.stdout) == (0, text), done.stderr
        assert done.stderr.splitlines()[0].startswith(f"downloading acme/tiny: {names[1]} and 1 more, ")
        assert downloads(hub) == names[1:]
        assert hub.gets(names[1]) == [f"bytes={begun}-"]
        assert begun >= 1000
        assert not list((tmp_path / "hf").rglob("*.incomplete"))
        assert run(hub, repo=f"{REPO}:q8_0", HF_HUB_OFFLINE="1").stdout == text


def test_a_damaged_beginning_is_found_and_deleted(run, folder, tmp_path, text):
    with hub_server.serve(folder) as hub:
        assert run(hub).returncode == 0
        (blob,) = (tmp_path / "hf").rglob("blobs/*")
        for pointer in (tmp_path / "hf").rglob("*.gguf"):
            pointer.unlink()
        damaged = blob.rename(f"{blob}.incomplete")
        damaged.write_bytes(bytes(1000))
        assert error(run(hub)) == ("tiny-Q4_K_M.gguf: what an interrupted download left was damaged, and is deleted: "
                                   "run the command again")
        assert run(hub).stdout == text


def until(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def test_two_at_once_download_once(tmp_path, folder, text):
    command = [sys.executable, "-m", "lcpu", "run", "-hf", REPO, *FLAGS]
    with hub_server.serve(folder, stalls={"tiny-Q4_K_M.gguf": 5000}) as hub:
        settings = os.environ | hub_server.environment(hub, tmp_path / "hf")
        both = [subprocess.Popen(command, cwd=tmp_path, env=settings, stdin=subprocess.DEVNULL, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
        until(lambda: sum(method == "HEAD" for method, _, _ in hub.requests) >= 2)
        time.sleep(0.5)
        hub.go_on.set()
        results = [process.communicate(timeout=120) for process in both]
        assert [out for out, _ in results] == [text, text], results
        assert downloads(hub) == ["tiny-Q4_K_M.gguf"]


def test_a_gated_repository(run, folder):
    with hub_server.serve(folder, is_gated=True) as hub:
        assert error(run(hub)) == "acme/tiny: is gated: accept its terms on its page first; then set HF_TOKEN"
        assert run(hub, HF_TOKEN=hub_server.TOKEN).returncode == 0


def test_a_revision(run, folder):
    with hub_server.serve(folder) as hub:
        assert run(hub, "--revision", hub_server.COMMIT).returncode == 0
        assert error(run(hub, "--revision", "v9")) == "acme/tiny: has no revision 'v9': check --revision"
    assert run(None, "--revision", hub_server.COMMIT, HF_HUB_OFFLINE="1").returncode == 0


def test_a_repository_that_is_not_there(run, folder):
    with hub_server.serve(folder) as hub:
        assert error(run(hub, repo="acme/none")) == (
            "acme/none: no such model on the hub: check the name; a private one needs HF_TOKEN")
        assert error(run(hub, repo="tiny")) == (
            "tiny: is not the name of a model on the hub, which is OWNER/NAME or OWNER/NAME:TYPE")
        assert error(run(hub, repo="acme/-.-")).startswith("acme/-.-: is not a model's name, nor a folder: ")


def test_a_checkpoint(run, lcpu, tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint")
    with hub_server.serve(folder) as hub:
        assert error(run(hub)) == ("acme/tiny: has no GGUF files but a checkpoint: make one with `lcpu convert "
                                   "acme/tiny`, or run it at once with --convert")
        assert downloads(hub) == []
        done = run(hub, "--convert", "--type", "q8_0", "-v")
        assert done.returncode == 0, done.stderr
        assert "llama 111K Q8_0 (" in done.stderr
        assert run(hub, "--convert", repo=f"{REPO}:q8_0").stdout == done.stdout
        assert lcpu("run", "-m", str(folder), "--type", "q8_0", *FLAGS).stdout == done.stdout
        assert hub.gets("model.safetensors") == [None]


def test_a_draft_model(run, folder, text):
    with hub_server.serve(folder) as hub:
        done = run(hub, "-mdhf", f"{REPO}:F32")
        assert (done.returncode, done.stdout) == (0, text), done.stderr
        assert downloads(hub) == ["tiny-Q4_K_M.gguf", "tiny-F32.gguf"]


def test_big_endian(run, folder):
    (folder / "tiny-Q4_K_M.gguf").write_bytes(b"GGUF\0\0\0\3" + bytes(50))
    with hub_server.serve(folder) as hub:
        message = error(run(hub))
        assert message.endswith("/tiny-Q4_K_M.gguf: is a big-endian GGUF file: convert it to little-endian")


def test_other_commands(lcpu, folder, tmp_path):
    (tmp_path / "text.txt").write_text("once upon a time " * 40)
    with hub_server.serve(folder) as hub:
        settings = hub_server.environment(hub, tmp_path / "hf")
        done = lcpu("inspect", "-hf", REPO, **settings)
        assert "tiny-Q4_K_M.gguf" in done.stdout
        done = lcpu("perplexity", "-hf", REPO, "-f", "text.txt", "-c", "64", **settings)
        assert done.stdout.startswith("Final estimate: PPL"), done.stderr
        done = lcpu("bench", "-hf", REPO, *"-p 4 -n 0 -r 1 -t 1 -o jsonl".split(), **settings)
        assert '"pp4"' in done.stdout, done.stderr
        done = lcpu("batch", "-hf", REPO, *FLAGS[2:], stdin='{"prompt": "once"}\n', **settings)
        assert '"text"' in done.stdout, done.stderr
        assert downloads(hub) == ["tiny-Q4_K_M.gguf"]
