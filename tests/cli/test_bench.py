"""`lcpu bench`: what its flags ask of a model, and what goes where."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from lcpu.cli import bench_values
from lcpu.cli.main import exit_code
from lcpu.cli.options import UsageError
from lcpu.kernels.errors import LcpuError

from .fake_model import FakeModel

# ---- values ----


@pytest.mark.parametrize(("texts", "expected"), [
    (["7"], [7]), (["1,2,4"], [1, 2, 4]), (["1-4"], [1, 2, 3, 4]), (["8-20+4"], [8, 12, 16, 20]),
    (["128-1024*2"], [128, 256, 512, 1024]), (["1-2,8", "3"], [1, 2, 8, 3]), (["10-15+10"], [10]), (["0"], [0]),
    ([" 1 , 2 "], [1, 2]), ([], [42]), (None, [42]),
])
def test_numbers(texts, expected):
    assert bench_values.numbers(texts, [42], "-p") == expected


@pytest.mark.parametrize("text", ["", "a", "1,", "1;2", "-5", "4-1", "1-9*1", "0-8*2", "1-9+0", "1.5", "0-99999999",
                                  "16777217", "1-4+", "1 2"])
def test_no_numbers(text):
    with pytest.raises(UsageError, match=r"Invalid value for '-p': "):
        bench_values.numbers([text], [42], "-p")


def test_pairs():
    assert bench_values.pairs(["512,128", "0,4", " 1 , 2 ", "0,0"], "-pg") == [(512, 128), (0, 4), (1, 2)]
    for text in ("512", "1,2,3", "a,b", "-1,2", "", "1,99999999"):
        with pytest.raises(UsageError, match=r"Invalid value for '-pg': .*PROMPT,GENERATED"):
            bench_values.pairs([text], "-pg")


def test_shares():
    assert bench_values.shares(["0,0.5,.25", " 1 ,1.0"], [0.1], "--acceptance") == [0, 0.5, 0.25, 1, 1]
    assert bench_values.shares(None, [0.1], "--acceptance") == [0.1]
    for text in ("1.5", "-0.5", "80%", "nan", "2", "0.", "1e-3"):
        with pytest.raises(UsageError, match=r"Invalid value for '--acceptance': .* is not a share, 0 to 1"):
            bench_values.shares([text], [0.1], "--acceptance")


def test_files(tmp_path):
    comma = tmp_path / "a,b.gguf"
    comma.touch()
    assert bench_values.files([comma, Path("x,y"), Path("z")]) == [comma, Path("x"), Path("y"), Path("z")]


# ---- tests ----


def test_defaults_are_llama_bench_s(models, capsys):
    assert exit_code(["bench", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["test"] for row in rows] == ["pp512", "tg128"]
    assert [len(row["samples_ns"]) for row in rows] == [5, 5]
    assert {(row["n_batch"], row["n_ubatch"]) for row in rows} == {(2048, 512)}
    (model,) = models
    assert (model.name, model.context) == ("stories.gguf", 512)
    assert model.sizes == [512] * 6 + [1] * (4 + 5 * 128)  # with the warm-ups
    assert model.closed


def test_json_is_short_for_an_output(models, capsys):
    written = []
    for flags in (["--json"], ["-o", "json"]):
        assert exit_code(["bench", "-p", "4", "-n", "0", *flags]) == 0
        written.append([row["test"] for row in json.loads(capsys.readouterr().out)])
    assert written == [["pp4"], ["pp4"]]


@pytest.mark.parametrize(("arguments", "expected"), [
    ("-p 0", ["tg128"]),
    ("-n 0", ["pp512"]),
    ("-t 4 -n 200", ["pp512", "tg200"]),
    ("-p 0 -n 0 -pg 8,4", ["pp8+tg4"]),
    ("-p 1-2 -n 3,4", ["pp1", "pp2", "tg3", "tg4"]),
    ("-p 8 -p 4 -n 0", ["pp8", "pp4"]),
    ("-p 8 -n 4 -pg 3,2 -pg 0,7 -pg 6,0 -tgb 2,4", ["pp8", "tg4", "pp3+tg2", "tg7", "pp6", "tgB2", "tgB4"]),
    ("-p 8 -n 4 -d 0,16", ["pp8", "tg4", "pp8 @ d16", "tg4 @ d16"]),
    ("-p 8 -n 0 -t 1,2", ["pp8", "pp8"]),
    ("-p 8 -n 0 --batch-cost 1-3", ["pp8", "tgB1", "tgB2", "tgB3"]),
])
def test_rows(tests, arguments, expected):
    assert tests(arguments) == expected


@pytest.mark.parametrize(("arguments", "expected"), [
    ("-np 1,2 -p 8 -n 4", ["pp8+tg4 x1", "pp8+tg4 x2"]),
    ("-npl 2 -p 8,16 -n 4 -pps", ["pp8+tg4 x2 shared", "pp16+tg4 x2 shared"]),
    ("--parallel 2 -p 0 -n 4", ["tg4 x2"]),
    ("-np 2 -p 8,0 -n 0", ["pp8 x2"]),
])
def test_many_sequences(tests, arguments, expected):
    assert tests(arguments) == expected


def test_steps_of_many_sequences(tests, models):
    tests("-np 2,4 -p 300 -n 3 --no-warmup -b 400")
    assert models[0].sizes == [400, 200, 2, 2, 2, 400, 400, 400, 4, 4, 4]
    assert (models[0].context, models[0].pool.count) == (303, 12)


def test_many_sequences_are_measured_once_by_default(models, capsys):
    assert exit_code(["bench", "-np", "2", "-n", "2", "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["test"], len(row["samples_ns"])) == ("pp512+tg2 x2", 1)


def test_what_many_sequences_leave_out(refused):
    for other in ("--spec -p 0", "-pg 4,4", "-tgb 2", "-d 5"):
        refused(f"-np 2 {other}", "-np measures many sequences at once and nothing else: leave out --spec, -pg, -tgb")
    refused("-np 2 -p 0 -n 0", "nothing to measure")
    refused("-pps", "-pps shares the prompt of many sequences: say how many with -np, or leave it out")
    refused("-np 0", "Invalid value for '-np': 0 is not 1 to 512")


def test_types_of_the_cache(models, capsys, refused, monkeypatch):
    assert exit_code("bench -p 4 -n 0 -ctk f16,q8_0 -ctv q8_0 -o jsonl".split()) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["type_k"], row["type_v"]) for row in rows] == [("f16", "q8_0"), ("q8_0", "q8_0")]
    assert [model.cache_types for model in models] == [("f16", "q8_0"), ("q8_0", "q8_0")]
    refused("-ctk q4_0", "Invalid value for '-ctk': 'q4_0' is not f16 or q8_0")
    monkeypatch.setenv("LCPU_CACHE_TYPE_V", "q8_0")
    assert exit_code("bench -p 4 -n 0".split()) == 0
    assert models[-1].cache_types == ("f16", "q8_0")
    head = capsys.readouterr().out.splitlines()[0]
    assert re.search(r"threads \| type_v \| +test", head)


def test_a_model_is_loaded_for_every_number_of_threads(tests, models, tiny_gguf):
    tests(f"-m {tiny_gguf} -t 3,1 -p 4 -n 0 -m {tiny_gguf},{tiny_gguf}")
    assert [(model.name, model.threads) for model in models] == [("tiny.gguf", 3), ("tiny.gguf", 1)] * 3


def test_the_cache_is_as_long_as_the_longest_test(tests, models):
    tests("-p 700 -n 9 -pg 700,9 -d 0,1000")
    assert models[0].context == 1709


def test_batches(tests, models):
    assert tests("-p 100 -n 0 -b 64,2048 -ub 48,512 --no-warmup") == ["pp100"] * 4
    assert models[0].sizes == [48, 48, 4, 64, 36, 48, 48, 4, 100]


def test_depth_comes_first(tests, models):
    tests("-p 8 -n 2 -d 16 --no-warmup")
    assert list(zip(models[0].positions, models[0].sizes, strict=True)) == [(0, 16), (16, 8), (16, 1), (17, 1)]


def test_threads_left_to_the_engine(tests, models, monkeypatch):
    monkeypatch.setattr("lcpu.engine.threads.thread_count", lambda wanted, nbytes: wanted or 7)
    tests("-p 4 -n 0 -t 0,-1,2")
    assert [model.threads for model in models] == [7, 2]


def test_no_more_threads_than_processors(models, capsys):
    assert exit_code(["bench", "-p", "4", "-n", "0", "-t", "6-10"]) == 0
    assert [model.threads for model in models] == [6, 7, 8]
    assert capsys.readouterr().err.splitlines() == [
        f"-t {wanted}: this process may use 8 processors, and gets as many threads" for wanted in (9, 10)]  # fmt: skip


def test_settings_of_the_environment(tests, models, monkeypatch, tiny_gguf):
    monkeypatch.setenv("LCPU_MODEL", str(tiny_gguf))
    monkeypatch.setenv("LCPU_THREADS", "3")
    tests("-p 4 -n 0")
    tests("-p 4 -n 0 -t 1")
    assert [(model.name, model.threads) for model in models] == [("tiny.gguf", 3), ("tiny.gguf", 1)]


def test_random_models(tests, models, monkeypatch, tiny_gguf):
    tests(f"--shape smollm2-135m,tinyllama-1.1b --type q4_0,q8_0 -p 4 -n 0 -m {tiny_gguf}")
    assert [model.name for model in models] == ["tiny.gguf", *(
        f"random-{shape}-{type_name}" for shape in ("smollm2-135m", "tinyllama-1.1b") for type_name in ("q4_0", "q8_0")
    )]
    models.clear()
    monkeypatch.setenv("LCPU_MODEL", str(tiny_gguf))  # a setting for when the command line names no model
    tests("--shape smollm2-135m -p 4 -n 0")
    assert [model.name for model in models] == ["random-smollm2-135m-q4_0"]


def test_progress_is_on_stderr(models, capsys):
    assert exit_code(["bench", "-p", "4", "-n", "0", "-r", "2", "-t", "1", "--progress"]) == 0
    out, err = capsys.readouterr()
    assert [re.sub("^lcpu bench: llama .* F16, 1 thread, ", "", line) for line in err.splitlines()] == [
        "test 1/1, pp4: warm-up", "test 1/1, pp4: run 1/2", "test 1/1, pp4: run 2/2"]  # fmt: skip
    assert out.startswith("| model ")


def test_delay(models, monkeypatch):
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    assert exit_code(["bench", "-p", "4", "-n", "2", "--delay", "3"]) == 0
    assert rests == [3, 3]


# ---- errors ----


@pytest.mark.parametrize(("arguments", "message"), [
    ("-p many", "Invalid value for '-p': 'many' is not a number, a list such as"),
    ("-t 600", "600 threads: choose 1 to 512"),
    ("-t -2", "Invalid value for '-t': -2 is not -1 to "),
    ("-ub 513", "Invalid value for '-ub': 513 is not 1 to 512"),
    ("-b 0", "Invalid value for '-b': 0 is not 1 to "),
    ("-tgb 0", "Invalid value for '-tgb': 0 is not 1 to 512"),
    ("-pg 5", "Invalid value for '-pg': '5' is not PROMPT,GENERATED"),
    ("-r 0", "Invalid value for '-r'"),
    ("-o xml", "Invalid value for '-o'"),
    ("-p 0 -n 0 -pg 0,0", "nothing to measure: -p, -n, -pg and -tgb are all 0 or left out"),
    ("--type q4_0", "--type is the type of random weights: name their shape with --shape"),
    ("--shape llama9", "no shape is named 'llama9': choose one of smollm2-135m, "),
    ("--shape llama3-8b --type q4", "no type is named 'q4': choose one of f32, "),
    ("--json -o csv", "--json is short for -o json, which is not -o csv: leave one out"),
    ("--nonsense", "No such option"),
])
def test_wrong_values(models, refused, arguments, message):
    refused(arguments, message)
    assert models == []


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"GGUF"])
def test_a_bad_file_shows_before_anything_is_measured(models, capsys, tiny_gguf, tmp_path, content):
    bad = tmp_path / "bad.gguf"
    if content is not None:
        bad.write_bytes(content)
    assert exit_code(["bench", "-m", str(tiny_gguf), "-m", str(bad)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lcpu: error: {bad}: ")
    assert err.count("\n") == 1
    assert models == []


@pytest.mark.parametrize("output", ["md", "json"])
def test_interrupted_it_keeps_what_it_has(models, capsys, monkeypatch, output):
    monkeypatch.setattr(FakeModel, "error_after", 20)
    assert exit_code(["bench", "-p", "4", "-n", "64", "-o", output]) == 130
    out, err = capsys.readouterr()
    assert err == ""
    if output == "json":
        assert [row["test"] for row in json.loads(out)] == ["pp4"]
    else:
        assert out.endswith("build: lcpu 0.1.0\n")
        assert "pp4 |" in out
        assert "tg64" not in out
    assert models[0].closed


def test_a_model_that_cannot_run_prints_no_table(models, capsys, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise LcpuError("x.gguf: cannot be run")

    monkeypatch.setattr("lcpu.engine.model.Model", refuse)
    assert exit_code(["bench", "-o", "json"]) == 1
    assert capsys.readouterr() == ("", "lcpu: error: x.gguf: cannot be run\n")


# ---- all of it ----


def test_the_embedded_model_in_a_process_of_its_own(lcpu):
    done = lcpu("bench", *"-t 1 -p 16 -n 8 -pg 8,4 -tgb 2 -d 0,600 -r 2 -o json".split())
    assert done.returncode == 0
    assert done.stderr in ("", "compiling kernels for this processor (first run only)...\n")
    rows = json.loads(done.stdout)
    tests = ["pp16", "tg8", "pp8+tg4", "tgB2"]
    assert [row["test"] for row in rows] == [*tests, *(f"{test} @ d600" for test in tests)]
    for row in rows:
        figures = [row[name] for name in ("avg_ns", "avg_ts", "memory_bandwidth", "int8_peak", "float32_peak")]
        assert min(figures + row["samples_ts"]) > 0
        assert row["n_threads"] == 1
        shares = [row[name] for name in ("bandwidth_share", "peak_share") if row[name] is not None]
        assert len(shares) == (0 if "+" in row["test"] else 1)
        assert all(0 < share < 20 for share in shares)  # it fits in caches, which may be faster than memory


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--no-memory-check"], False)])
def test_the_memory_check_can_be_left_out(models, flags, expected):
    assert exit_code(["bench", "-p", "4", "-n", "0", "-r", "1", *flags]) == 0
    assert [model.check_memory for model in models] == [expected]
