"""`lcpu quantize`: its command line, what it prints where, and what it leaves."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from lcpu.cli.main import exit_code
from lcpu.cli.quantize import Type, mixture_named, tensor_type_named
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.type_rules import MIXTURES
from lcpu.engine.gguf_file import GGUFFile

COMPILING = "compiling kernels for this processor (first run only)...\n"
SHAPES = {"token_embd.weight": (16, 256), "blk.0.attn_norm.weight": (256,), "blk.0.attn_q.weight": (256, 256),
          "blk.0.ffn_down.weight": (256, 64), "output.weight": (16, 256)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model in.gguf."""
    random = np.random.default_rng(0)
    tensors = [TensorToWrite(name, shape, 0, random.standard_normal(shape, dtype=np.float32))
               for name, shape in SHAPES.items()]
    write_gguf(tmp_path / "in.gguf", {"general.architecture": "llama", "llama.block_count": 1}, tensors)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert exit_code(["quantize", *arguments]) == code
    out, err = capsys.readouterr()
    return out, err.replace(COMPILING, "")


def types(path: Path) -> dict[str, str]:
    with GGUFFile.open(path) as file:
        return {name: info.type_name for name, info in file.tensors.items()}


def test_table(folder, capsys):
    out, err = run(capsys, "in.gguf", "out.gguf", "q8_0")
    assert err == ""
    assert out == (
        "type  tensors  parameters       size  bits/weight\n"
        "Q8_0        4      90,112  93.50 KiB         8.50\n"
        "F32         1         256   1.00 KiB        32.00\n"
        "all         5      90,368  94.50 KiB         8.57\n"
        "\n"
        "in.gguf: 353.00 KiB → out.gguf: 94.50 KiB, 26.8%\n"
    )


def test_check_lists_every_changed_tensor_and_the_worst(folder, capsys):
    out, _ = run(capsys, "in.gguf", "out.gguf", "q4_k", "--check", "--tensor-type", "attn_q=q8_0")
    _, errors, worst, _ = out.split("\n\n")
    rows = [line.split() for line in errors.splitlines()]
    assert rows[0] == ["tensor", "types", "RMSE", "relative"]
    assert [row[0] for row in rows[1:]] == [name for name in SHAPES if "norm" not in name]
    assert [row[1:4] for row in rows[1:]] == [["F32", "→", kind] for kind in ("Q4_K", "Q8_0", "Q8_0", "Q6_K")]
    assert all(re.fullmatch(r"\d\.\d{3}e-0\d", row[4]) and re.fullmatch(r"0\.\d{5}", row[5]) for row in rows[1:])
    heading, *listed = worst.splitlines()
    assert heading == "the worst 4"
    assert listed == sorted(errors.splitlines()[1:], key=lambda line: -float(line.split()[-1]))


def test_types_of_the_command_line(folder, capsys):
    run(capsys, "in.gguf", "a.gguf", "Q4_0", "--output-type", "q5_1", "--embedding-type", "F16")
    wanted = {"token_embd.weight": "F16", "output.weight": "Q5_1", "blk.0.attn_norm.weight": "F32",
              "blk.0.attn_q.weight": "Q4_0", "blk.0.ffn_down.weight": "Q4_0"}
    assert types(folder / "a.gguf") == wanted
    run(capsys, "in.gguf", "b.gguf", "copy", "--tensor-type", "ffn=bf16", "--tensor-type", "blk=q4_1")
    assert set(types(folder / "b.gguf").values()) == {"F32", "BF16", "Q4_1"}
    run(capsys, "in.gguf", "c.gguf", "q4_0", "--pure", "-t", "1")
    assert set(types(folder / "c.gguf").values()) == {"F32", "Q4_0"}


def test_notes_go_to_stderr(folder, capsys):
    _, err = run(capsys, "in.gguf", "a.gguf", "q4_k_m")
    assert err == "note: the rows of blk.0.ffn_down.weight are not whole blocks: another type is taken\n"
    out, err = run(capsys, "a.gguf", "b.gguf", "q4_0")
    assert err == "note: 3 tensors, quantized before, will lose more than from a float model\n"
    assert out.startswith("type")
    assert run(capsys, "a.gguf", "c.gguf", "copy")[1] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q3_x"], "no type 'q3_x': TYPE is f32, f16,"),
        (["q4_0", "--output-type", "q4_k_m"], "no type 'q4_k_m' for a tensor: there are f32, f16,"),
        (["q4_0", "--tensor-type", "ffn"], "--tensor-type 'ffn': it is REGEX=TYPE"),
        (["q4_0", "--tensor-type", "ffn=what"], "no type 'what' for a tensor"),
        (["q4_0", "--tensor-type", "(=q8_0"], "--tensor-type '(=q8_0': not a regular expression (missing )"),
        (["i2_s", "--ternarize", "mean"], "--ternarize mean: it can be absmean"),
        ([], "the type is missing: give TYPE, or --target-bpw BITS"),
    ],
)
def test_usage_errors(folder, capsys, arguments, message):
    out, err = run(capsys, "in.gguf", "out.gguf", *arguments, code=2)
    assert out == ""
    assert err.startswith(f"lcpu: error: {message}")
    assert err.count("\n") == 1
    assert os.listdir(folder) == ["in.gguf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.gguf", "out.gguf", "q8_0"], "absent.gguf: no such file"),
        (["in.gguf", "in.gguf", "q8_0"], "in.gguf: is there already; --force overwrites it"),
        (["in.gguf", "out.gguf", "i2_s"], "tensor 'blk.0.ffn_down.weight' has rows of 64 values, and I2_S needs"),
        (["in.gguf", "out.gguf", "i2_s", "--tensor-type", "ffn=f16"], "in.gguf: tensor 'blk.0.attn_q.weight' is not"),
        (["in.gguf", "out.gguf", "q8_0", "-t", "1000"], "1000 threads: choose 1 to 512"),
    ],
)
def test_errors(folder, capsys, arguments, message):
    before = (folder / "in.gguf").read_bytes()
    out, err = run(capsys, *arguments, code=1)
    assert out == ""
    assert err.startswith(f"lcpu: error: {message}")
    assert err.count("\n") == 1
    assert os.listdir(folder) == ["in.gguf"]
    assert (folder / "in.gguf").read_bytes() == before


def test_importance_matrix(folder, capsys):
    sums = {"blk.0.attn_q.weight.in_sum2": (1, 256), "blk.0.attn_q.weight.counts": (1, 1)}
    write_gguf(folder / "imatrix.gguf", {"general.type": "imatrix"},
               [TensorToWrite(name, shape, 0, np.ones(shape, np.float32)) for name, shape in sums.items()])
    _, err = run(capsys, "in.gguf", "out.gguf", "q4_0", "--imatrix", "imatrix.gguf")
    assert err == "note: imatrix.gguf has nothing for blk.0.ffn_down.weight: all errors count the same there\n"
    with GGUFFile.open(folder / "out.gguf") as file:
        assert file.metadata["quantize.imatrix.file"] == "imatrix.gguf"
    _, err = run(capsys, "in.gguf", "small.gguf", "iq2_xs", code=1)
    assert "would be IQ2_XS, which needs an importance matrix: give one with --imatrix FILE" in err
    assert not (folder / "small.gguf").exists()


def test_force(folder, capsys):
    run(capsys, "in.gguf", "in.gguf", "q8_0", "--force")
    assert types(folder / "in.gguf")["output.weight"] == "Q8_0"


def test_ternarize(folder, capsys):
    run(capsys, "in.gguf", "out.gguf", "i2_s", "--ternarize", "absmean", "--tensor-type", "ffn=keep")
    assert types(folder / "out.gguf") == {
        "token_embd.weight": "F16", "output.weight": "F16", "blk.0.attn_norm.weight": "F32",
        "blk.0.attn_q.weight": "I2_S", "blk.0.ffn_down.weight": "F32"}


def test_help_names_every_type():
    (argument,) = Type.__metadata__
    assert set(MIXTURES) <= set(re.findall(r"\w+", argument.help))


def test_the_command_runs_what_it_wrote(lcpu, tmp_path):
    from lcpu import models

    done = lcpu("quantize", str(models.path()), str(tmp_path / "q8_0.gguf"), "q8_0")
    assert done.returncode == 0
    assert done.stdout.startswith("type")
    done = lcpu("run", "-m", str(tmp_path / "q8_0.gguf"), "-p", "Once upon a time", "-n", "4", "--temp", "0")
    assert done.returncode == 0
    assert done.stdout.strip()


def test_names_by_which_others_know_types():
    assert mixture_named("NF4") is mixture_named("iq4_nl")
    assert mixture_named("fp4") is mixture_named("mxfp4")
    assert [tensor_type_named(name) for name in ("nf4", "FP4", "q4_k")] == ["IQ4_NL", "MXFP4", "Q4_K"]


# ---- --kl ----


def test_kl_is_that_of_perplexity(tiny_gguf, tmp_path, capsys):
    """The same table, after those of the types. The base is another file than the input."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog saw it. " * 8)
    base, out = tmp_path / "base.gguf", tmp_path / "out.gguf"
    run(capsys, str(tiny_gguf), str(base), "q8_0")
    text = ["-f", str(tmp_path / "text.txt"), "-c", "16", "--chunks", "4"]
    printed, _ = run(capsys, str(tiny_gguf), str(out), "q4_0", "--kl", str(base), *text)
    assert exit_code(["perplexity", "-m", str(out), "--kl", str(base), *text]) == 0
    table = capsys.readouterr().out
    assert "Mean KLD" in table
    assert printed.endswith("%\n\n" + table)


def test_kl_fails_before_the_work(folder, tiny_gguf, tmp_path, capsys):
    def error(code: int, *arguments: str) -> str:
        printed, err = run(capsys, *arguments, code=code)
        assert printed == ""
        assert not Path("out.gguf").exists()
        return err

    (tmp_path / "text.txt").write_text("the cat")
    quantize = [str(tiny_gguf), "out.gguf", "q4_0"]
    assert "-f is the text for --kl: give --kl BASE, too" in error(2, *quantize, "-f", "text.txt")
    assert "--kl needs a text: give -f FILE" in error(2, *quantize, "--kl", str(tiny_gguf))
    wanted = ["--kl", str(tiny_gguf), "-f", "text.txt"]
    assert "--chunks 0 scores nothing" in error(2, *quantize, *wanted, "--chunks", "0")
    assert "but at least 1024 are needed" in error(1, *quantize, *wanted)
    assert "no such file" in error(1, *quantize, "--kl", "none.gguf", "-f", "text.txt")


# ---- --target-bpw ----


def test_target_bpw(folder, capsys):
    named = ["--output-type", "q6_k", "--tensor-type", "q=q5_0"]
    out, err = run(capsys, "in.gguf", "out.gguf", "--target-bpw", "5.5", *named)
    assert err == ""
    chosen, _, _ = out.split("\n\n")
    rows = [line.split() for line in chosen.splitlines()]
    assert rows[0] == ["tensor", "type", "bits/weight", "error", "share"]
    assert [row[0] for row in rows[1:]] == ["token_embd.weight", "blk.0.ffn_down.weight"]
    found = types(folder / "out.gguf")
    assert {row[0]: row[1] for row in rows[1:]}.items() <= found.items()
    assert (found["output.weight"], found["blk.0.attn_q.weight"]) == ("Q6_K", "Q5_0")
    assert sum(float(row[4].rstrip("%")) for row in rows[1:]) == pytest.approx(100, abs=0.2)


def test_target_bpw_is_in_the_place_of_a_type(folder, capsys):
    assert "the type is missing: give TYPE, or --target-bpw BITS" in run(capsys, "in.gguf", "out.gguf", code=2)[1]
    error = run(capsys, "in.gguf", "out.gguf", "q4_0", "--target-bpw", "4", code=2)[1]
    assert "--target-bpw chooses the types: leave out TYPE" in error
    error = run(capsys, "in.gguf", "out.gguf", "--target-bpw", "4.5", "--pure", code=2)[1]
    assert "--target-bpw gives tensors different types: leave out --pure" in error
    error = run(capsys, "in.gguf", "out.gguf", "--target-bpw", "1.5", code=1)[1]
    assert re.fullmatch(r"lcpu: error: in.gguf: takes at least \d\.\d\d bits per weight: take a larger --target-bpw, "
                        r"or smaller types for tensors that are named\n", error)
    assert not (folder / "out.gguf").exists()
