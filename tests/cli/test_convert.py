"""`lcpu convert` of a folder: what it writes, prints and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lcpu.cli.main import exit_code
from lcpu.convert import write
from lcpu.engine.gguf_file import GGUFFile

from ..convert.checkpoints import llama_tensors, write_checkpoint
from ..convert.packed import awq, packed_model
from .test_end_to_end import COMPILING


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint in the current folder, which is else empty."""
    monkeypatch.chdir(tmp_path)
    return write_checkpoint(tmp_path / "Tiny-1B")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()}


def test_the_file_is_named_after_model_and_type(folder, capsys):
    assert exit_code(["convert", "Tiny-1B", "--type", "bf16"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.removeprefix(COMPILING) == "wrote Tiny-1B-BF16.gguf: 21 tensors, BF16, 217.25 KiB\n"
    assert files(folder) == {"Tiny-1B", "Tiny-1B-BF16.gguf"}
    with GGUFFile.open("Tiny-1B-BF16.gguf") as file:
        assert file.metadata["general.name"] == "Tiny-1B"


@pytest.mark.parametrize("flags", [["--outtype", "F16", "-o"], ["--type", "f16", "--outfile"]])
def test_names_of_flags_are_llama_cpps_too(folder, flags):
    assert exit_code(["convert", str(folder), *flags, "a.gguf"]) == 0
    with GGUFFile.open("a.gguf") as file:
        assert file.tensors["output.weight"].type_name == "F16"


def test_types_of_single_tensors(folder, capsys):
    flags = ["--type", "q4_0", "--output-type", "q8_0", "--embedding-type", "f16", "-t", "1", "-o", "a.gguf"]
    assert exit_code(["convert", "Tiny-1B", *flags]) == 0
    with GGUFFile.open("a.gguf") as file:
        names = ("output.weight", "token_embd.weight", "blk.0.ffn_up.weight")
        assert [file.tensors[name].type_name for name in names] == ["Q8_0", "F16", "Q4_0"]
    assert exit_code(["convert", "Tiny-1B", "--output-type", "q99"]) == 2
    assert "no type 'q99' for a tensor" in capsys.readouterr().err


def test_what_is_written_runs(folder, lcpu):
    assert exit_code(["convert", "Tiny-1B", "-o", "a.gguf"]) == 0
    done = lcpu("run", "-m", "a.gguf", "-p", "Once", "-n", "4", "-s", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert '"text"' in done.stdout


def test_a_dry_run_lists_and_writes_nothing(folder, capsys):
    assert exit_code(["convert", "Tiny-1B", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split() == ["tensor", "shape", "type", "size"]
    assert lines[1].split() == ["token_embd.weight", "384", "×", "64", "F32", "96.00", "KiB"]
    assert len(lines) == 1 + 21 + 2
    assert lines[-1] == "Tiny-1B-F32.gguf: 21 tensors, 433.25 KiB, F32"
    assert files(folder) == {"Tiny-1B"}


def test_an_existing_file_is_kept_without_force(folder, capsys):
    Path("a.gguf").write_text("precious")
    assert exit_code(["convert", "Tiny-1B", "-o", "a.gguf"]) == 1
    assert capsys.readouterr().err == (
        "lcpu: error: a.gguf: is there already; --force overwrites it\n"
    )
    assert Path("a.gguf").read_text() == "precious"
    assert exit_code(["convert", "Tiny-1B", "-o", "a.gguf", "--dry-run"]) == 0
    assert exit_code(["convert", "Tiny-1B", "-o", "a.gguf", "--force"]) == 0
    GGUFFile.open("a.gguf").close()
    (folder.parent / "Tiny-1B-F16.gguf").touch()
    assert exit_code(["convert", "Tiny-1B", "--type", "f16"]) == 1


def test_a_failed_conversion_keeps_what_was_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    large = {"lm_head.weight": np.full((384, 64), 1e6, np.float32)}
    folder = write_checkpoint(tmp_path / "bad", llama_tensors() | large)
    Path("a.gguf").write_text("precious")
    assert exit_code(["convert", "bad", "-o", "a.gguf", "--force", "--type", "f16"]) == 1
    assert capsys.readouterr().err.startswith("lcpu: error: tensor output.weight has values that are not")
    assert Path("a.gguf").read_text() == "precious"
    assert files(folder) == {"bad", "a.gguf"}


@pytest.mark.skipif(os.name != "posix", reason="makes a symbolic link")
@pytest.mark.parametrize("command", ["convert", "quantize"])
def test_the_output_is_written_through_a_link(folder, command):
    assert exit_code(["convert", "Tiny-1B", "-o", "in.gguf"]) == 0
    Path("disk").mkdir()
    Path("a.gguf").symlink_to("disk/a.gguf")
    line = ["convert", "Tiny-1B", "-o", "a.gguf"] if command == "convert" else ["quantize", "in.gguf", "a.gguf", "q8_0"]
    assert exit_code(line) == 0
    assert Path("a.gguf").is_symlink()
    GGUFFile.open("disk/a.gguf").close()
    assert exit_code(line) == 1
    assert exit_code([*line, "--force"]) == 0
    assert [path.name for path in Path("disk").iterdir()] == ["a.gguf"]


def test_a_full_disk(folder, monkeypatch, capsys):
    def full(*_: object) -> np.ndarray:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.Encoder, "encode", full)
    assert exit_code(["convert", "Tiny-1B", "-o", "a.gguf"]) == 1
    assert capsys.readouterr().err == "lcpu: error: a.gguf: cannot be written: No space left on device\n"
    assert files(folder) == {"Tiny-1B"}


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interrupted_conversion_leaves_nothing(folder, number, code):
    """A signal while the second tensor is made, which takes forever here."""
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # whoever runs the tests may ignore it
        "from lcpu.cli.main import main\n"
        "from lcpu.convert import write\n"
        "encode = write.Encoder.encode\n"
        "def slow(self, name, *rest):\n"
        "    if not name.startswith('token_embd'):\n"
        "        print('writing', flush=True); time.sleep(60)\n"
        "    return encode(self, name, *rest)\n"
        "write.Encoder.encode = slow\n"
        "sys.argv[1:] = ['convert', 'Tiny-1B', '-o', 'a.gguf']\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        time.sleep(0.1)
        assert any(name.endswith(".lcpu-part") for name in files(folder))
        process.send_signal(getattr(signal, number))
        assert process.wait(30) == code
    assert files(folder) == {"Tiny-1B"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["not/a/name"], "not/a/name: no such folder, nor a model's name on the hub, which is OWNER/NAME"),
        (["./none"], "./none: no such folder, nor a model's name on the hub"),
        (["Tiny-1B/config.json"], "Tiny-1B/config.json: is a file: name the folder of the checkpoint"),
        (["."], "config.json: no such file: this is not a Hugging Face model"),
        (["Tiny-1B", "-o", "absent/a.gguf"], "absent: no such folder: make it first, or write elsewhere"),
        (["Tiny-1B", "-o", "."], ".: is not a file: name the file to write"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_errors(capsys, arguments, message):
    assert exit_code(["convert", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("lcpu: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'MODEL'"),
        (["Tiny-1B", "--type", "q99"], "no type 'q99': --type is auto, f32, f16, bf16"),
        (["Tiny-1B", "--revision", "v2"], "--revision is for models on the hub, and Tiny-1B is a folder"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_usage_errors(capsys, arguments, message):
    assert exit_code(["convert", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.endswith("; see 'lcpu convert --help'\n")


def test_notes_go_to_stderr(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "slider", sliding_window=16)
    assert exit_code(["convert", "slider", "--dry-run"]) == 0
    assert capsys.readouterr().err.startswith("note: the model's attention reaches back 16 tokens")


def test_quantized_weights_keep_their_values(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stored, _ = packed_model(llama_tensors(), awq)
    write_checkpoint(tmp_path / "Tiny-AWQ", stored, quantization_config={"quant_method": "awq"})
    line = "note: of the weights quantized by AWQ, 14 keep their values exactly (Q5_0)"
    assert exit_code(["convert", "Tiny-AWQ", "--dry-run"]) == 0
    assert capsys.readouterr().err.splitlines() == [line]
    assert exit_code(["convert", "Tiny-AWQ"]) == 0
    assert capsys.readouterr().err.splitlines() == [line, "wrote Tiny-AWQ-Q5_0.gguf: 21 tensors, Q5_0, 234.50 KiB"]


def test_lossy_types_are_allowed_by_a_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stored, _ = packed_model(llama_tensors(), awq)
    write_checkpoint(tmp_path / "Tiny-AWQ", stored, quantization_config={"quant_method": "awq"})
    for command in (["convert", "Tiny-AWQ"], ["run", "-m", "Tiny-AWQ", "-p", "a"]):
        assert exit_code([*command, "--type", "nf4"]) == 1
        assert capsys.readouterr().err == (
            "lcpu: error: 14 weights, such as blk.0.attn_q.weight, are quantized, and IQ4_NL would change them again: "
            "without --type, they are kept in Q5_0; or allow it by `lcpu convert --allow-lossy`\n"
        )
    assert files(tmp_path / "Tiny-AWQ") == {"Tiny-AWQ"}
    assert exit_code(["convert", "Tiny-AWQ", "--type", "nf4", "--allow-lossy", "-o", "a.gguf"]) == 0
    assert "14 get other values (IQ4_NL), off by 0.0" in capsys.readouterr().err
    with GGUFFile.open("a.gguf") as file:
        assert file.tensors["blk.0.ffn_up.weight"].type_name == "IQ4_NL"
