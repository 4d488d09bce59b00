"""`lcpu run --chat` on a scripted engine."""

from __future__ import annotations

import json

import pytest

from lcpu.cli.main import exit_code
from lcpu.engine.speculation import Figures

REPLY = " there was a café."


def asked(engine) -> list[str]:
    """The conversations that the engine was asked to continue."""
    return [engine.prompt_of(ids) for ids, _, _ in engine.LLM.streams]


def test_lines_of_a_pipe_are_turns(engine, stdin, capsys):
    stdin("one\n\ntwo")
    assert exit_code(["run", "--chat", "-sys", "be brief"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{REPLY}\n{REPLY}\n"
    assert asked(engine) == [
        "system:be brief\nuser:one\n",
        f"system:be brief\nuser:one\nassistant:{REPLY}\nuser:two\n",
    ]
    assert err.startswith("load 0.25 s · prompt ")
    assert "generation 12 tokens" in err
    assert err.count("\n") == 1


def test_a_pipe_from_windows(engine, stdin):
    stdin(b"\xef\xbb\xbfone\r\n\r\ntwo\r\n")
    assert exit_code(["run", "--chat"]) == 0
    assert asked(engine) == ["user:one\n", f"user:one\nassistant:{REPLY}\nuser:two\n"]


def test_bytes_that_are_not_utf8_are_replaced(engine, stdin):
    stdin("caf\udce9\n".encode("utf-8", "surrogateescape"))
    engine.sys.stdin.reconfigure(errors="replace")  # as console.prepare does
    assert exit_code(["run", "--chat"]) == 0
    assert asked(engine) == ["user:caf\ufffd\n"]


def test_bos_is_the_template_s_or_the_tokenizer_s_but_never_twice(engine, monkeypatch):
    assert exit_code(["run", "-cnv", "-p", "hi"]) == 0
    monkeypatch.setattr(engine.sys.modules["lcpu.engine.chat"], "render", lambda *_, **__: "user:hi\n")
    assert exit_code(["run", "-cnv", "-p", "hi"]) == 0
    assert [ids for ids, _, _ in engine.LLM.streams] == [[engine.BOS, *b"user:hi\n"]] * 2


@pytest.mark.parametrize(("flags", "told"), [
    ([], ""),
    (["--reasoning", "off"], "[enable_thinking: False]\n[thinking: False]\n"),
    (["-rea", "on"], "[enable_thinking: True]\n[thinking: True]\n"),
    (["--chat-template-kwargs", '{"reasoning_effort": "low", "enable_thinking": true}', "--reasoning", "off"],
     "[enable_thinking: False]\n[reasoning_effort: low]\n[thinking: False]\n"),
])
def test_switches_of_the_template(engine, stdin, flags, told):
    stdin("one\ntwo")
    assert exit_code(["run", "--chat", *flags]) == 0
    assert exit_code(["run", "--chat", "-p", "hi", *flags]) == 0
    assert asked(engine) == [f"{told}user:one\n", f"{told}user:one\nassistant:{REPLY}\nuser:two\n", f"{told}user:hi\n"]


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON: Expecting"), ("[1]", "is no JSON object, such as")])
def test_wrong_switches(engine, capsys, text, message):
    assert exit_code(["run", "--chat", "-p", "hi", "--chat-template-kwargs", text]) == 2
    assert f"--chat-template-kwargs {message}" in capsys.readouterr().err


def test_a_reply_of_gpt_oss_is_taken_apart(engine, stdin, monkeypatch, capsys):
    reply = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes."
    monkeypatch.setattr(engine, "TEXT", [reply])
    stdin("one\ntwo")
    assert exit_code(["run", "--chat"]) == 0
    assert capsys.readouterr().out == f"{reply}\n{reply}\n"
    assert asked(engine)[1] == "user:one\nassistant:Yes.\nuser:two\n"


def test_commands(engine, stdin):
    stdin("/system be brief\none\n/reset\ntwo\n/system\n/reset\n/etc is a folder\n/exit\nnever\n")
    assert exit_code(["run", "--chat"]) == 0
    assert asked(engine) == [
        "system:be brief\nuser:one\n",
        "system:be brief\nuser:two\n",
        "user:/etc is a folder\n",
    ]


def test_prompt_without_a_terminal_is_the_one_turn(engine, stdin, capsys):
    stdin("not read\n")
    assert exit_code(["run", "--chat", "-p", "hi"]) == 0
    assert asked(engine) == ["user:hi\n"]
    assert capsys.readouterr().out == REPLY + "\n"


def test_prompt_at_a_terminal_is_the_first_turn(engine, stdin, capsys):
    stdin("two\n", terminal=True)
    assert exit_code(["run", "--chat", "-p", "one"]) == 0
    assert asked(engine) == ["user:one\n", f"user:one\nassistant:{REPLY}\nuser:two\n"]
    out, err = capsys.readouterr()
    assert out == f"{REPLY}\n{REPLY}\n", "the prompt sign does not go to a redirected stdout"
    assert "> " in err


def test_json_is_one_turn(engine, stdin, capsys):
    stdin("hi\n")
    assert exit_code(["run", "--chat", "--json", "-sys", "be brief"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["text"], err) == (REPLY, "")
    assert asked(engine) == ["system:be brief\nuser:hi\n"]


def test_json_at_a_terminal_needs_a_prompt(engine, stdin, capsys):
    stdin("", terminal=True)
    assert exit_code(["run", "--chat", "--json"]) == 2
    assert "no prompt" in capsys.readouterr().err


def test_model_without_a_template(engine, stdin, capsys):
    engine.LLM.chat_template = None
    stdin("hi\n")
    assert exit_code(["run", "--chat"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lcpu: error: this model is not made for chat (no chat template)")
    engine.LLM.knows_chatml = True
    stdin("hi\n")
    assert exit_code(["run", "--chat"]) == 0


def test_a_first_message_that_is_too_long(engine, stdin, capsys):
    stdin("long " * 30 + "\n")
    assert exit_code(["run", "--chat"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("lcpu: error: the message makes a prompt of 157 tokens, and the context has 120: shorten it, or set "
                   "a larger context with -c N\n")  # fmt: skip


def test_full_context_ends_a_pipe(engine, stdin, capsys):
    stdin("one\n" + "long " * 30 + "\n")
    assert exit_code(["run", "--chat"]) == 1
    out, err = capsys.readouterr()
    assert out == REPLY + "\n"
    assert err.startswith("lcpu: error: the context of 120 tokens is full; /reset forgets the conversation")


def test_full_context_costs_only_the_turn_at_a_terminal(engine, stdin, capsys):
    stdin("one\n" + "long " * 30 + "\n/reset\ntwo\n", terminal=True)
    assert exit_code(["run", "--chat"]) == 0
    assert asked(engine) == ["user:one\n", "user:two\n"]
    assert "lcpu: error: the context of 120 tokens is full; /reset forgets" in capsys.readouterr().err


def test_commands_are_confirmed_at_a_terminal_only(engine, stdin, capsys):
    for terminal in (True, False):
        stdin("/system be brief\n/system\n/reset\n", terminal=terminal)
        assert exit_code(["run", "--chat"]) == 0
        err = capsys.readouterr().err
        confirmed = ["the system prompt is set", "the system prompt is removed", "the conversation is forgotten"]
        assert [line.removeprefix("> ") for line in err.splitlines() if "is " in line] == confirmed * terminal


@pytest.mark.parametrize("verbose", [False, True])
def test_speeds_of_every_turn_are_for_verbose(engine, stdin, capsys, verbose):
    stdin("one\ntwo\n")
    assert exit_code(["run", "--chat", *["-v"] * verbose]) == 0
    assert capsys.readouterr().err.count("generation ") == (3 if verbose else 1)


@pytest.mark.parametrize(("flags", "draft"), [([], "ngram"), (["--spec", "none"], None)])
def test_every_turn_has_drafts(engine, stdin, flags, draft):
    stdin("one\ntwo\n")
    assert exit_code(["run", "--chat", *flags]) == 0
    assert [each for _, _, each in engine.LLM.streams] == [draft] * 2


def test_a_draft_model_is_loaded_once_for_all_turns(engine, stdin):
    stdin("one\ntwo\n")
    assert exit_code(["run", "--chat", "-md", "small.gguf"]) == 0
    _, draft = engine.LLM.loaded
    assert [each for _, _, each in engine.LLM.streams] == [draft] * 2


def test_what_drafts_brought_adds_up(engine, stdin, capsys):
    engine.LLM.speculation = Figures(drafted=10, accepted=6, drafts=4, seconds=2.0, plain_seconds=3.0)
    stdin("one\ntwo\n")
    assert exit_code(["run", "--chat", "-v"]) == 0
    *_, one, two, total = capsys.readouterr().err.splitlines()
    for turn in (one, two):
        assert turn.endswith(" · 6 of 10 drafted tokens accepted (60%), 1.5 a draft, 1.50 times as fast")
    assert total.endswith(" · 12 of 20 drafted tokens accepted (60%), 1.5 a draft, 1.50 times as fast")
    engine.LLM.speculation = Figures(seconds=2.0, plain_seconds=2.0)
    stdin("one\ntwo\n")
    assert exit_code(["run", "--chat", "-v"]) == 0
    assert "draft" not in capsys.readouterr().err.partition("seed")[2]


# ---- conversations longer than the context ----


def test_a_full_context_ends_a_conversation(engine, capsys, stdin):
    stdin("a" * 50 + "\n" + "b" * 50 + "\n")
    assert exit_code(["run", "--chat"]) == 1
    assert "--context-shift drops its oldest half" in capsys.readouterr().err


@pytest.mark.parametrize(("keep", "kept"), [("4", 4), ("-1", 57)])
def test_context_shift(engine, stdin, monkeypatch, keep, kept):
    monkeypatch.setattr(engine.LLM.tokenizer, "add_bos", False, raising=False)
    stdin("a" * 50 + "\n" + "b" * 50 + "\n")
    assert exit_code(["run", "--chat", "--context-shift", "--keep", keep]) == 0
    first, second = (stream[0] for stream in engine.LLM.streams)
    assert len(second) == engine.LLM.context
    assert second[:kept] == first[:kept]
    assert bytes(second[-20:]).endswith(b"bbb\n")


def test_a_first_message_that_is_too_long_for_a_shift(engine, capsys, stdin):
    stdin("a" * 150 + "\n")
    assert exit_code(["run", "--chat", "--context-shift"]) == 1
    assert "the message makes a prompt of" in capsys.readouterr().err
