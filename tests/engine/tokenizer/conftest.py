"""Two small vocabularies, one of each kind, small enough to work out by hand what a text becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lcpu.engine.tokenizer import Tokenizer, from_metadata
from lcpu.engine.tokenizer.bpe import BYTE_CHARACTERS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

# Of two pieces that could be built, the one with the higher score is built first.
SPM_PIECES = {"he": -1, "ll": -2, "▁he": -3, "llo": -4, "▁": -10, "h": -11, "e": -12, "l": -13, "o": -14}
BPE_MERGES = ("h e", "l l", "he ll", "Ġ hell", "1 2", "12 3")


def spm_metadata(**changes: Any) -> dict[str, Any]:
    """A "llama" vocabulary: `changes` name keys of `tokenizer.ggml`; None removes one."""
    special = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL, "<|im_end|>": CONTROL, "<tool>": USER_DEFINED}
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    metadata = {
        "model": "llama",
        "tokens": [*special, *byte_tokens, *SPM_PIECES],
        "scores": [0.0] * (len(special) + 256) + [float(score) for score in SPM_PIECES.values()],
        "token_type": [*special.values(), *[BYTE] * 256, *[NORMAL] * len(SPM_PIECES)],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return _with_changes(metadata, changes)


def bpe_metadata(**changes: Any) -> dict[str, Any]:
    """A "gpt2" vocabulary that has every byte: `changes` name keys of `tokenizer.ggml`; None removes one."""
    pieces = [*BYTE_CHARACTERS.values(), *(merge.replace(" ", "") for merge in BPE_MERGES)]
    special = {"<s>": CONTROL, "<|im_end|>": CONTROL, "<tool>": USER_DEFINED}
    metadata = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [*pieces, *special],
        "token_type": [*[NORMAL] * len(pieces), *special.values()],
        "merges": list(BPE_MERGES),
        "bos_token_id": len(pieces),
        "eos_token_id": len(pieces) + 1,
    }
    return _with_changes(metadata, changes)


def _with_changes(metadata: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.ggml.{key}": value for key, value in (metadata | changes).items() if value is not None}


@pytest.fixture(scope="session")
def make_spm() -> Callable[..., Tokenizer]:
    """make_spm(**changes) -> a tokenizer of the small "llama" vocabulary with these keys changed."""
    return lambda **changes: from_metadata(spm_metadata(**changes))


@pytest.fixture(scope="session")
def make_bpe() -> Callable[..., Tokenizer]:
    """make_bpe(**changes) -> a tokenizer of the small "gpt2" vocabulary with these keys changed."""
    return lambda **changes: from_metadata(bpe_metadata(**changes))


@pytest.fixture(scope="session")
def metadata_of() -> dict[str, Callable[..., dict[str, Any]]]:
    """The functions that make the metadata of a small vocabulary, by the kind of it."""
    return {"llama": spm_metadata, "gpt2": bpe_metadata}


@pytest.fixture(scope="session")
def spm(make_spm: Callable[..., Tokenizer]) -> Tokenizer:
    return make_spm()


@pytest.fixture(scope="session")
def bpe(make_bpe: Callable[..., Tokenizer]) -> Tokenizer:
    return make_bpe()


@pytest.fixture(scope="session")
def tokens_of() -> Callable[..., list[str]]:
    """tokens_of(tokenizer, text, **how) -> the tokens, as they are written in the vocabulary, without a BOS."""

    def tokens(tokenizer: Tokenizer, text: str, **how: bool) -> list[str]:
        how.setdefault("add_bos", False)
        return [tokenizer.vocabulary.tokens[token] for token in tokenizer.encode(text, **how)]

    return tokens
