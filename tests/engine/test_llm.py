"""The Python API, as its users call it."""

from __future__ import annotations

import gc
import inspect
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lcpu
from lcpu import models
from lcpu.engine import threads as engine_threads
from lcpu.engine.llm import LLM
from lcpu.engine.model import LARGEST_DEFAULT_CONTEXT
from lcpu.kernels.errors import LcpuError

WriteLlama = Callable[..., Path]


def test_the_package_has_it() -> None:
    assert lcpu.LLM is LLM
    parameters = inspect.signature(LLM.generate).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert defaults == {"max_tokens": 128, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05,
                        "repeat_penalty": 1.0, "seed": None, "stop": (), "context_shift": False, "keep": 0,
                        "draft": "ngram"}


@pytest.mark.skipif(not models.path().exists(), reason="the embedded model is not there")
def test_the_embedded_model() -> None:
    with LLM.load() as llm:
        assert llm.description.startswith("llama ")
        words = "".join(llm.generate("Once upon a time", max_tokens=40, temperature=0.0)).split()
        assert len(words) > 12
        assert len(set(words)) > 8


def test_load(tiny_gguf: Path) -> None:
    for path in (tiny_gguf, str(tiny_gguf)):
        with LLM.load(path, threads=1) as llm:
            assert (llm.context, llm.threads) == (64, 1)
            assert llm.load_seconds > 0
            assert llm.description == "llama 36.9K F32"
            assert llm.metadata["general.name"] == "tiny"
            assert llm.chat_template is None
            assert llm.isa.name
            assert llm.isa.reason


@pytest.mark.skipif(not models.path().exists(), reason="the embedded model is not there")
def test_a_prompt_that_brings_its_own_bos(caplog: pytest.LogCaptureFixture) -> None:
    """It has two then, as in llama.cpp, with one warning."""
    with LLM.load() as llm, caplog.at_level(logging.WARNING, "lcpu"):
        bos, plain = llm.tokenizer.bos_id, llm.tokenize("Hello", add_bos=False)
        assert llm.tokenize("Hello", parse_special=True) == [bos, *plain]
        assert llm.tokenize("<s>Hello", add_bos=False, parse_special=True)[:1] == [bos]
        assert llm.tokenize("<s>Hello")[1] != bos
        assert not caplog.records
        for _ in range(2):
            assert llm.tokenize("<s>Hello", parse_special=True)[:2] == [bos, bos]
    (record,) = caplog.records
    assert record.getMessage().startswith("the prompt starts with <s>, and the model adds another one")


def test_load_reports_progress(tiny_gguf: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    LLM.load(tiny_gguf, threads=1, progress=lambda *call: calls.append(call)).close()
    loading = [(done, total) for stage, done, total in calls if stage == "loading"]
    assert len(loading) == 15  # matrices
    assert loading == sorted(loading)
    assert loading[-1][0] == loading[-1][1] > 0
    assert {stage for stage, _, _ in calls} <= {"loading", "compiling"}


def test_tokens(tiny_llm: LLM) -> None:
    ids = tiny_llm.tokenize("abc é")
    assert ids[0] == 1
    assert all(type(token) is int for token in ids)
    assert tiny_llm.tokenize("abc é", add_bos=False) == ids[1:]
    assert tiny_llm.detokenize(ids) == "abc é"
    assert tiny_llm.tokenize("</s>", add_bos=False, parse_special=True) == [2]
    assert len(tiny_llm.tokenize("</s>", add_bos=False)) > 1
    assert tiny_llm.detokenize([]) == ""


def test_logits(tiny_llm: LLM) -> None:
    logits = tiny_llm.logits([1, 2, 3])
    assert (logits.shape, logits.dtype) == ((3, 286), np.float32)
    assert logits.flags.owndata
    assert np.isfinite(logits).all()
    kept = logits.copy()
    other = tiny_llm.logits(np.array([5, 6, 7, 8]))  # anything that holds whole numbers
    assert np.array_equal(logits, kept)
    assert not np.array_equal(other[:3], logits)
    assert np.array_equal(tiny_llm.logits((1, 2)), logits[:2])


def test_logits_of_the_last_tokens(write_llama: WriteLlama) -> None:
    ids = np.random.default_rng(0).integers(0, 286, 700).tolist()
    with LLM.load(write_llama(context=700), threads=2) as llm:
        whole = llm.logits(ids)
        for first in (1, 511, 512, 513, 699):
            assert np.array_equal(llm.logits(ids, first), whole[first:])
        assert np.array_equal(llm.logits(ids[:600], 550), whole[550:600])
        assert np.array_equal(llm.logits(ids, 600), whole[600:])  # after what is in the cache
        assert np.array_equal(llm.logits(ids[300:400], 50), llm.logits(ids[300:400])[50:])
        for first in (-1, 700):
            with pytest.raises(LcpuError, match=f"first is {first}: with 700 tokens, it must be 0 to 699"):
                llm.logits(ids, first)


def test_logits_of_more_than_a_batch(write_llama: WriteLlama) -> None:
    ids = np.random.default_rng(0).integers(0, 286, 1100).tolist()
    with LLM.load(write_llama(context=1100), threads=2) as llm:
        whole = llm.logits(ids)
        assert whole.shape == (1100, 286)
        assert np.array_equal(llm.logits(ids[:512]), whole[:512])
        assert np.array_equal(llm.logits(ids[:1024]), whole[:1024])


def test_generate(tiny_llm: LLM) -> None:
    pieces = tiny_llm.generate("abc", max_tokens=10, seed=1)
    assert iter(pieces) is pieces
    text = "".join(pieces)
    assert text == "".join(tiny_llm.generate("abc", max_tokens=10, seed=1))
    assert text != "".join(tiny_llm.generate("abc", max_tokens=10, seed=2))
    greedy = "".join(tiny_llm.generate("abc", max_tokens=10, temperature=0.0))
    assert greedy == "".join(tiny_llm.generate("abc", max_tokens=10, top_k=1))


def test_generate_stops_at_a_string(tiny_llm: LLM) -> None:
    text = "".join(tiny_llm.generate("abc", max_tokens=20, seed=1))
    middle = text[len(text) // 2]
    before = text.partition(middle)[0]
    assert "".join(tiny_llm.generate("abc", max_tokens=20, seed=1, stop=[middle])) == before
    assert "".join(tiny_llm.generate("abc", max_tokens=20, seed=1, stop=middle)) == before


def test_a_table_longer_than_the_vocabulary(write_llama: WriteLlama) -> None:
    """Rows that no token has are padding: never chosen, though their logits are there."""
    output = np.zeros((300, 32), np.float32)
    with LLM.load(write_llama(vocab=300, tensors={"output.weight": output}), threads=1) as llm:
        assert llm.logits([1]).shape == (1, 300)
        generation = llm.stream([1, 299])
        "".join(generation)
        assert max(generation.generated_ids) < 286


@pytest.mark.parametrize(("ids", "message"), [
    ([], "the prompt is empty: give at least one token"),
    ([-1], "token -1 is not one of the model's 286"),
    ([1, 286], "token 286 is not one of the model's 286"),
    ([1, 2**70], "is not one of the model's 286"),
    ([1] * 65, "the prompt has 65 tokens and the context only 64: shorten it, or set a larger context"),
])
def test_bad_prompts(tiny_llm: LLM, ids: list[int], message: str) -> None:
    for call in (tiny_llm.logits, tiny_llm.stream):
        with pytest.raises(LcpuError, match=message) as caught:
            call(ids)
        assert "\n" not in str(caught.value)
    assert tiny_llm.logits([1] * 64).shape == (64, 286)


def test_ids_that_are_no_numbers(tiny_llm: LLM) -> None:
    for ids in ([1.5], ["1"], "abc", [None]):
        with pytest.raises(TypeError):
            tiny_llm.logits(ids)  # type: ignore[arg-type]


def test_generate_checks_before_it_iterates(tiny_llm: LLM) -> None:
    with pytest.raises(LcpuError, match=r"the prompt has .* tokens and the context only 64"):
        tiny_llm.generate("abc " * 100)
    with pytest.raises(LcpuError, match="temperature is -1"):
        tiny_llm.generate("abc", temperature=-1)
    with pytest.raises(LcpuError, match="a stop string is empty"):
        tiny_llm.generate("abc", stop=[""])


@pytest.mark.parametrize(("options", "message"), [
    ({"threads": 0}, "0 threads: choose 1 to 512"),
    ({"threads": -1}, "-1 threads"),
    ({"threads": 10000}, "10000 threads"),
    ({"context": 0}, "a context of 0 tokens: choose 1 to 16777216"),
    ({"context": -5}, "a context of -5 tokens"),
    ({"context": 2**24 + 1}, "a context of 16777217 tokens"),
    ({"context": 2**70}, "a context of 1180591620717411303424 tokens"),
])
def test_bad_options(tiny_gguf: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(LcpuError, match=message) as caught:
        LLM.load(tiny_gguf, **options)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LcpuError, match=r"absent\.gguf: no such file"):
        LLM.load(tmp_path / "absent.gguf")


def test_context(tiny_gguf: Path, write_llama: WriteLlama) -> None:
    with LLM.load(tiny_gguf, threads=1, context=1) as llm:
        assert llm.logits([5]).shape == (1, 286)
        with pytest.raises(LcpuError, match="the context only 1"):
            llm.logits([5, 6])
    with LLM.load(tiny_gguf, threads=1, context=300) as llm:  # more than it was trained for
        assert np.isfinite(llm.logits([5] * 300)).all()
    with LLM.load(write_llama(context=2**20), threads=1) as llm:
        assert llm.context == LARGEST_DEFAULT_CONTEXT == 32768


@pytest.fixture
def three_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_threads, "_processors", lambda: {0, 1, 2})


def test_closed(tiny_gguf: Path, three_processors: None) -> None:
    before = threading.active_count()
    with LLM.load(tiny_gguf, threads=3) as llm:
        assert threading.active_count() == before + 2
        ids = llm.tokenize("abc")
    assert threading.active_count() == before
    llm.close()  # again: harmless
    for call in (llm.logits, llm.stream):
        with pytest.raises(LcpuError, match="the model is closed: load it again"):
            call(ids)
    with pytest.raises(LcpuError, match="the model is closed: load it again"):
        llm.generate("abc")


def test_errors_close_what_was_opened(tiny_gguf: Path, three_processors: None) -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), LLM.load(tiny_gguf, threads=3):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        LLM.load(tiny_gguf, threads=3, progress=lambda stage, done, total: 1 // 0)
    assert threading.active_count() == before


def test_a_file_deleted_after_loading(tiny_gguf: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_gguf, tmp_path / "copy.gguf"))
    with LLM.load(path, threads=2) as llm:
        expected = llm.logits([1, 2, 3])
        try:
            path.unlink()
        except PermissionError:
            pytest.skip("this system does not delete files in use")
        assert np.array_equal(llm.logits([1, 2, 3]), expected)
        assert llm.logits([200, 201]).shape == (2, 286)


def test_two_models_at_once(tiny_gguf: Path, write_llama: WriteLlama) -> None:
    with LLM.load(tiny_gguf, threads=2) as one, LLM.load(write_llama("q8_0"), threads=2) as other:
        first, second = one.logits([1, 2]), other.logits([1, 2])
        assert np.array_equal(one.logits([1, 2]), first)
        assert np.array_equal(other.logits([1, 2]), second)
        assert not np.array_equal(first, second)


def test_a_model_that_nobody_has_ends_its_threads(tiny_gguf: Path, three_processors: None) -> None:
    before = threading.active_count()
    gc.collect()
    gc.disable()  # at once, not when cycles are looked for
    try:
        for _ in range(3):
            llm = LLM.load(tiny_gguf, threads=3)
            beside = LLM.load(tiny_gguf, beside=llm)
            assert "".join(llm.generate("abc", max_tokens=5, draft=beside)) is not None
            del llm
            assert beside.logits([1, 2]).shape == (2, 286)  # it keeps the threads
            del beside
    finally:
        gc.enable()
    end = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python's, about forks beside threads
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_a_model_in_the_child_of_a_fork(tiny_gguf: Path, three_processors: None, threads: int, used: bool) -> None:
    context = multiprocessing.get_context("fork")
    with LLM.load(tiny_gguf, threads=threads) as llm:
        if used:
            llm.logits([1, 2, 3, 4])
        queue = context.SimpleQueue()
        child = context.Process(target=lambda: queue.put(llm.logits([1, 2, 3]).tobytes()))
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
            pytest.fail("the child hangs")
        assert child.exitcode == 0
        assert queue.get() == llm.logits([1, 2, 3]).tobytes()


def test_a_process_that_closes_nothing_ends_quietly(tiny_gguf: Path) -> None:
    script = ("import sys; from lcpu import LLM\nllm = LLM.load(sys.argv[1], threads=2)\n"
              "other = LLM.load(sys.argv[1], threads=2)\nnext(llm.generate('abc'), None)")  # a text may be empty
    done = subprocess.run([sys.executable, "-X", "dev", "-c", script, str(tiny_gguf)], capture_output=True, text=True,
                          timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
