"""Byte-level BPE vocabularies (`tokenizer.ggml.model` = "gpt2"), run by the library `tokenizers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import pretokenizers
from .vocabulary import TokenType, Vocabulary


def _byte_characters() -> dict[int, str]:
    """GPT-2's alphabet: a printable character for each byte; itself where it is one, else from U+0100 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


BYTE_CHARACTERS = _byte_characters()
_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}


def piece_bytes(piece: str) -> bytes:
    """The bytes that an ordinary token stands for; its own text if it is not written in GPT-2's alphabet."""
    try:
        return bytes([_BYTES[character] for character in piece])
    except KeyError:
        return piece.encode()


def encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """A function from text to ids. It knows no special tokens; a byte without a token is left out, as in llama.cpp."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    pretokenizer = pretokenizers.find(vocabulary.pre)
    tokenizer = Tokenizer(model(vocabulary, ignore_merges=pretokenizer.ignore_merges))
    splits = [Split(Regex(pattern), "isolated") for pattern in pretokenizer.patterns]
    tokenizer.pre_tokenizer = Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode


def model(vocabulary: Vocabulary, **options: Any) -> Any:
    """The library's BPE model of the merges. options: its."""
    from tokenizers.models import BPE

    # Nothing may merge into a control token: it is no part of ordinary text. (But no byte may be lost.)
    reserved = set(vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN))
    ids = {text: token for text, token in vocabulary.ids.items() if token not in reserved or len(text) == 1}
    merges = list(vocabulary.merges or ())
    try:
        return BPE(ids, merges, **options)
    except Exception:  # a merge of tokens that are not there, which llama.cpp passes over too
        merges = [(left, right) for left, right in merges if left in ids and right in ids and left + right in ids]
        return BPE(ids, merges, **options)
