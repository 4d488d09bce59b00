"""`lcpu inspect`: of files that lcpu can run, and of others."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu import models
from lcpu.cli.main import exit_code
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES


def zeros(name: str, shape: tuple[int, ...], type_id: int) -> TensorToWrite:
    return TensorToWrite(name, shape, type_id, bytes(TENSOR_TYPES[type_id].nbytes(shape)))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert exit_code(["inspect", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def document(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    out = run(capsys, *arguments, "--json")
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """An architecture and types that nothing runs, and values that are hard to print."""
    path = tmp_path / "odd.gguf"
    metadata = {
        "general.architecture": "frobnicator",
        "general.name": "tab\there\x1b[31m, line\nend é 漢",
        "frobnicator.epsilon": 1e-5,
        "frobnicator.double": np.float64(1e-5),
        "frobnicator.infinite": np.float32(np.inf),
        "frobnicator.big": np.uint64(2**64 - 1),
        "frobnicator.small": np.int8(-5),
        "frobnicator.flags": [True, False],
        "frobnicator.long": "x" * 1000,
        "frobnicator.numbers": np.arange(100, dtype=np.uint16),
        "frobnicator.not_numbers": np.array([np.nan, 0.1, -np.inf], np.float32),
        "frobnicator.words": [f'w"{index}"' for index in range(50)],
        "frobnicator.empty": [],
    }
    tensors = [
        zeros("some\nname", (5,), 0),
        zeros("a.weight", (3, 512), 16),
        zeros("b.weight", (4, 2, 256), 20),
        zeros("c.weight", (2, 512), 16),
    ]
    write_gguf(path, metadata, tensors)
    return path


def test_json_of_an_unknown_architecture(capsys, odd):
    found = document(capsys, odd)
    infos = GGUFFile.open(odd).tensors
    assert found.pop("files") == [{"path": str(odd), "bytes": odd.stat().st_size}]
    assert found.pop("metadata") == {
        "general.architecture": {"type": "string", "value": "frobnicator"},
        "general.name": {"type": "string", "value": "tab\there\x1b[31m, line\nend é 漢"},
        "frobnicator.epsilon": {"type": "float32", "value": 1e-5},
        "frobnicator.double": {"type": "float64", "value": 1e-5},
        "frobnicator.infinite": {"type": "float32", "value": "inf"},
        "frobnicator.big": {"type": "uint64", "value": 2**64 - 1},
        "frobnicator.small": {"type": "int8", "value": -5},
        "frobnicator.flags": {"type": "bool", "length": 2, "first": [True, False]},
        "frobnicator.long": {"type": "string", "value": "x" * 1000},
        "frobnicator.numbers": {"type": "uint16", "length": 100, "first": [0, 1, 2, 3, 4, 5]},
        "frobnicator.not_numbers": {"type": "float32", "length": 3, "first": ["nan", 0.1, "-inf"]},
        "frobnicator.words": {"type": "string", "length": 50, "first": [f'w"{index}"' for index in range(6)]},
        "frobnicator.empty": {"type": "string", "length": 0, "first": []},
    }
    iq2, iq4 = 10 * 66, 64 * 18
    iq2_bits, iq4_bits = 66 * 8 / 256, 18 * 8 / 32
    assert found == {
        "version": 3,
        "architecture": "frobnicator",
        "tensor_count": 4,
        "parameters": 5 + 2560 + 2048,
        "bytes": 20 + iq2 + iq4,
        "bits_per_weight": 8 * (20 + iq2 + iq4) / 4613,
        "types": [
            {"type": "IQ4_NL", "tensor_count": 1, "parameters": 2048, "bytes": iq4, "bits_per_weight": iq4_bits},
            {"type": "IQ2_XXS", "tensor_count": 2, "parameters": 2560, "bytes": iq2, "bits_per_weight": iq2_bits},
            {"type": "F32", "tensor_count": 1, "parameters": 5, "bytes": 20, "bits_per_weight": 32},
        ],
        "tensors": [
            {"name": name, "shape": shape, "type": type_name, "bytes": nbytes, "offset": infos[name].offset, "file": 0}
            for name, shape, type_name, nbytes in [
                ("some\nname", [5], "F32", 20),
                ("a.weight", [3, 512], "IQ2_XXS", 6 * 66),
                ("b.weight", [4, 2, 256], "IQ4_NL", iq4),
                ("c.weight", [2, 512], "IQ2_XXS", 4 * 66),
            ]
        ],
    }


def test_text_of_an_unknown_architecture(capsys, odd):
    lines = run(capsys, odd).splitlines()
    offsets = [str(info.offset) for info in GGUFFile.open(odd).tensors.values()]
    assert lines[0] == f"file          {odd}"
    assert lines[2:5] == ["GGUF version  3", "architecture  frobnicator", "parameters    4,613, 3.18 bits each"]
    assert lines[6:11] == [
        "type     tensors  parameters      size  bits/weight",
        "IQ4_NL         1       2,048  1.12 KiB         4.50",
        "IQ2_XXS        2       2,560     660 B         2.06",
        "F32            1           5      20 B        32.00",
        "all            4       4,613  1.79 KiB         3.18",
    ]
    assert lines[12:26] == [
        "metadata (13)",
        "general.architecture     string       frobnicator",
        r"general.name             string       tab\there\x1b[31m, line\nend é 漢",
        "frobnicator.epsilon      float32      1e-05",
        "frobnicator.double       float64      1e-05",
        "frobnicator.infinite     float32      inf",
        "frobnicator.big          uint64       18446744073709551615",
        "frobnicator.small        int8         -5",
        "frobnicator.flags        bool[2]      [true, false]",
        "frobnicator.long         string       " + "x" * 97 + "...",
        "frobnicator.numbers      uint16[100]  [0, 1, 2, 3, 4, 5, ...]",
        'frobnicator.not_numbers  float32[3]   ["nan", 0.1, "-inf"]',
        r'frobnicator.words        string[50]   ["w\"0\"", "w\"1\"", "w\"2\"", "w\"3\"", "w\"4\"", "w\"5\"", ...]',
        "frobnicator.empty        string[0]    []",
    ]
    assert [line.split("  ")[0] for line in lines[28:]] == ["name", r"some\nname", "a.weight", "b.weight", "c.weight"]
    assert "4 × 2 × 256  IQ4_NL" in lines[31]
    assert [line.split()[-1] for line in lines[29:]] == offsets
    assert len({line.index("F32") if "F32" in line else line.index("IQ") for line in lines[29:]}) == 1


def test_no_tensors(capsys, odd):
    whole = run(capsys, odd)
    short = run(capsys, odd, "--no-tensors")
    assert whole.startswith(short)
    assert whole.removeprefix(short).startswith("\ntensors (4)\nname ")
    assert "tensors" not in document(capsys, odd, "--no-tensors")


def test_the_embedded_model_as_gguf_reads_it(capsys, monkeypatch):
    found = document(capsys)
    reader = gguf.GGUFReader(models.path())
    assert found == document(capsys, models.path())
    assert [(t["name"], t["shape"], t["type"], t["bytes"], t["offset"]) for t in found["tensors"]] == [
        (t.name, t.shape.tolist()[::-1], t.tensor_type.name, t.n_bytes, t.data_offset) for t in reader.tensors
    ]
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert list(found["metadata"]) == list(fields)
    for name, field in fields.items():
        shown = found["metadata"][name]
        assert shown["type"] == field.types[-1].name.lower()
        if "value" in shown:
            value = np.float32(shown["value"]).item() if shown["type"] == "float32" else shown["value"]
            assert value == field.contents()
        else:
            assert shown["length"] == len(field.data)
            assert shown["first"] == [field.contents(index) for index in range(6)]
    monkeypatch.setenv("LCPU_MODEL", str(models.path("stories-draft")))
    assert document(capsys)["files"][0]["path"] == str(models.path("stories-draft"))


def test_only_a_vocabulary(capsys, tmp_path):
    path = tmp_path / "vocabulary.gguf"
    write_gguf(path, {"tokenizer.ggml.model": "llama"}, [])
    found = document(capsys, path)
    assert (found["architecture"], found["bits_per_weight"], found["tensors"], found["types"]) == (None, None, [], [])
    assert run(capsys, path).splitlines()[1:] == [
        f"size          {path.stat().st_size} B",
        "GGUF version  3",
        "architecture  not named",
        "parameters    0: only a vocabulary",
        "",
        "type  tensors  parameters  size  bits/weight",
        "all         0           0   0 B            -",
        "",
        "metadata (1)",
        "tokenizer.ggml.model  string  llama",
    ]


def test_split_files(capsys, tmp_path):
    paths = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, path in enumerate(paths):
        split = {"split.no": np.uint16(number), "split.count": np.uint16(2), "split.tensors.count": np.int32(3)}
        metadata = split | ({} if number else {"general.architecture": "llama"})
        write_gguf(path, metadata, [zeros("a", (4,), 0), zeros("b", (6,), 0)] if number else [zeros("c", (64,), 1)])
    for path in paths:  # any of them names the model
        found = document(capsys, path)
        assert found["files"] == [{"path": str(each), "bytes": each.stat().st_size} for each in paths]
        assert [(tensor["name"], tensor["file"]) for tensor in found["tensors"]] == [("c", 0), ("a", 1), ("b", 1)]
        assert (found["parameters"], found["bytes"], found["architecture"]) == (74, 168, "llama")
    lines = run(capsys, paths[1]).splitlines()
    assert lines[0] == f"file          {paths[0]} and 1 more"
    assert lines[-4].split() == ["name", "shape", "type", "size", "offset", "file"]
    assert [line.split()[-1] for line in lines[-3:]] == ["1", "2", "2"]
    paths[0].unlink()
    assert exit_code(["inspect", str(paths[1])]) == 1
    assert capsys.readouterr().err.startswith(f"lcpu: error: {paths[0]}: no such file, and the model needs it")


def test_text_that_is_not_utf8(capsys, tmp_path, odd):
    path = tmp_path / "bytes.gguf"
    path.write_bytes(odd.read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert "end \\udcff\\udcfe 漢" in run(capsys, path)
    assert document(capsys, path)["metadata"]["general.name"]["value"].endswith("end ?? 漢")


@pytest.mark.parametrize(("content", "error"), [(None, "no such file"), (b"", "is empty"), (b"MZ..", "is not a GGUF")])
def test_errors_are_one_line(capsys, tmp_path, content, error):
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    assert exit_code(["inspect", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lcpu: error: {path}: {error}")
    assert err.count("\n") == 1


def test_no_escapes_on_a_terminal(capsys, lcpu, odd):
    done = lcpu("inspect", str(odd), FORCE_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout == run(capsys, odd)
