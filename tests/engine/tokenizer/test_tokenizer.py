"""Encoding and decoding, whatever the kind of vocabulary."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lcpu.engine.tokenizer import from_metadata, load
from lcpu.kernels.errors import LcpuError


@pytest.fixture(params=["llama", "gpt2"])
def make(request, metadata_of):
    """make(**changes) -> a tokenizer of one kind, then of the other."""
    return lambda **changes: from_metadata(metadata_of[request.param](**changes))


@pytest.mark.parametrize("eos", [True, False, None])
def test_what_goes_around_a_text(make, eos):
    """BOS if the file asks for it; never EOS, since the text is to be continued."""
    plain = make().encode("hello", add_bos=False)
    for bos in (True, False):
        tokenizer = make(add_bos_token=bos, add_eos_token=eos)
        before = [tokenizer.bos_id] if bos else []
        assert tokenizer.add_bos == bos
        assert tokenizer.encode("hello") == before + plain
        assert tokenizer.encode("") == before
        assert tokenizer.encode("hello", add_bos=False) == plain


def test_nothing_becomes_nothing(make):
    assert make().encode("", add_bos=False) == []
    assert make().decode([]) == ""


def test_surrogates_are_replaced(make):
    tokenizer = make()
    assert tokenizer.decode(tokenizer.encode("h\ud800o")) == "h\ufffd\ufffd\ufffdo"


def test_special_tokens_are_skipped_or_named(make):
    tokenizer = make()
    ids = [*tokenizer.encode("he", add_bos=False), tokenizer.vocabulary.ids["<|im_end|>"]]
    assert tokenizer.decode([tokenizer.bos_id, *ids]) == "he"
    assert tokenizer.decode(ids, skip_special=False) == "he<|im_end|>"


def test_bytes_of_tokens_add_up(make):
    tokenizer = make()
    text = "héllo 🦙"
    ids = tokenizer.encode(text, add_bos=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().removeprefix(" ") == text
    assert tokenizer.token_bytes(tokenizer.bos_id) == b""
    assert tokenizer.token_bytes(tokenizer.bos_id, skip_special=False) == b"<s>"
    assert tokenizer.token_bytes(tokenizer.vocabulary.ids["<tool>"]) == b"<tool>"


def test_unused_tokens_have_no_text(make):
    tokenizer = make()
    types = tokenizer.vocabulary.types.tolist()
    ids = tokenizer.vocabulary.ids["h"], tokenizer.vocabulary.ids["o"]
    types[ids[0]], types[ids[1]] = 5, 0
    assert make(token_type=types).decode(ids) == ""


def test_half_a_character_is_replaced(make):
    tokenizer = make()
    ids = tokenizer.encode("é", add_bos=False)
    assert tokenizer.decode(ids[:-1]) == "\ufffd"


def test_ids_of_numpy(make):
    tokenizer = make()
    ids = np.array(tokenizer.encode("hello"), np.int32)
    assert tokenizer.decode(ids) == "hello"


@pytest.mark.parametrize("bad", [-1, 100_000])
def test_ids_out_of_range(make, bad):
    tokenizer = make()
    message = f"^token {bad} is not in the vocabulary; its tokens are 0 to {tokenizer.vocab_size - 1}$"
    with pytest.raises(LcpuError, match=message):
        tokenizer.decode([bad])
    with pytest.raises(LcpuError, match=message):
        tokenizer.token_bytes(bad)


def test_only_the_first_space_of_a_text_was_added(spm):
    space = spm.vocabulary.ids["▁"]
    he = spm.vocabulary.ids["▁he"]
    assert spm.decode([he, he]) == "he he"
    assert spm.decode([spm.bos_id, he, he]) == "he he"
    assert spm.decode([space, he]) == " he"


def test_load(tiny_gguf):
    tokenizer = load(tiny_gguf)
    assert tokenizer.encode("a b") == [1, *(tokenizer.vocabulary.ids[token] for token in "▁a▁b")]
    assert tokenizer.vocab_size == len(tokenizer.vocabulary.tokens)


def test_load_a_file_that_is_not_there(tmp_path):
    with pytest.raises(LcpuError):
        load(tmp_path / "none.gguf")


def test_the_libraries_are_imported_only_when_needed():
    code = "import sys, lcpu.engine.tokenizer; print({'tokenizers', 'sentencepiece'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
