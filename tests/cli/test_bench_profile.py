"""`lcpu bench --profile`: which tests it profiles, and what its table and its JSON say."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lcpu.cli.bench_profile import FORMATS, ProfileRow
from lcpu.cli.bench_report import Report, Run
from lcpu.cli.main import exit_code
from lcpu.engine.benchmark import Case
from lcpu.engine.profile import Operation, Profile
from lcpu.kernels.probe import Peaks

RUN = Run("model.gguf", "llama 1.1B Q4_0", 637_000_000, 1_100_048_384, "A Processor", "avx2", 2, 0.5,
          Peaks(2, 12.34e9, 500.2e9, 100e9, 200e9))  # fmt: skip
OPERATIONS = (
    Operation("ffn_gate, ffn_up", 44, 22, 0.032, (0.03, 0.02), 400e6, 1.6e9),
    Operation("quantize", 89, 89, 0.005, (0.004, 0.001)),
)
PROMPT = Profile("prompt", 600, (150_000_000, 170_000_000), 4, OPERATIONS)
SMALL = Profile("generation", 2, (600_000,), 2, (Operation("rope", 44, 44, 0.00025, (0.00025,)),))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """written(output, rows...) -> what goes to stdout."""

    def write(output: str, *rows: ProfileRow) -> str:
        report = Report(FORMATS[output])
        for row in rows:
            report.add(row)
        report.end()
        return capsys.readouterr().out

    return write


ROWS = [ProfileRow(RUN, Case(600, 2), PROMPT, 2048, 512, "2026-01-02"),
        ProfileRow(RUN, Case(600, 2), SMALL, 64, 32, "2026-01-02")]  # fmt: skip


def test_the_table(written):
    """Waiting is the mean of all threads; the launch is what is left of the step."""
    first, second = written("md", *ROWS).split("\n\nllama")
    title, _, *lines = first.splitlines()
    assert title == "llama 1.1B Q4_0, avx2, 2 threads, pp600+tg2, prompt: 80.00 ms a step, 3750.00 t/s"
    assert len({len(line) for line in lines}) == 1
    assert cells(lines[0]) == ["operation", "count", "ms", "share", "GB/s", "Gop/s", "barriers", "waiting ms"]
    assert set("".join(cells(lines[1]))) == set("-:")
    assert [cells(line) for line in lines[2:]] == [
        ["ffn_gate, ffn_up", "44", "32.00", "40.0%", "12.5", "50.0", "22", "7.00"],
        ["quantize", "89", "5.00", "6.2%", "", "", "89", "2.50"],
        ["launch", "", "43.00", "53.8%", "", "", "", ""],
        ["step", "133", "80.00", "100.0%", "5.0", "20.0", "111", "9.50"],
    ]
    lines = second.splitlines()
    assert lines[0].endswith("2 threads, pp600+tg2, generation, -b 64 -ub 32: 0.3000 ms a step, 3333.33 t/s")
    assert cells(lines[4]) == ["rope", "44", "0.2500", "83.3%", "", "", "44", "0.0000"]
    assert lines[7:] == ["", "measured, 2 threads: 12.3 GB/s from memory, 500 int8 and 100 float32 Gop/s",
                         "disturbed: pp600+tg2 with 2 threads: the runs differ by more than 10%; measure again when "
                         "nothing else uses the machine", "build: lcpu 0.1.0"]  # fmt: skip


def test_json(written):
    first, second = json.loads(written("json", *ROWS))
    assert [json.loads(line) for line in written("jsonl", *ROWS).splitlines()] == [first, second]
    assert (first["test"], first["phase"], first["n_prompt"], first["n_threads"]) == ("pp600+tg2", "prompt", 600, 2)
    assert (first["steps"], first["step_ns"], first["launch_ns"]) == (4, 80_000_000, 43_000_000)
    assert (first["avg_ts"], first["samples_ns"]) == (3750, [150_000_000, 170_000_000])
    assert (first["spread"], first["disturbed"]) == (0.125, 1)
    assert (second["spread"], second["disturbed"]) == (None, 0)
    assert (first["memory_bandwidth"], first["int8_peak"]) == (12.34e9, 500.2e9)
    assert first["operations"] == [
        {"name": "ffn_gate, ffn_up", "count": 44, "ns": 32_000_000, "share": 0.4, "bytes": 400e6, "arithmetic": 1.6e9,
         "bytes_per_second": 12.5e9, "arithmetic_per_second": 50e9, "barriers": 22,
         "waiting_ns": 7_000_000, "work_ns": [30_000_000, 20_000_000]},
        {"name": "quantize", "count": 89, "ns": 5_000_000, "share": 0.0625, "bytes": None, "arithmetic": None,
         "bytes_per_second": None, "arithmetic_per_second": None, "barriers": 89,
         "waiting_ns": 2_500_000, "work_ns": [4_000_000, 1_000_000]},
    ]  # fmt: skip
    assert second["phase"] == "generation"


def test_every_test_is_profiled(models, capsys, monkeypatch):
    asked = []

    def profile(benchmark, model, case, repetitions, *, warm_up, progress):
        asked.append((case.name, model.threads, repetitions, warm_up))
        return [SMALL]

    monkeypatch.setattr("lcpu.engine.profile.profile", profile)
    assert exit_code("bench --profile --json -p 8 -n 4 -tgb 2 -d 0,16 -t 3 -r 2 --no-warmup".split()) == 0
    out, err = capsys.readouterr()
    tests = ["pp8", "tg4", "tgB2", "pp8 @ d16", "tg4 @ d16", "tgB2 @ d16"]
    assert [row["test"] for row in json.loads(out)] == tests
    assert asked == [(test, 3, 2, False) for test in tests]
    assert err == ""
    asked.clear()
    assert exit_code("bench --profile -np 2,3 -p 8 -n 4 -t 1".split()) == 0
    assert asked == [("pp8+tg4 x2", 1, 1, True), ("pp8+tg4 x3", 1, 1, True)]
    assert models[0].closed


@pytest.mark.parametrize(("arguments", "message"), [
    ("--spec", "--profile shows steps of prompts and of generation, and --spec mixes them: leave one out"),
    ("--plot x.svg", "--plot draws speeds, and not where the time goes: leave out --plot or --profile"),
    ("-o csv", "-o csv has no room for a profile: take -o md, json, jsonl"),
    ("-o sql", "-o sql has no room for a profile"),
    ("-o csv --json", "--json is short for -o json, which is not -o csv: leave one out"),
])
def test_what_a_profile_leaves_out(models, refused, arguments, message):
    refused(f"--profile {arguments}", message)
    assert models == []


def test_the_embedded_model_in_a_process_of_its_own(lcpu):
    done = lcpu("bench", *"--profile -t 1 -p 64 -n 8 -d 0,300 -r 2 --json".split())
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert [(row["test"], row["phase"], row["steps"]) for row in rows] == [
        ("pp64", "prompt", 2), ("tg8", "generation", 16), ("pp64 @ d300", "prompt", 2),
        ("tg8 @ d300", "generation", 16)]  # fmt: skip
    for row in rows:
        times = [operation["ns"] for operation in row["operations"]]
        names = {operation["name"] for operation in row["operations"]}
        assert names >= {"attention", "ffn_gate, ffn_up", "rope, store"}
        assert sum(times) + row["launch_ns"] == pytest.approx(row["step_ns"], abs=len(times) + 1)
        assert 0 < row["launch_ns"] < row["step_ns"] / 2
        assert sum(operation["share"] for operation in row["operations"]) < 1
