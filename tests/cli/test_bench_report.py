"""Every output of `lcpu bench` says the same, in its own format."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from dataclasses import replace

import pytest

from lcpu import __version__
from lcpu.cli.bench_report import FORMATS, Report, Row, Run, columns
from lcpu.engine.benchmark import Case, Result, batch_cost
from lcpu.engine.benchmark_speculation import speculative
from lcpu.kernels.probe import Peaks

LLAMA_BENCH = (  # its fields that mean something here, in its order
    "build_commit cpu_info backends model_filename model_type model_size model_n_params n_batch n_ubatch n_threads "
    "type_k type_v n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts"
).split()
OURS = ("test isa load_seconds step_tokens step_cost draft_tokens acceptance speed_up pl is_pp_shared n_kv t_pp "
        "speed_pp t_tg speed_tg bandwidth_share peak_share memory_bandwidth int8_peak "
        "float32_peak spread disturbed").split()  # fmt: skip
TEXTS = {"build_commit", "cpu_info", "backends", "model_filename", "model_type", "type_k", "type_v", "test_time",
         "test", "isa"}  # fmt: skip
FILE = "it's \"a\", model.gguf"


def run(threads: int = 1) -> Run:
    peaks = Peaks(threads, 12.34e9, 500.2e9, 100e9, 200e9)
    return Run(FILE, "llama 1.1B Q4_0", 637_000_000, 1_100_048_384, "A Processor é", "avx2", threads, 0.5, peaks)


ROWS = [
    Row(run(), Result(Case(prompt=512), (2_000_000_000, 4_000_000_000), None, None, 0.5004), 2048, 512, "2026-01-02"),
    Row(run(), Result(Case(generated=128, depth=64), (1_000_000_000,), None, 0.931, None), 2048, 512, "2026-01-02"),
    Row(run(2), Result(batch_cost(4), (1_000_000_000, 1_000_000_000), 1.625, 0.7, None), 64, 32, "2026-01-03"),
]
DRAFTED = [
    Row(run(), Result(speculative(32, 0, 0.8), (500_000_000, 500_000_000), speed_up=1.625), 2048, 512, "2026-01-02"),
    Row(run(), Result(speculative(32, 4, 1.0), (250_000_000,), speed_up=3.5), 2048, 512, "2026-01-02"),
]
MANY = [
    Row(run(), Result(Case(512, 128, sequences=8), (10_000_000_000, 12_000_000_000),
                      prompt_samples_ns=(8_000_000_000, 8_384_000_000)), 2048, 512, "2026-01-02"),
    Row(run(), Result(Case(512, 0, sequences=4, shared_prompt=True), (2_000_000_000,),
                      prompt_samples_ns=(2_000_000_000,)), 2048, 512, "2026-01-02"),
]  # fmt: skip


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]):
    """written(output, optional columns, rows) -> what goes to stdout, and nothing may go to stderr."""

    def write(output: str, optional: tuple[str, ...] = (), rows: list[Row] = ROWS, parallel: bool = False) -> str:
        report = Report(FORMATS[output], columns(optional, parallel=parallel))
        for row in rows:
            report.add(row)
        report.end()
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return write


def check(rows: list[dict]) -> None:
    """Figures of ROWS, wherever they were read from."""
    assert [row["test"] for row in rows] == ["pp512", "tg128 @ d64", "tgB4"]
    assert [(int(row["n_prompt"]), int(row["n_gen"]), int(row["n_depth"])) for row in rows] == [
        (512, 0, 0), (0, 128, 64), (0, 128, 0)]  # fmt: skip
    assert [int(row["n_threads"]) for row in rows] == [1, 1, 2]
    assert [int(row["avg_ns"]) for row in rows] == [3_000_000_000, 1_000_000_000, 1_000_000_000]
    assert [float(row["avg_ts"]) for row in rows] == pytest.approx([192, 128, 128])
    assert [float(row["stddev_ts"]) for row in rows] == pytest.approx([128 / 2**0.5, 0, 0])
    assert {row["model_filename"] for row in rows} == {FILE}
    assert {row["cpu_info"] for row in rows} == {"A Processor é"}
    assert {row["build_commit"] for row in rows} == {__version__}


def test_json(written):
    rows = json.loads(written("json"))
    check(rows)
    assert list(rows[0]) == [*LLAMA_BENCH, *OURS, "samples_ns", "samples_ts"]
    assert rows[0]["samples_ns"] == [2_000_000_000, 4_000_000_000]
    assert rows[0]["samples_ts"] == [256, 128]
    assert [row["step_cost"] for row in rows] == [None, None, 1.625]
    assert [row["step_tokens"] for row in rows] == [None, None, 4]
    assert {row[name] for row in rows for name in ("draft_tokens", "acceptance", "speed_up")} == {None}
    assert [row["bandwidth_share"] for row in rows] == [None, 0.931, 0.7]
    assert [row["peak_share"] for row in rows] == [0.5004, None, None]
    assert [row["spread"] for row in rows] == [pytest.approx(2 / 3), None, 0]
    assert [row["disturbed"] for row in rows] == [1, 0, 0]
    assert (rows[0]["memory_bandwidth"], rows[0]["int8_peak"], rows[0]["float32_peak"]) == (12.34e9, 500.2e9, 100e9)


def test_jsonl(written):
    lines = written("jsonl").splitlines()
    assert [json.loads(line) for line in lines] == json.loads(written("json"))


def test_csv(written):
    text = written("csv")
    assert text.splitlines()[0] == ",".join([*LLAMA_BENCH, *OURS])  # not quoted, as in llama-bench
    assert text.splitlines()[1].startswith('"')
    rows = list(csv.DictReader(io.StringIO(text)))
    check(rows)
    assert [row["step_cost"] for row in rows] == ["", "", "1.625"]


def test_sql(written):
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    for _ in range(2):  # the table may be there from an earlier run
        database.executescript(written("sql"))
    rows = [dict(row) for row in database.execute("SELECT * FROM lcpu_bench")]
    assert rows[:3] == rows[3:]
    check(rows[:3])
    assert [row["step_cost"] for row in rows[:3]] == [None, None, 1.625]
    assert list(rows[0]) == [*LLAMA_BENCH, *OURS]
    types = {row["name"]: row["type"] for row in database.execute("PRAGMA table_info(lcpu_bench)")}
    assert {name for name, kind in types.items() if kind == "TEXT"} == TEXTS
    assert types["avg_ns"] == types["model_size"] == types["n_prompt"] == "INTEGER"
    assert types["avg_ts"] == types["step_cost"] == types["bandwidth_share"] == "REAL"


def check_drafts(rows: list[dict]) -> None:
    """Figures of DRAFTED."""
    assert [row["test"] for row in rows] == ["tg32 a0.8 k*", "tg32 a1 k4"]
    assert [int(row["draft_tokens"]) for row in rows] == [0, 4]
    assert [float(row["acceptance"]) for row in rows] == [0.8, 1]
    assert [float(row["speed_up"]) for row in rows] == [1.625, 3.5]
    assert [float(row["avg_ts"]) for row in rows] == [64, 128]
    assert {row[name] for row in rows for name in ("step_cost", "bandwidth_share", "peak_share")} <= {None, ""}


def test_drafts_in_every_format(written):
    rows = json.loads(written("json", rows=DRAFTED))
    check_drafts(rows)
    assert [json.loads(line) for line in written("jsonl", rows=DRAFTED).splitlines()] == rows
    check_drafts(list(csv.DictReader(io.StringIO(written("csv", rows=DRAFTED)))))
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    database.executescript(written("sql", rows=DRAFTED))
    check_drafts([dict(row) for row in database.execute("SELECT * FROM lcpu_bench")])


def test_many_sequences_in_the_table(written):
    """llama-batched-bench's columns: times are means, and a prompt that all share counts once."""
    lines = written("md", rows=MANY, parallel=True).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert cells(lines[0]) == ["model", "size", "params", "backend", "threads", "PP", "TG", "B", "N_KV", "T_PP s",
                               "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s"]  # fmt: skip
    assert [cells(line)[5:] for line in lines[2:4]] == [
        ["512", "128", "8", "5120", "8.192", "500.00", "2.808", "364.67", "11.000", "469.33"],
        ["512", "0", "4", "512", "2.000", "256.00", "0.000", "", "2.000", "256.00"],
    ]


def test_many_sequences_for_programs(written):
    first, second = json.loads(written("json", rows=MANY, parallel=True))
    assert [first[name] for name in ("test", "pl", "is_pp_shared", "n_kv", "n_prompt", "n_gen")] == [
        "pp512+tg128 x8", 8, 0, 5120, 512, 128]  # fmt: skip
    assert (first["t_pp"], first["speed_pp"], first["t_tg"]) == pytest.approx((8.192, 500, 2.808))
    assert [second[name] for name in ("test", "pl", "is_pp_shared", "n_kv", "speed_tg")] == [
        "pp512 x4 shared", 4, 1, 512, None]  # fmt: skip
    assert first.keys() == json.loads(written("jsonl").splitlines()[0]).keys()


def test_drafts_in_the_table(written):
    lines = written("md", ("speed-up",), DRAFTED).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert cells(lines[0])[5:8] == ["test", "t/s", "speed-up"]
    assert [cells(line)[5:8] for line in lines[2:4]] == [
        ["tg32 a0.8 k*", "64.00 ± 0.00", "1.62"],
        ["tg32 a1 k4", "128.00 ± 0.00", "3.50"],
    ]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table(written):
    lines = written("md").splitlines()
    assert len({len(line) for line in lines[:5]}) == 1  # the columns are in line
    titles = ["model", "size", "params", "backend", "threads", "test", "t/s", "of bandwidth", "of peak"]
    assert cells(lines[0]) == titles
    assert set("".join(cells(lines[1]))) == set("-:")
    assert [cells(line) for line in lines[2:5]] == [
        ["llama 1.1B Q4_0", "607.49 MiB", "1.10 B", "avx2", "1", "pp512", "192.00 ± 90.51", "", "50.0%"],
        ["llama 1.1B Q4_0", "607.49 MiB", "1.10 B", "avx2", "1", "tg128 @ d64", "128.00 ± 0.00", "93.1%", ""],
        ["llama 1.1B Q4_0", "607.49 MiB", "1.10 B", "avx2", "2", "tgB4", "128.00 ± 0.00", "70.0%", ""],
    ]
    assert lines[5:] == [
        "",
        "measured, 1 thread: 12.3 GB/s from memory, 500 int8 and 100 float32 Gop/s",
        "measured, 2 threads: 12.3 GB/s from memory, 500 int8 and 100 float32 Gop/s",
        "disturbed: pp512 with 1 thread: the runs differ by more than 10%; measure again when nothing else uses the "
        "machine",
        f"build: lcpu {__version__}",
    ]


def test_the_last_peaks_are_the_best(written):
    """They are measured between tests, and the footer has a line for each number of threads."""
    better = replace(run(), peaks=replace(run().peaks, bandwidth=20e9))
    lines = written("md", rows=[ROWS[1], replace(ROWS[1], run=better)]).splitlines()
    assert lines[4:] == ["", "measured, 1 thread: 20.0 GB/s from memory, 500 int8 and 100 float32 Gop/s",
                         f"build: lcpu {__version__}"]  # fmt: skip


def test_a_bandwidth_that_was_not_measured(written):
    rows = [replace(ROWS[1], run=replace(run(), peaks=replace(run().peaks, bandwidth=0.0)))]
    assert written("md", rows=rows).splitlines()[4] == (
        "measured, 1 thread: too little memory is left to measure its bandwidth, 500 int8 and 100 float32 Gop/s")
    assert json.loads(written("json", rows=rows))[0]["memory_bandwidth"] is None


@pytest.mark.parametrize(("slowest", "note"), [(109, []), (111, ["pp8 with 1 thread"])])
def test_disturbed_runs(written, slowest, note):
    """Of tests with several runs; each is named once."""
    rows = [replace(ROWS[0], result=Result(Case(prompt=8), (100, 100, slowest))), ROWS[1]] * 2
    found = [line for line in written("md", rows=rows).splitlines() if line.startswith("disturbed: ")]
    assert [line.split(": ")[1] for line in found] == note


def test_columns_for_what_was_asked(written):
    lines = written("md", ("n_batch", "n_ubatch", "step cost")).splitlines()
    assert cells(lines[0])[4:9] == ["threads", "n_batch", "n_ubatch", "test", "t/s"]
    assert cells(lines[2])[5:7] == ["2048", "512"]
    assert cells(lines[4])[5:10] == ["64", "32", "tgB4", "128.00 ± 0.00", "1.62"]


def test_rows_appear_as_they_are_measured(capsys):
    for output in FORMATS:
        report = Report(FORMATS[output], columns())
        assert capsys.readouterr().out == ""
        for row in ROWS:
            report.add(row)
            assert row.result.case.name in capsys.readouterr().out, output


@pytest.mark.parametrize("output", FORMATS)
def test_nothing_measured_writes_nothing(written, output):
    assert written(output, rows=[]) == ""
