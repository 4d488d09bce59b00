"""`lcpu bench --spec`: generation with drafts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lcpu.cli.main import exit_code

DRAFT_MODEL = Path(__file__).parents[2] / "models" / "stories-draft.gguf"
FEW = "--spec -n 4 --draft-n 2 --acceptance 1"
RATES = [0, 0.5, 0.7, 0.8, 0.9, 1]


def test_defaults(models, capsys):
    """Every length of drafts with every acceptance, and nothing else."""
    assert exit_code(["bench", "--spec", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["draft_tokens"], row["acceptance"]) for row in rows] == [
        (draft, rate) for draft in range(17) for rate in RATES]  # fmt: skip
    assert [row["test"] for row in rows[4:8]] == ["tg32 a0.9 k*", "tg32 a1 k*", "tg32 a0 k1", "tg32 a0.5 k1"]
    for row in rows:
        assert (row["n_prompt"], row["n_gen"], len(row["samples_ns"])) == (0, 32, 2)
        assert row["speed_up"] > 0
        assert (row["step_cost"], row["bandwidth_share"], row["peak_share"]) == (None, None, None)
    (model,) = models
    assert model.context == 32 + 4  # a prompt that drafts need
    assert {1, 2, 17} <= set(model.sizes)
    assert model.closed


@pytest.mark.parametrize(("arguments", "expected"), [
    ("-n 4 --draft-n 2 --acceptance 1", ["tg4 a1 k2"]),
    ("-n 4,8 --draft-n 2 --acceptance 1", ["tg4 a1 k2", "tg8 a1 k2"]),
    ("-n 0,4 --draft-n 2 --acceptance 1", ["tg4 a1 k2"]),
    ("-n 4 --draft-n 0,2-8*2,16 --acceptance 0.75", [f"tg4 a0.75 k{draft}" for draft in "* 2 4 8 16".split()]),
    ("-n 4 --draft-n 1 --acceptance .5,1 --draft-n 3 --acceptance 0", [
        f"tg4 a{rate} k{draft}" for draft in (1, 3) for rate in ("0.5", "1", "0")]),
    ("-n 4 --draft-n 2 --acceptance 1 -p 0 -d 0 -t 1,2", ["tg4 a1 k2"] * 2),
])  # fmt: skip
def test_rows(tests, arguments, expected):
    assert tests("--spec " + arguments) == expected


def test_acceptance_is_what_becomes_of_drafts(tests, models):
    """A model that computes nothing always says token 0, so drafts are right or wrong just as they are meant to be."""
    tests("--spec -n 12 --draft-n 3 --acceptance 1 --no-warmup")
    tests("--spec -n 12 --draft-n 3 --acceptance 0 --no-warmup")
    assert [model.sizes.count(4) for model in models] == [3, 9]  # 4 tokens a step; 1, as long as there is room for 4


def test_the_number_of_runs(models, capsys):
    assert exit_code(["bench", *FEW.split(), "-r", "3", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["samples_ns"]) == 3


@pytest.mark.parametrize("spec", [True, False])
def test_the_table_has_a_column_for_it(models, capsys, spec):
    assert exit_code(["bench", *(FEW if spec else "-p 4 -n 0").split()]) == 0
    titles = [cell.strip() for cell in capsys.readouterr().out.splitlines()[0].split("|")]
    assert ("speed-up" in titles) == spec


def test_progress_names_the_case(models, capsys):
    assert exit_code(["bench", *FEW.split(), "-r", "1", "-t", "1", "--progress"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(", ")[2] for line in lines][-2:] == ["tg4 a1 k2: warm-up", "tg4 a1 k2: run 1/1"]


# ---- a draft model ----


def test_a_draft_model_is_beside_each_model(tests, models, tiny_gguf):
    tests(f"{FEW} -m {tiny_gguf} -t 1,2 --model-draft {DRAFT_MODEL}")
    assert [model.name for model in models] == ["tiny.gguf", "stories-draft.gguf"] * 2
    for target, draft in (models[:2], models[2:]):
        assert draft.team is target.team
        assert (draft.context, draft.threads) == (target.context, target.threads)
        assert 1 in draft.sizes, "it drafts one token after another"
    assert models[0].team is not models[2].team


def test_a_draft_model_of_the_environment(tests, models, monkeypatch):
    monkeypatch.setenv("LCPU_MODEL_DRAFT", str(DRAFT_MODEL))
    assert tests("-p 4 -n 0") == ["pp4"]
    assert [model.name for model in models] == ["stories.gguf"], "drafts are measured where --spec asks for it"
    tests(FEW)
    assert [model.name for model in models[1:]] == ["stories.gguf", "stories-draft.gguf"]


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_bad_draft_file_shows_before_anything_is_loaded(models, capsys, tmp_path, content):
    bad = tmp_path / "bad.gguf"
    if content is not None:
        bad.write_bytes(content)
    assert exit_code(["bench", *FEW.split(), "-md", str(bad)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lcpu: error: {bad}: ")
    assert err.count("\n") == 1
    assert models == []


# ---- errors ----


@pytest.mark.parametrize(("arguments", "message"), [
    ("--acceptance 0.8", "--acceptance, --draft-n and -md belong to --spec"),
    ("--draft-n 4", "--acceptance, --draft-n and -md belong to --spec"),
    (f"-md {DRAFT_MODEL}", "--acceptance, --draft-n and -md belong to --spec"),
    ("--spec --acceptance 1.5", "Invalid value for '--acceptance': '1.5' is not a share, 0 to 1, such as 0.8"),
    ("--spec --acceptance 0.8,most", "Invalid value for '--acceptance': 'most' is not a share"),
    ("--spec --draft-n 17", "Invalid value for '--draft-n': 17 is not 0 to 16"),
    ("--spec --draft-n 4-1", "Invalid value for '--draft-n': '4-1' goes down"),
    ("--spec --draft-n few", "Invalid value for '--draft-n': 'few' is not a number, a list such as"),
    ("--spec -n 0", "nothing to measure: "),
    *((f"--spec {flag}", "--spec measures generation with drafts and nothing else: leave out -p, -pg, -tgb and -d")
      for flag in ("-p 8", "-pg 8,4", "-tgb 2", "-d 16")),
])  # fmt: skip
def test_wrong_values(models, refused, arguments, message):
    refused(arguments, message)
    assert models == []


# ---- all of it ----


def test_the_embedded_model_and_its_draft_model_in_a_process_of_their_own(lcpu):
    done = lcpu("bench", *f"--spec -t 1 -n 8 --draft-n 0,4 --acceptance 0.8,1 -md {DRAFT_MODEL} -o json".split())
    assert done.returncode == 0
    assert done.stderr in ("", "compiling kernels for this processor (first run only)...\n")
    rows = json.loads(done.stdout)
    assert [row["test"] for row in rows] == ["tg8 a0.8 k*", "tg8 a1 k*", "tg8 a0.8 k4", "tg8 a1 k4"]
    assert min(row["speed_up"] for row in rows) > 0
    assert min(sample for row in rows for sample in row["samples_ns"]) > 0
