"""`lcpu imatrix`: what it writes, what it says, and that `lcpu quantize` takes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu import models
from lcpu.cli.main import exit_code
from lcpu.convert.imatrix import read_imatrix
from lcpu.engine.gguf_file import GGUFFile

TEXT = "Once upon a time there was a little girl named Lily. She had a red ball, and she liked to play with it. " * 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text("The bird sang a song and flew away.")
    return tmp_path


def test_a_file_that_the_gguf_package_reads(folder, capsys, tiny_gguf):
    assert exit_code(["imatrix", "-m", str(tiny_gguf), "-f", "a.txt", "-f", "b.txt", "-c", "16", "-b", "64"]) == 0
    out, err = capsys.readouterr()
    chunks = read_imatrix(folder / "imatrix.gguf").chunks
    assert out == ""
    assert "wrote imatrix.gguf: " in err
    assert f" tensors, {chunks} chunks of 16 tokens · " in err
    reader = gguf.GGUFReader(folder / "imatrix.gguf")
    keys = {key: reader.fields[key].contents() for key in reader.fields if not key.startswith("GGUF.")}
    assert keys == {"general.type": "imatrix", "imatrix.datasets": ["a.txt", "b.txt"], "imatrix.chunk_count": chunks,
                    "imatrix.chunk_size": 16}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == sorted(tensors, key=lambda name: (name.rsplit(".", 1)[0], name.endswith("counts")))
    with GGUFFile.open(tiny_gguf) as file:
        matrices = {name: info for name, info in file.tensors.items()
                    if name.startswith(("blk.", "output.")) and len(info.shape) == 2}
    for name, info in matrices.items():
        sums, counts = tensors[f"{name}.in_sum2"], tensors[f"{name}.counts"]
        assert (sums.shape.tolist(), counts.shape.tolist()) == ([info.shape[1], 1], [1, 1])
        assert sums.tensor_type == counts.tensor_type == gguf.GGMLQuantizationType.F32
        assert counts.data.item() == 16 * chunks
        assert (sums.data > 0).any()
    assert len(tensors) == 2 * len(matrices)


def test_chunks_threads_and_stdin(folder, lcpu):
    by_file = lcpu("imatrix", "-f", "a.txt", "-c", "16", "--chunks", "3", "-t", "1", "-o", "one.gguf")
    by_pipe = lcpu("imatrix", "-f", "-", "-c", "16", "--chunks", "3", "-t", "2", "-o", "two.gguf", stdin=TEXT)
    assert (by_file.returncode, by_pipe.returncode, by_file.stdout, by_pipe.stdout) == (0, 0, "", "")
    one, two = read_imatrix(folder / "one.gguf"), read_imatrix(folder / "two.gguf")
    assert (one.chunks, two.chunks) == (3, 3)
    assert (one.datasets, two.datasets) == (("a.txt",), ("-",))
    assert all(np.array_equal(one.squares[name], two.squares[name]) for name in one.squares)


def test_quantize_takes_it(folder, capsys, tiny_gguf):
    """With the text that comes with lcpu: its one character in many that the tiny vocabulary lacks does no harm."""
    assert exit_code(["imatrix", "-m", str(tiny_gguf), "-c", "64", "--chunks", "8"]) == 0
    assert read_imatrix(folder / "imatrix.gguf").datasets == ("calibration.txt",)
    assert exit_code(["quantize", str(tiny_gguf), "small.gguf", "q4_0", "--imatrix", "imatrix.gguf"]) == 0
    assert "has nothing for" not in capsys.readouterr().err


def test_the_text_that_comes_along():
    text = models.calibration_text().read_text(encoding="utf-8")
    assert 40_000 < len(text.encode()) < 80_000
    assert sum(ord(letter) > 127 for letter in text) > 1000


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["-f", "a.txt", "-o", "b.txt"], 1, "b.txt: is there already; --force overwrites it"),
    (["-f", "a.txt", "-o", "none/i.gguf"], 1, "FOLDER/none: no such folder: make it first, or write elsewhere"),
    (["-f", "none.txt"], 1, "cannot read the file none.txt: No such file or directory; check the path after -f"),
    (["-f", "b.txt"], 1, "the text has "),
    (["--chunks", "0"], 2, "--chunks 0 measures nothing: give a number of chunks, or -1 for all"),
])
def test_errors_are_one_line_and_nothing_is_written(folder, capsys, arguments, code, message):
    before = sorted(folder.iterdir())
    assert exit_code(["imatrix", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"lcpu: error: {message.replace('FOLDER', str(folder))}")
    assert sorted(folder.iterdir()) == before
    assert exit_code(["imatrix", "-f", "a.txt", "-c", "16", "-o", "b.txt", "--force"]) == 0


def test_ctrl_c_leaves_nothing(folder):
    (folder / "long.txt").write_text(TEXT * 5000)
    process = subprocess.Popen([sys.executable, "-m", "lcpu", "imatrix", "-f", "long.txt", "-t", "1"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=dict(os.environ))
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt", "long.txt"]
