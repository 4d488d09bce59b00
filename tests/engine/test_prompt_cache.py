"""Prompt caches: the same text with and without one, less to compute, and nothing else than what was saved."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcpu.engine import prompt_cache
from lcpu.engine.generate import GenerationOptions
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.llm import LLM
from lcpu.engine.prompt_cache import check_writable
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.pages import POSITIONS

WriteLlama = Callable[..., Path]
PROMPT = np.random.default_rng(0).integers(3, 286, 300).tolist()
TYPES = [("f16", "f16"), ("q8_0", "q8_0"), ("q8_0", "f16")]
SHAPE = {"embedding": 64, "feed_forward": 96, "heads": 2, "kv_heads": 1, "head_dim": 32, "context": 512}


def texts(llm: LLM, ids: list[int]) -> tuple[list[list[int]], int]:
    """What follows, greedy and sampled; how many tokens were known at first."""
    found, reused = [], []
    for temperature in (0.0, 0.9):
        generation = llm.stream(ids, GenerationOptions(max_tokens=20, temperature=temperature, seed=3, ignore_eos=True))
        list(generation)
        found.append(generation.generated_ids)
        reused.append(generation.reused_tokens)
    return found, reused[0]


@pytest.fixture(scope="module")
def path(write_llama: WriteLlama) -> Path:
    return write_llama("q8_0", **SHAPE)


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[LLM]:
    with LLM.load(path, threads=2) as llm:
        yield llm


@pytest.fixture(scope="module")
def saved(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt cache; do not change it."""
    file = tmp_path_factory.mktemp("cache") / "prompt.bin"
    texts(llm, PROMPT)
    assert llm.save_prompt(file, PROMPT) == 300
    return file


def refused(llm: LLM, file: Path, message: str) -> None:
    before = llm._scheduler.cache.available()
    with pytest.raises(LcpuError) as caught:
        llm.restore_prompt(file)
    assert str(caught.value) == f"{file}: {message}: delete it or name another file"
    assert llm._scheduler.cache.available() >= before


@pytest.mark.parametrize("types", TYPES, ids=["-".join(types) for types in TYPES])
def test_the_same_text_from_a_file(path: Path, tmp_path: Path, types: tuple[str, str]) -> None:
    file = tmp_path / "prompt.bin"
    cases = {"all": PROMPT, "a part": PROMPT[:200], "more": [*PROMPT, 5, 6, 7], "another end": [*PROMPT[:290], 9, 8],
             "a whole page": PROMPT[: POSITIONS + 1], "another": [9, 9, 9]}
    known = {"all": 299, "a part": 199, "more": 300, "another end": 290, "a whole page": POSITIONS, "another": 0}
    expected = {}
    for name, ids in cases.items():
        with LLM.load(path, threads=1, cache_types=types) as llm:
            assert llm.restore_prompt(file) == []
            expected[name], reused = texts(llm, ids)
            assert reused == 0
            if name == "another":
                llm.logits(PROMPT)
                assert llm.save_prompt(file, PROMPT) == 300
    for name, ids in cases.items():
        with LLM.load(path, threads=2, cache_types=types) as llm:
            assert llm.restore_prompt(file) == PROMPT
            assert texts(llm, ids) == (expected[name], known[name])


def test_beside_texts_that_go_on(path: Path, saved: Path, llm: LLM) -> None:
    """Saved and restored in the middle of generations, which do not change."""
    options = GenerationOptions(max_tokens=60, temperature=0.0, ignore_eos=True)
    plain = llm.stream(PROMPT[:250], options)
    text = "".join(plain)
    with LLM.load(path, threads=2) as other:
        generation = other.stream(PROMPT[:250], options)
        pieces = iter(generation)
        first = next(pieces)
        file = saved.with_name("beside.bin")
        assert other.save_prompt(file, PROMPT[:250]) == 250
        assert other.restore_prompt(saved) == PROMPT
        assert first + "".join(pieces) == text
        assert other.restore_prompt(file) == PROMPT[:250]
        assert texts(other, PROMPT) == (texts(llm, PROMPT)[0], 299)


SHORT_HEADS = SHAPE | {"heads": 8, "kv_heads": 8, "head_dim": 8}  # they fill no vector: what is beside them gets stored


@pytest.mark.parametrize(("types", "shape"), [*((types, SHAPE) for types in TYPES), (TYPES[0], SHORT_HEADS)],
                         ids=["f16", "q8_0", "q8_0-f16", "short heads"])
def test_nothing_else_is_in_a_file(write_llama: WriteLlama, tmp_path: Path, types: tuple[str, str],
                                   shape: dict[str, int]) -> None:
    """Neither of a text that had the pages before, nor of what followed the prompt, nor of texts beside it."""
    path, files = write_llama("f32", **shape), [tmp_path / name for name in ("alone.bin", "after.bin")]
    with LLM.load(path, threads=1, cache_tokens=0, cache_types=types) as llm:
        llm.logits(PROMPT)
        assert llm.save_prompt(files[0], PROMPT) == 300
        expected = texts(llm, PROMPT)[0]
    with LLM.load(path, threads=2, cache_tokens=0, cache_types=types) as llm:
        llm.logits([*PROMPT[::-1], *PROMPT[:210]])
        llm.logits(PROMPT[:100])
        beside = llm.stream(PROMPT[100:150], GenerationOptions(max_tokens=30))
        generation = llm.stream(PROMPT, GenerationOptions(max_tokens=30, seed=1, ignore_eos=True))
        for _ in llm.stream_batch([beside, generation]):
            pass
        assert llm.save_prompt(files[1], PROMPT) == 300
    assert files[0].read_bytes() == files[1].read_bytes()
    with LLM.load(path, threads=1, cache_tokens=0, cache_types=types) as llm:
        assert llm.restore_prompt(files[1]) == PROMPT
        assert texts(llm, PROMPT) == (expected, 299)


def test_only_what_is_known_is_saved(path: Path, tmp_path: Path) -> None:
    with LLM.load(path, threads=1) as llm:
        assert llm.save_prompt(tmp_path / "none.bin", PROMPT) == 0
        assert not (tmp_path / "none.bin").exists()
        list(llm.stream(PROMPT[:150], GenerationOptions(max_tokens=1)))
        assert llm.save_prompt(tmp_path / "part.bin", PROMPT) == 150
        assert llm.restore_prompt(tmp_path / "part.bin") == PROMPT[:150]
    for call in (llm.save_prompt, lambda file, ids: llm.restore_prompt(file)):
        with pytest.raises(LcpuError, match="the model is closed"):
            call(tmp_path / "part.bin", PROMPT)


def test_a_file_that_is_longer_than_the_memory(path: Path, saved: Path) -> None:
    with LLM.load(path, threads=1, context=200, cache_tokens=0) as llm:
        assert llm.restore_prompt(saved) == PROMPT
        generation = llm.stream(PROMPT[:190], GenerationOptions(max_tokens=1))
        list(generation)
        assert generation.reused_tokens == 189


def test_no_file_and_an_empty_one(llm: LLM, tmp_path: Path) -> None:
    """An empty one is what mktemp makes."""
    assert llm.restore_prompt(tmp_path / "absent.bin") == []
    (tmp_path / "empty.bin").touch()
    assert llm.restore_prompt(tmp_path / "empty.bin") == []


# ---- files that are refused ----


def test_of_another_model(saved: Path, write_llama: WriteLlama, path: Path) -> None:
    name = {"general.name": "other"}
    weights = {"blk.1.attn_v.weight": np.ones((32, 64), np.float32)}
    for other in (write_llama("q8_0", **SHAPE, **name), write_llama("f16", **SHAPE), write_llama("q8_0", **SHAPE,
                                                                                             tensors=weights)):
        with LLM.load(other, threads=1) as llm:
            refused(llm, saved, "is the prompt cache of another model")
    changed = Path(shutil.copy(path, saved.with_name("changed.gguf")))
    with GGUFFile.open(path) as file:
        last = file.tensors["blk.1.ffn_down.weight"]
    with changed.open("r+b") as writable:  # a few weights, in a file that else is the same
        writable.seek(last.offset + last.nbytes - 4)
        writable.write(b"\1\2\3\4")
    with LLM.load(changed, threads=1) as llm:
        refused(llm, saved, "is the prompt cache of another model")
    copy = Path(shutil.copy(path, saved.with_name("copy.gguf")))
    with LLM.load(copy, threads=1, context=400, output_type="q4_0") as llm:
        assert llm.restore_prompt(saved) == PROMPT


def test_of_other_page_types(saved: Path, path: Path) -> None:
    with LLM.load(path, threads=1, cache_types=("q8_0", "f16")) as llm:
        refused(llm, saved, "has keys and values in f16 and f16, and this run has them in q8_0 and f16")


def test_of_another_processor_or_version(saved: Path, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = llm._origin
    with monkeypatch.context() as patch:
        patch.setattr(llm, "_origin", replace(origin, code="other"))
        refused(llm, saved, "was computed by another processor or version of lcpu")
    with monkeypatch.context() as patch:
        patch.setattr(llm, "_origin", replace(origin, angles="rope_factors_long.weight"))
        refused(llm, saved, "was computed for a context of another length (-c), for which the model rotates keys "
                            "otherwise")
    with monkeypatch.context() as patch:
        patch.setattr(prompt_cache, "VERSION", 3)
        refused(llm, saved, "is a prompt cache of another version of lcpu")


def test_other_files(llm: LLM, path: Path, tmp_path: Path) -> None:
    refused(llm, path, "is not a prompt cache")
    for content in (b"x", b"lcpu", b"lcpu prompt cachE" + bytes(50)):
        (tmp_path / "other").write_bytes(content)
        refused(llm, tmp_path / "other", "is not a prompt cache")
    for special in (tmp_path, Path(os.devnull)):
        with pytest.raises(LcpuError, match="is not a regular file: name another file"):
            llm.restore_prompt(special)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_cut_and_damaged(saved: Path, llm: LLM, data: st.DataObject) -> None:
    content = bytearray(saved.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "longer", "flipped"]))
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 300))
    if kind == "cut":
        content = content[: max(17, place)]
    elif kind == "longer":
        content += b"x" * (1 + place % 7)
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    file = saved.with_name("damaged.bin")
    file.write_bytes(content)
    expected = texts(llm, PROMPT)[0]
    with pytest.raises(LcpuError, match=r"delete it or name another file$") as caught:
        llm.restore_prompt(file)
    assert "\n" not in str(caught.value)
    assert texts(llm, PROMPT)[0] == expected


# ---- writing ----


def test_written_through_a_link_and_whole(llm: LLM, saved: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    target, link = tmp_path / "target.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    link.symlink_to(target)
    llm.restore_prompt(saved)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(LcpuError, match=r"link\.bin: the prompt cache cannot be written: No space left on device"):
            llm.save_prompt(link, PROMPT)
    assert target.read_bytes() == b"old"
    assert llm.save_prompt(link, PROMPT) == 300
    assert link.is_symlink()
    assert llm.restore_prompt(target) == PROMPT
    assert sorted(os.listdir(tmp_path)) == ["link.bin", "target.bin"]


def test_where_nothing_can_be_written(llm: LLM, saved: Path, tmp_path: Path) -> None:
    llm.restore_prompt(saved)
    with pytest.raises(LcpuError, match=r"its folder .*absent is not there: make it first or name another file"):
        check_writable(tmp_path / "absent" / "prompt.bin")
    with pytest.raises(LcpuError, match="cannot be written: No such file"):
        llm.save_prompt(tmp_path / "absent" / "prompt.bin", PROMPT)
    check_writable(tmp_path / "prompt.bin")


def test_in_threads(path: Path, saved: Path, llm: LLM, tmp_path: Path) -> None:
    """Files are written and read while others generate."""
    expected = texts(llm, PROMPT)[0]
    found: list[object] = []
    with LLM.load(path, threads=2, cache_tokens=0) as other:

        def generate() -> None:
            found.extend(texts(other, PROMPT)[0] == expected for _ in range(4))

        def files(name: str) -> None:
            for _ in range(4):
                other.restore_prompt(saved)
                if other.save_prompt(tmp_path / name, PROMPT):
                    other.restore_prompt(tmp_path / name)
            found.append(True)

        threads = [threading.Thread(target=generate) for _ in range(3)]
        threads += [threading.Thread(target=files, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 14
