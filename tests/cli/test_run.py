"""`lcpu run` on a scripted engine: what it asks of the engine, and what it prints where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lcpu.cli.main import exit_code
from lcpu.cli.report import Timings
from lcpu.engine.speculation import Figures

TEXT = " there was a café."
SPEEDS = "load 0.25 s · prompt 3 tokens, 6.0 tok/s · generation 6 tokens, 12.0 tok/s\n"
FIGURES = Figures(drafted=80, accepted=60, drafts=25, seconds=2.0, plain_seconds=3.24)


def test_text_on_stdout_and_speeds_on_stderr(engine, capsys):
    assert exit_code(["run", "-p", "hi"]) == 0
    assert capsys.readouterr() == (TEXT + "\n", SPEEDS)


@pytest.mark.parametrize("flag", ["--echo", "--display-prompt"])
def test_echo(engine, capsys, flag):
    assert exit_code(["run", "-p", "hi", flag]) == 0
    assert capsys.readouterr().out == "hi" + TEXT + "\n"


def test_no_echo_under_llama_cpp_s_name(engine, capsys):
    assert exit_code(["run", "-p", "hi", "--no-display-prompt"]) == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_pipe_is_the_prompt(engine, stdin):
    stdin("hi\n")
    assert exit_code(["run"]) == 0
    assert engine.LLM.streams[0][0] == [engine.BOS, *b"hi"]


def test_embedded_model_has_a_default_prompt(engine, stdin):
    stdin("", terminal=True)
    assert exit_code(["run"]) == 0
    assert engine.LLM.streams[0][0] == [engine.BOS, *b"Once upon a time"]
    assert engine.LLM.loads[0]["path"] is None


@pytest.mark.parametrize("terminal", [True, False])
def test_another_model_has_none(engine, capsys, stdin, terminal):
    stdin("", terminal=terminal)
    assert exit_code(["run", "-m", "x.gguf"]) == 2
    assert capsys.readouterr().err.startswith("lcpu: error: no prompt: give -p TEXT, -f FILE or a pipe")
    assert engine.LLM.loads == ()


def test_defaults_are_llama_cpp_s(engine):
    assert exit_code(["run", "-p", "hi"]) == 0
    assert engine.LLM.loads == ({"path": None, "threads": None, "context": None, "beside": None},)
    options = vars(engine.LLM.streams[0][1])
    assert 0 <= options.pop("seed") < 2**32
    assert options == {
        "max_tokens": -1,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "repeat_penalty": 1.0,
        "repeat_last_n": 64,
        "stop": (),
        "ignore_eos": False,
        "context_shift": False,
        "keep": 0,
    }


def test_flags_reach_the_engine(engine):
    flags = (
        "-m x.gguf -t 3 -c 64 -n 7 --temp 0 --top-k 5 --top-p 0.5 --min-p 0.25 --repeat-penalty 1.5 --repeat-last-n -1 "
        r"-s 42 -r \n --stop END --reverse-prompt User: --ignore-eos --context-shift --keep 9"
    )
    assert exit_code(["run", "-p", "hi", *flags.split()]) == 0
    assert engine.LLM.loads == ({"path": Path("x.gguf"), "threads": 3, "context": 64, "beside": None},)
    assert vars(engine.LLM.streams[0][1]) == {
        "max_tokens": 7,
        "temperature": 0.0,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.25,
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
        "seed": 42,
        "stop": ("\n", "END", "User:"),
        "ignore_eos": True,
        "context_shift": True,
        "keep": 9,
    }


def test_environment_twins_yield_to_the_command_line(engine, monkeypatch):
    twins = {"MODEL": "x.gguf", "THREADS": "3", "CONTEXT": "64", "N_PREDICT": "7", "TEMP": "0.5", "SEED": "9"}
    for name, value in twins.items():
        monkeypatch.setenv(f"LCPU_{name}", value)
    assert exit_code(["run", "-p", "hi", "-t", "1", "--temp", "0"]) == 0
    assert engine.LLM.loads == ({"path": Path("x.gguf"), "threads": 1, "context": 64, "beside": None},)
    options = engine.LLM.streams[0][1]
    assert (options.max_tokens, options.temperature, options.seed) == (7, 0.0, 9)


@pytest.mark.parametrize("flags", [["-t", "-1", "-c", "0"], ["-t", "0", "-c", "0"]])
def test_zero_is_the_engine_s_choice(engine, flags):
    assert exit_code(["run", "-p", "hi", *flags]) == 0
    assert engine.LLM.loads == ({"path": None, "threads": None, "context": None, "beside": None},)


def test_special_tokens_of_the_prompt_are_read(engine):
    assert exit_code(["run", "-p", "<s>hi"]) == 0
    assert engine.LLM.streams[0][0] == [engine.BOS, engine.BOS, *b"hi"]


def test_json_is_one_document_and_nothing_else(engine, capsys):
    engine.LLM.stages = (("compiling", 0, 1),)
    assert exit_code(["run", "-p", "hé", "-s", "5", "--json", "-v"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "prompt": "hé",
        "text": TEXT,
        "ids": [0, 1, 2, 3, 4, 5],
        "finish_reason": "stop",
        "model": "fake 1K F32",
        "path": None,
        "isa": "generic",
        "threads": 2,
        "context": 120,
        "seed": 5,
        "timings": {
            "load_seconds": 0.25,
            "prompt_tokens": 4,
            "reused_tokens": 0,
            "prompt_seconds": 0.5,
            "generated_tokens": 6,
            "generation_seconds": 0.5,
        },
        "speculation": {"drafted": 0, "accepted": 0, "acceptance_rate": 0, "mean_accepted": 0, "speed_up": 1},
    }


def test_verbose_describes_on_stderr(engine, capsys):
    assert exit_code(["run", "-p", "hi", "-v", "-t", "2", "-s", "5"]) == 0
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert err.splitlines() == [
        "model             fake 1K F32 (embedded)",
        "fake.block_count  3",
        "fake.layers       2 values",
        "simd path         generic (a test)",
        "threads           2 (as asked)",
        "context           120 tokens (the model's own, at most 32768 and what fits in memory)",
        "cache             8192 tokens (keys F16, values F16)",
        "drafts            from n-grams",
        "seed              5",
        SPEEDS.strip(),
    ]


def test_first_run_says_that_it_compiles(engine, capsys):
    engine.LLM.stages = (("loading", 0, 1), ("compiling", 0, 2), ("compiling", 1, 2), ("loading", 1, 1))
    assert exit_code(["run", "-p", "hi"]) == 0
    assert capsys.readouterr().err == "compiling kernels for this processor (first run only)...\n" + SPEEDS


def test_context_beyond_training_is_said(engine, capsys, monkeypatch):
    monkeypatch.setattr(engine.LLM, "trained_context", 100)
    assert exit_code(["run", "-p", "hi"]) == 0
    assert capsys.readouterr().err == "the model was trained for 100 tokens: past them, text may degrade\n" + SPEEDS


def test_full_context_is_said(engine, capsys, monkeypatch):
    monkeypatch.setattr(engine.Generation, "finish_reason", "context", raising=False)
    monkeypatch.setattr(engine.Generation, "__iter__", lambda self: iter(["a"]))
    monkeypatch.setattr(engine.Generation, "__setattr__", keep_finish_reason)
    assert exit_code(["run", "-p", "hi"]) == 0
    assert capsys.readouterr().err.startswith("the context of 120 tokens is full: the text ends here; -c N")


def keep_finish_reason(generation: object, name: str, value: object) -> None:
    if name != "finish_reason":
        object.__setattr__(generation, name, value)


def test_speeds_without_tokens_or_time_are_not_invented():
    assert Timings(1.0).line() == "load 1.00 s · prompt 0 tokens · generation 0 tokens"
    assert Timings(1.0, 5, 7, 0.5, 1, 0.0).line() == (
        "load 1.00 s · prompt 5 tokens, 10.0 tok/s (7 reused) · generation 1 tokens"
    )


# ---- drafts ----


@pytest.mark.parametrize(("flags", "draft"), [
    ("", "ngram"), ("--spec auto", "ngram"), ("--spec ngram", "ngram"), ("--spec none", None),
])  # fmt: skip
def test_what_drafts(engine, flags, draft):
    assert exit_code(["run", "-p", "hi", *flags.split()]) == 0
    assert engine.LLM.streams[0][2] == draft
    assert len(engine.LLM.loads) == 1


@pytest.mark.parametrize("flags", [["-md"], ["--spec", "auto", "--model-draft"]])
def test_a_draft_model_is_loaded_beside_the_model(engine, flags):
    assert exit_code(["run", "-p", "hi", "-t", "3", "-c", "64", *flags, "small.gguf"]) == 0
    target, draft = engine.LLM.loaded
    assert engine.LLM.loads == (
        {"path": None, "threads": 3, "context": 64, "beside": None},
        {"path": Path("small.gguf"), "threads": None, "context": target.context, "beside": target},
    )
    assert engine.LLM.streams[0][2] is draft
    assert engine.LLM.closed == (draft, target), "the draft model runs on the other one's threads"


@pytest.mark.parametrize("spec", ["ngram", "none"])
def test_a_draft_model_of_no_use(engine, capsys, spec):
    assert exit_code(["run", "-p", "hi", "-md", "small.gguf", "--spec", spec]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lcpu: error: -md names a draft model, but --spec {spec} has no use for it")
    assert err.count("\n") == 1
    assert engine.LLM.loads == ()


def test_unknown_ways_to_draft(engine, capsys):
    assert exit_code(["run", "-p", "hi", "--spec", "often"]) == 2
    assert capsys.readouterr().err.startswith("lcpu: error: Invalid value for '--spec'")


def test_drafts_of_the_environment(engine, monkeypatch):
    monkeypatch.setenv("LCPU_SPEC", "none")
    assert exit_code(["run", "-p", "hi"]) == 0
    assert exit_code(["run", "-p", "hi", "--spec", "ngram"]) == 0
    assert [draft for _, _, draft in engine.LLM.streams] == [None, "ngram"]


def test_a_draft_model_of_the_environment(engine, monkeypatch):
    monkeypatch.setenv("LCPU_MODEL_DRAFT", "small.gguf")
    assert exit_code(["run", "-p", "hi"]) == 0
    assert exit_code(["run", "-p", "hi", "-md", "smaller.gguf"]) == 0
    assert [load["path"] for load in engine.LLM.loads] == [None, Path("small.gguf"), None, Path("smaller.gguf")]
    assert [draft for _, _, draft in engine.LLM.streams] == [engine.LLM.loaded[1], engine.LLM.loaded[3]]


def test_the_command_line_wins_over_a_draft_of_the_environment(engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("LCPU_MODEL_DRAFT", "small.gguf")
        assert exit_code(["run", "-p", "hi", "--spec", "none"]) == 0
    with monkeypatch.context() as patch:
        patch.setenv("LCPU_SPEC", "none")
        assert exit_code(["run", "-p", "hi", "-md", "small.gguf"]) == 0
    assert [load["path"] for load in engine.LLM.loads] == [None, None, Path("small.gguf")]
    assert [draft for _, _, draft in engine.LLM.streams] == [None, engine.LLM.loaded[2]]


def test_what_drafts_brought_is_said(engine, capsys):
    engine.LLM.speculation = FIGURES
    assert exit_code(["run", "-p", "hi"]) == 0
    drafts = "60 of 80 drafted tokens accepted (75%), 2.4 a draft, 1.62 times as fast"
    assert capsys.readouterr() == (TEXT + "\n", f"{SPEEDS.rstrip()} · {drafts}\n")


def test_what_drafts_brought_is_in_the_json(engine, capsys):
    engine.LLM.speculation = FIGURES
    assert exit_code(["run", "-p", "hi", "--json", "-md", "small.gguf"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert document["speculation"] == {
        "drafted": 80, "accepted": 60, "acceptance_rate": 0.75, "mean_accepted": 2.4, "speed_up": 1.62}  # fmt: skip
    assert "speculation" not in document["timings"]


@pytest.mark.parametrize(("flags", "drafts"), [
    ("--spec none", "none"), ("--spec ngram", "from n-grams"), ("-md small.gguf", "from n-grams and fake 1K F32"),
])  # fmt: skip
def test_verbose_names_what_drafts(engine, capsys, flags, drafts):
    assert exit_code(["run", "-p", "hi", "-v", *flags.split()]) == 0
    assert f"drafts            {drafts}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "expected"), [([], True), (["--no-memory-check"], False)])
def test_the_memory_check_can_be_left_out(engine, flags, expected):
    assert exit_code(["run", "-p", "hi", "-md", "small.gguf", *flags]) == 0
    assert engine.LLM.memory_checks == (expected, expected)


def test_types_of_the_cache(engine, capsys, monkeypatch):
    assert exit_code(["run", "-p", "hi"]) == 0
    assert engine.LLM.cache_types == ("f16", "f16")
    assert exit_code(["run", "-p", "hi", "-ctk", "q8_0", "--cache-type-v", "f16"]) == 0
    assert engine.LLM.cache_types == ("q8_0", "f16")
    monkeypatch.setenv("LCPU_CACHE_TYPE_V", "q8_0")
    assert exit_code(["run", "-p", "hi", "-v"]) == 0
    assert engine.LLM.cache_types == ("f16", "q8_0")
    assert "cache             8192 tokens (keys F16, values Q8_0)\n" in capsys.readouterr().err
    assert exit_code(["run", "-p", "hi", "-ctk", "q4_0"]) == 2
