"""SentencePiece vocabularies with BPE: GGUF's "llama", from a tokenizer.model.

A tokenizer.model is a protobuf message, ModelProto (src/sentencepiece_model.proto), of which few fields matter. They
are read here by hand, as the engine writes them: the protobuf package is large, and sentencepiece itself shows neither
the kind of model nor what it does to spaces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .byte_fallback import check_byte_tokens
from .vocabulary import Vocabulary

# Fields of ModelProto, SentencePiece, TrainerSpec and NormalizerSpec; ModelType of BPE.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_MODEL_TYPE, _BPE, _SPACE_AS_SUFFIX = 3, 2, 24
_CHARACTER_MAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5


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
    _check_normalizer(trainer, normalizer, path)
    check_byte_tokens(vocabulary, path)
    return vocabulary


def _check_normalizer(trainer: dict[int, Any], normalizer: dict[int, Any], path: Path) -> None:
    """Raises LcpuError for what changes texts before they are cut into tokens, but for the space in front."""
    does = {
        "brings characters into another form": normalizer.get(_CHARACTER_MAP),
        "removes spaces": normalizer.get(_REMOVE_EXTRA_SPACES, 1),
        "does not mark spaces": not normalizer.get(_ESCAPE_SPACES, 1),
        "marks the ends of words": trainer.get(_SPACE_AS_SUFFIX),
    }
    wrong = next((what for what, is_set in does.items() if is_set), None)
    if wrong is not None:
        raise LcpuError(f"{path}: {wrong} before it looks for tokens, which a GGUF file cannot express")


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
