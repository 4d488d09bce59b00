"""`lcpu imatrix --hessian` and `lcpu quantize --gptq`: what they write and say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu import models
from lcpu.cli.main import exit_code
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.hessian import Hessians
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.llm import LLM
from lcpu.engine.perplexity import compare, windows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A folder with the Hessian of the embedded model, of a part of the text that comes along, and that part's rest."""
    path = tmp_path_factory.mktemp("hessian")
    text = models.calibration_text().read_text(encoding="utf-8")
    (path / "text.txt").write_text(text[:24_000], encoding="utf-8")
    (path / "held.txt").write_text(text[24_000:30_000], encoding="utf-8")
    command = ["imatrix", "-f", str(path / "text.txt"), "-c", "128", "-o", str(path / "imatrix.gguf")]
    assert exit_code([*command, "--hessian", str(path / "hessian.gguf")]) == 0
    return path


def divergence(path: Path, base: Path, text: str) -> float:
    with LLM.load(base, context=256) as llm, LLM.load(path, context=256, beside=llm) as other:
        return float(np.concatenate([compare(other, llm, part)["kl"] for part in windows(llm, text, 256, 4)]).mean())


def test_what_is_written(measured, folder, capsys):
    reader = gguf.GGUFReader(measured / "hessian.gguf")
    keys = {key: reader.fields[key].contents() for key in reader.fields if not key.startswith("GGUF.")}
    assert (keys["general.type"], keys["imatrix.datasets"]) == ("hessian", ["text.txt"])
    assert keys["hessian.tokens"] % 128 == 0
    assert len(keys["hessian.matrices"]) == len(keys["hessian.sums"]) == 22  # 7 of 3 layers, and the output layer
    assert max(keys["hessian.sums"]) == len(reader.tensors) - 1 == 12
    with GGUFFile.open(models.path("stories")) as file, Hessians(measured / "hessian.gguf") as hessians:
        hessians.check(file.tensors.values())
        importance = hessians.importance()
        for name in hessians.tensors:
            assert importance.of(file.tensors[name]) is not None
    assert exit_code(["run", "-m", str(measured / "hessian.gguf"), "-p", "x"]) == 1
    assert "is sums of products (a Hessian), which is an aid for quantizing, not a model" in capsys.readouterr().err


def test_predictions_are_nearer(measured, folder, capsys):
    base, text = models.path("stories"), (measured / "held.txt").read_text(encoding="utf-8")
    for options in (["--imatrix", str(measured / "imatrix.gguf")], ["--gptq", str(measured / "hessian.gguf")]):
        assert exit_code(["quantize", str(base), f"{options[0][2:]}.gguf", "q4_0", *options]) == 0
    assert "note: " not in capsys.readouterr().err
    with GGUFFile.open("gptq.gguf") as file:
        assert file.tensors["blk.0.attn_q.weight"].type_name == "Q4_0"
        assert file.metadata["quantize.imatrix.file"] == str(measured / "hessian.gguf")
    assert divergence(Path("gptq.gguf"), base, text) < 0.6 * divergence(Path("imatrix.gguf"), base, text)


def test_many_rows_are_taken_in_parts(measured, folder, monkeypatch):
    base, hessian = str(models.path("stories")), str(measured / "hessian.gguf")
    assert exit_code(["quantize", base, "whole.gguf", "q5_0", "--gptq", hessian, "-t", "1"]) == 0
    monkeypatch.setattr("lcpu.convert.quantize._FEEDBACK_BYTES", 1 << 16)
    assert exit_code(["quantize", base, "parts.gguf", "q5_0", "--gptq", hessian, "-t", "2"]) == 0
    with GGUFFile.open("whole.gguf") as whole, GGUFFile.open("parts.gguf") as parts:
        for name in whole.tensors:  # products of few rows may be rounded in another way, by BLAS
            assert (whole.data(name) != parts.data(name)).mean() < 0.01


def test_refused(measured, folder, capsys, tiny_gguf):
    base, hessian = str(models.path("stories")), str(measured / "hessian.gguf")

    def error(*arguments: str) -> str:
        assert exit_code(list(arguments)) == 1
        assert not Path("out.gguf").exists()
        *notes, line = capsys.readouterr().err.splitlines()
        assert all(note.startswith(("note: ", "compiling ")) for note in notes)
        return line

    assert "the sums are not of so many: take the Hessian of this model" in error(
        "quantize", str(tiny_gguf), "out.gguf", "q4_0", "--gptq", hessian)
    assert "is not a Hessian but an importance matrix: make one with `lcpu imatrix --hessian`" in error(
        "quantize", base, "out.gguf", "q4_0", "--gptq", str(measured / "imatrix.gguf"))
    assert "is not a Hessian but another GGUF file" in error("quantize", base, "out.gguf", "q4_0", "--gptq", base)
    keys = {"general.type": "hessian", "hessian.matrices": ["blk.0.attn_q.weight"],
            "hessian.sums": np.array([0], np.int32)}
    write_gguf("no.gguf", keys | {"hessian.sums": np.array([1], np.int32)}, [])
    assert "does not say which matrices it is of: the file is damaged" in error(
        "quantize", base, "out.gguf", "q4_0", "--gptq", "no.gguf")
    with GGUFFile.open(base) as file:
        k = file.tensors["blk.0.attn_q.weight"].shape[-1]
    sums = np.full(k * (k + 1) // 2, -1, "<f4")
    write_gguf("bad.gguf", keys, [TensorToWrite("blk.0.attn_q.weight.hessian", sums.shape, 0, sums)])
    assert "has values that are no sums of products" in error(
        "quantize", base, "out.gguf", "q4_0", "--gptq", "bad.gguf")
    write_gguf("other.gguf", keys | {"hessian.matrices": ["blk.99.attn_q.weight"]},
               [TensorToWrite("blk.99.attn_q.weight.hessian", sums.shape, 0, sums)])
    assert "has nothing for any tensor of this model" in error(
        "quantize", base, "out.gguf", "q4_0", "--gptq", "other.gguf")
    assert "is there already" in error("imatrix", "-o", "new.gguf", "--hessian", hessian)
    assert not Path("new.gguf").exists()


def test_tensors_that_it_lacks(measured, folder, capsys):
    base = models.path("stories")
    with Hessians(measured / "hessian.gguf") as hessians, GGUFFile.open(measured / "hessian.gguf") as file:
        name = "blk.0.attn_output.weight"
        sums = file.data(hessians.tensors[name])
        keys = {"general.type": "hessian", "hessian.matrices": [name], "hessian.sums": np.array([0], np.int32)}
        write_gguf("one.gguf", keys, [TensorToWrite(f"{name}.hessian", (len(sums) // 4,), 0, sums)])
    assert exit_code(["quantize", str(base), "out.gguf", "q4_0", "--gptq", "one.gguf"]) == 0
    assert "note: one.gguf has nothing for 20 tensors: all errors count the same there" in capsys.readouterr().err
