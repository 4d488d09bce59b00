"""What is wrong with a vocabulary is said in one line; what is missing has a default, and a note or a warning."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lcpu.engine.tokenizer import from_metadata
from lcpu.engine.tokenizer.vocabulary import read
from lcpu.kernels.errors import LcpuError


def error_of(metadata) -> str:
    with pytest.raises(LcpuError) as caught:
        from_metadata(metadata)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "none", ""])
def test_another_kind_of_tokenizer(metadata_of, model):
    assert f"tokenizer.ggml.model = {model!r} is not supported" in error_of(metadata_of["llama"](model=model))


def test_another_pretokenizer(metadata_of):
    assert "tokenizer.ggml.pre = 'klingon'" in error_of(metadata_of["gpt2"](pre="klingon"))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("llama", "model"),
        ("llama", "tokens"),
        ("gpt2", "tokens"),
        ("gpt2", "merges"),
    ],
)
def test_a_missing_key(metadata_of, kind, key):
    assert f"the model has no tokenizer.ggml.{key}: " in error_of(metadata_of[kind](**{key: None}))


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("llama", "model", 3, "model is int, not a string"),
        ("gpt2", "pre", ["qwen2"], "pre is list, not a string"),
        ("llama", "tokens", "abc", "tokens is str, not a list of strings"),
        ("llama", "tokens", np.zeros(3), "tokens is ndarray, not a list of strings"),
        ("llama", "tokens", ["a", 1], "tokens is list, not a list of strings"),
        ("llama", "scores", ["1"], "scores is list, not an array of numbers"),
        ("llama", "scores", 1.5, "scores is float, not an array of numbers"),
        ("llama", "token_type", np.ones(3, np.float32), "token_type is ndarray, not an array of integers"),
        ("gpt2", "merges", np.zeros(3), "merges is ndarray, not a list of strings"),
        ("llama", "bos_token_id", "1", "bos_token_id is str, not an integer"),
        ("llama", "eos_token_id", True, "eos_token_id is bool, not an integer"),
        ("llama", "unknown_token_id", 0.0, "unknown_token_id is float, not an integer"),
        ("llama", "add_bos_token", 1, "add_bos_token is int, not true or false"),
        ("gpt2", "eos_token_ids", 2, "eos_token_ids is int, not an array of integers"),
        ("gpt2", "eos_token_ids", ["</s>"], "eos_token_ids is list, not an array of integers"),
        ("llama", "add_space_prefix", 0, "add_space_prefix is int, not true or false"),
    ],
)
def test_a_value_of_the_wrong_type(metadata_of, kind, key, value, message):
    assert error_of(metadata_of[kind](**{key: value})).startswith(f"tokenizer.ggml.{message}: ")


@pytest.mark.parametrize("key", ["scores", "token_type"])
@pytest.mark.parametrize("change", [-1, 1])
def test_arrays_of_different_lengths(metadata_of, key, change):
    size = len(metadata_of["llama"]()["tokenizer.ggml.tokens"])
    message = error_of(metadata_of["llama"](**{key: np.ones(size + change, np.int32)}))
    assert message.startswith(f"tokenizer.ggml.{key} has {size + change} entries for {size} tokens: ")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_tokens(metadata_of, kind):
    assert error_of(metadata_of[kind](tokens=[])).startswith("tokenizer.ggml.tokens is empty: ")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_same_token_twice(metadata_of, kind):
    tokens = list(metadata_of[kind]()["tokenizer.ggml.tokens"])
    tokens[7] = tokens[9]
    assert error_of(metadata_of[kind](tokens=tokens)).startswith(f"tokenizer.ggml.tokens holds {tokens[9]!r} twice: ")


def test_empty_tokens_get_a_name(metadata_of):
    tokens = metadata_of["gpt2"]()["tokenizer.ggml.tokens"]
    vocabulary = read(metadata_of["gpt2"](tokens=["", *tokens[1:-1], ""]))
    assert (vocabulary.tokens[0], vocabulary.tokens[-1]) == ("[EMPTY_0]", f"[EMPTY_{len(tokens) - 1}]")


@pytest.mark.parametrize("key", ["tokens", "merges"])
def test_text_that_is_not_utf8(metadata_of, key):
    values = list(metadata_of["gpt2"]()[f"tokenizer.ggml.{key}"])
    values[0] = b"h \xff".decode("utf-8", "surrogateescape")  # as the reader of GGUF files gives it
    assert error_of(metadata_of["gpt2"](**{key: values})).startswith(
        f"tokenizer.ggml.{key} holds a string that is not UTF-8"
    )


@pytest.mark.parametrize("bad", [-1, 7, 300])
def test_an_unknown_token_type(metadata_of, bad):
    types = np.ones(len(metadata_of["gpt2"]()["tokenizer.ggml.tokens"]), np.int32)
    types[5] = bad
    assert error_of(metadata_of["gpt2"](token_type=types)).startswith(f"tokenizer.ggml.token_type holds {bad}, ")


def test_scores_that_are_not_numbers(metadata_of):
    scores = [*metadata_of["llama"]()["tokenizer.ggml.scores"][:-1], float("nan")]
    assert "tokenizer.ggml.scores holds values that are not numbers" in error_of(metadata_of["llama"](scores=scores))


@pytest.fixture
def notes(caplog):
    """notes() -> what was logged since: the notes that -v shows, and the warnings."""
    caplog.set_level(logging.INFO, logger="lcpu")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_sound_vocabulary_has_no_notes(metadata_of, kind, notes):
    read(metadata_of[kind]())
    assert notes() == []


@pytest.mark.parametrize("token", [-1, 10_000, 0xFFFFFFFF])
@pytest.mark.parametrize(("key", "default"), [("bos", 1), ("eos", 2), ("unknown", 0), ("eot", None), ("fim_pad", None)])
def test_a_special_token_that_is_not_there_has_the_default(metadata_of, key, default, token, notes):
    metadata = metadata_of["llama"](**{f"{key}_token_id": token})
    vocabulary = read(metadata)
    last = len(vocabulary.tokens) - 1
    instead = "no token" if default is None else f"token {default}"
    assert notes() == [("INFO", f"tokenizer.ggml.{key}_token_id is {token}, but the tokens are 0 to {last}: "
                                f"{instead} is taken instead")]
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unknown_id) == (1, 2, 0)
    assert vocabulary.end_ids == read(metadata_of["llama"]()).end_ids


def test_a_gpt2_vocabulary_has_no_default_tokens(metadata_of, notes):
    vocabulary = read(metadata_of["gpt2"](bos_token_id=10_000, eos_token_id=-1))
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.add_bos) == (None, None, False)
    assert [level for level, _ in notes()] == ["INFO", "INFO"]


def test_no_scores_means_equal_scores(metadata_of, notes):
    vocabulary = read(metadata_of["llama"](scores=None))
    assert vocabulary.scores.tolist() == [0.0] * len(vocabulary.tokens)
    assert [level for level, _ in notes()] == ["INFO"]


def test_no_token_types_means_ordinary_tokens_and_bytes(metadata_of, notes):
    vocabulary = read(metadata_of["llama"](token_type=None))
    texts = ["<unk>", "<s>", "</s>", "<|im_end|>", "<0x00>", "<0xFF>", "he"]
    assert [vocabulary.types[vocabulary.ids[text]] for text in texts] == [1, 1, 3, 3, 6, 6, 1]
    assert {level for level, _ in notes()} == {"INFO"}


def test_bytes_are_told_by_their_text(metadata_of, notes):
    tokens, types = (metadata_of["llama"]()[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    types = [1 if token in ("<0x0A>", "<0xE9>") else 6 if token == "he" else kind
             for token, kind in zip(tokens, types, strict=True)]
    assert read(metadata_of["llama"](token_type=types)).types.tolist() == read(metadata_of["llama"]()).types.tolist()
    assert notes() == [("INFO", "the vocabulary has wrong types for byte tokens (3): "
                                "<0x00> to <0xFF> are taken as bytes, and only these")]


def test_bytes_that_are_missing_are_noted(metadata_of, notes):
    tokens = ["<gone>" if token == "<0x0A>" else token for token in metadata_of["llama"]()["tokenizer.ggml.tokens"]]
    read(metadata_of["llama"](tokens=tokens))
    assert ("INFO", "the vocabulary has no token for 1 of 256 bytes, such as <0x0A>") in notes()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_all_of_a_list_end_a_text(metadata_of, kind, notes):
    before = read(metadata_of[kind]()).end_ids
    for ends in ([10, 11], np.array([10, 11], np.uint32), []):
        vocabulary = read(metadata_of[kind](eos_token_ids=ends))
        assert vocabulary.end_ids == before | set(map(int, ends))
    assert notes() == []
    assert read(metadata_of[kind](eos_token_ids=[10, 10_000, -1])).end_ids == before | {10}
    assert notes() == [("INFO", "tokenizer.ggml.eos_token_ids names tokens that are not there: these are left out")]


@pytest.mark.parametrize("pre", [None, ""])
def test_no_pretokenizer_is_a_warning(metadata_of, pre, notes):
    assert read(metadata_of["gpt2"](pre=pre)).pre == "default"
    (level, message), = notes()
    assert level == "WARNING"
    assert "tokenizer.ggml.pre is missing" in message
    assert "tokens may be wrong" in message


def test_an_spm_vocabulary_needs_no_pretokenizer(metadata_of, notes):
    read(metadata_of["llama"](pre=None))
    read(metadata_of["gpt2"](pre="default"))
    assert notes() == []


@pytest.mark.parametrize("merge", ["ab", "", " ", "a ", " b", "a b c", "a  b"])
def test_a_malformed_merge(metadata_of, merge):
    message = error_of(metadata_of["gpt2"](merges=["h e", merge]))
    assert message.startswith(f'tokenizer.ggml.merges holds {merge!r}, which is not "left right"')


@pytest.mark.parametrize("bos", [None, 10_000])
def test_a_bos_to_add_that_is_not_named(metadata_of, bos):
    metadata = metadata_of["gpt2"](add_bos_token=True, bos_token_id=bos)
    assert "add_bos_token is true, but tokenizer.ggml.bos_token_id names no token" in error_of(metadata)


def test_defaults_of_llama(metadata_of):
    vocabulary = read(metadata_of["llama"](bos_token_id=None, eos_token_id=None, unknown_token_id=None))
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unknown_id) == (1, 2, 0)
    assert (vocabulary.add_bos, vocabulary.add_space_prefix) == (True, True)


def test_defaults_of_gpt2(metadata_of):
    vocabulary = read(metadata_of["gpt2"](pre=None, bos_token_id=None, eos_token_id=None))
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unknown_id) == (None, None, None)
    assert (vocabulary.add_bos, vocabulary.add_space_prefix) == (False, False)
    assert vocabulary.pre == "default"


def test_some_pretokenizers_want_bos(metadata_of):
    assert read(metadata_of["gpt2"](pre="llama-bpe")).add_bos
    assert not read(metadata_of["gpt2"](pre="llama-bpe", add_bos_token=False)).add_bos
    assert not read(metadata_of["gpt2"](pre="llama-bpe", bos_token_id=None)).add_bos


def test_a_default_past_the_end_is_no_token(metadata_of):
    tiny = {"tokens": ["<unk>", "a"], "scores": [0, 0], "token_type": [2, 1], "bos_token_id": None}
    vocabulary = read(metadata_of["llama"](**tiny, eos_token_id=None))
    assert (vocabulary.bos_id, vocabulary.eos_id) == (1, None)


def test_types_cannot_be_changed(metadata_of):
    with pytest.raises(ValueError, match="read-only"):
        read(metadata_of["llama"]()).types[0] = 1
