"""SentencePiece vocabularies with BPE: GGUF's "llama", from a tokenizer.model or the tokenizer.json made of one.

A tokenizer.model is a protobuf message, ModelProto (src/sentencepiece_model.proto), of which few fields matter. They
are read here by hand, as the engine writes them: the protobuf package is large, and sentencepiece itself shows neither
the kind of model nor what it does to spaces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...engine.tokenizer.spm import byte_value
from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .vocabulary import Vocabulary, added_tokens

# Fields of ModelProto, SentencePiece, TrainerSpec and NormalizerSpec; ModelType of BPE.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_MODEL_TYPE, _BPE = 3, 2
_ADD_DUMMY_PREFIX = 3

_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def read_sentencepiece(path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.model. Raises LcpuError for a file that is none, and for one without BPE."""
    try:
        fields = list(_fields(path.read_bytes()))
        pieces = [dict(_fields(value)) for number, value in fields if number == _PIECES]
        trainer, normalizer = (
            dict(_fields(b"".join(value for number, value in fields if number == wanted)))
            for wanted in (_TRAINER, _NORMALIZER)
        )
        vocabulary = Vocabulary("llama", "default", add_space_prefix=bool(normalizer.get(_ADD_DUMMY_PREFIX, 1)))
        for token, piece in enumerate(pieces):
            text, type = piece[_PIECE_TEXT].decode(), TokenType(piece.get(_PIECE_TYPE, TokenType.NORMAL))
            (score,) = struct.unpack("<f", piece.get(_PIECE_SCORE, bytes(4)))
            vocabulary.put(token, text.replace("▁", " ") if type == TokenType.USER_DEFINED else text, type, score)
    except OSError as error:
        raise LcpuError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        raise LcpuError(f"{path}: is not a SentencePiece model: download it again") from None
    if not pieces:
        raise LcpuError(f"{path}: is not a SentencePiece model: download it again")
    if trainer.get(_MODEL_TYPE, 1) != _BPE:
        raise LcpuError(f"{path}: is a SentencePiece model of another kind than BPE, which lcpu does not support")
    return vocabulary


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protobuf message: an int, or the bytes of anything else."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        length, at = _varint(message, at) if wire_type == 2 else ({5: 4, 1: 8}[wire_type], at)
        if at + length > len(message):
            raise ValueError("a field goes past the end")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in base 128, low digits first, and where the next begins."""
    value = shift = 0
    while message[at] > 127:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise ValueError("a number is too long")
    return value | message[at] << shift, at + 1


def read_byte_fallback(content: dict[str, Any], source: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json that was made of a SentencePiece model.

    It has merges in the place of scores: the earlier the merge that builds a piece, the higher the piece's score.
    """
    model = content["model"]
    vocabulary = Vocabulary("llama", "default", add_space_prefix=_adds_space(content, source))
    scores: dict[str, float] = {}
    for rank, merge in enumerate(model["merges"]):
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(rank))
    for text, token in model["vocab"].items():
        kind = TokenType.BYTE if byte_value(text) is not None else TokenType.NORMAL
        kind = TokenType.UNKNOWN if text == model.get("unk_token") else kind
        vocabulary.put(token, text, kind, scores.get(text, -float(len(scores))))
    vocabulary.put_added(added_tokens(content.get("added_tokens"), source))
    return vocabulary


def _adds_space(content: dict[str, Any], source: Path) -> bool:
    """Whether a space goes before a text, in either of the two ways in which a tokenizer.json says it."""
    normalizer, pretokenizer = content.get("normalizer"), content.get("pre_tokenizer")
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    if pretokenizer is None:
        if steps == [_SPACE]:
            return False
        if steps == [{"type": "Prepend", "prepend": "▁"}, _SPACE]:
            return True
    elif not steps and [pretokenizer.get(key) for key in ("type", "replacement", "split")] == ["Metaspace", "▁", False]:
        return pretokenizer.get("prepend_scheme") != "never" and pretokenizer.get("add_prefix_space") is not False
    shown = " ".join(str(pretokenizer or normalizer).split())[:200]
    raise LcpuError(f"{source}: the pre-tokenizer or normalizer {shown} is none that lcpu has")
