"""SentencePiece vocabularies (`tokenizer.ggml.model` = "llama"): the model is rebuilt from the GGUF file's arrays.

The serialised form is SentencePiece's ModelProto (src/sentencepiece_model.proto), written here by hand because its
fields are few and the protobuf package is large.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from ...kernels.errors import LcpuError
from .vocabulary import TokenType, Vocabulary

SPACE = "▁"  # U+2581, which stands for a space inside tokens

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_VARINT, _FIXED32, _LENGTH = 0, 5, 2  # protobuf wire types
_BPE = 2  # TrainerSpec.ModelType


def piece_bytes(piece: str) -> bytes:
    """The bytes that an ordinary token stands for."""
    return piece.replace(SPACE, " ").encode()


def byte_value(token: str) -> int | None:
    """The value of a byte token, `<0x00>` to `<0xFF>`; None if `token` is none."""
    match = _BYTE_TOKEN.fullmatch(token)
    return int(match[1], 16) if match else None


def encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """A function from text to ids. It adds no space in front and knows no special tokens.

    Raises LcpuError if the vocabulary is not one SentencePiece can have; the function raises it for a character that
    the vocabulary has neither a token nor byte tokens for.
    """
    import sentencepiece

    size = len(vocabulary.tokens)
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=_model_proto(vocabulary))
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise LcpuError(f"SentencePiece refuses the vocabulary ({cause}); convert the model again") from None

    def encode(text: str) -> list[int]:
        ids = processor.encode(text)
        if ids and max(ids) >= size:
            raise LcpuError("the text has a character that the model's vocabulary cannot express; leave it out")
        return ids

    return encode


def _model_proto(vocabulary: Vocabulary) -> bytes:
    types = vocabulary.types.copy()
    types[types == TokenType.UNDEFINED] = TokenType.UNUSED
    types[types == TokenType.USER_DEFINED] = TokenType.NORMAL  # they are found before SentencePiece sees the text
    bytes_there = vocabulary.of_type(TokenType.BYTE)
    values = {byte_value(vocabulary.tokens[token]) for token in bytes_there}
    if bytes_there and values != set(range(256)):
        raise LcpuError("the vocabulary has some byte tokens but not <0x00> to <0xFF>: convert the model again")

    # SentencePiece wants exactly one unknown token: the first is kept, and where there is none, one is put at the end.
    unknown = vocabulary.of_type(TokenType.UNKNOWN)
    types[unknown[1:]] = TokenType.CONTROL
    assert vocabulary.scores is not None
    pieces = list(zip(vocabulary.tokens, vocabulary.scores.tolist(), types.tolist(), strict=True))
    if not unknown:
        name = "<unknown>"
        while name in vocabulary.ids:
            name += ">"
        pieces.append((name, 0.0, int(TokenType.UNKNOWN)))

    trainer = _varint_field(3, _BPE) + _varint_field(35, bool(values))  # model_type, byte_fallback
    # No dummy prefix (the caller decides where it goes), no removal of extra spaces; spaces are escaped.
    normalizer = _bytes_field(1, b"identity") + b"".join(_varint_field(n, v) for n, v in ((3, 0), (4, 0), (5, 1)))
    return b"".join(_piece(*piece) for piece in pieces) + _bytes_field(2, trainer) + _bytes_field(3, normalizer)


def _piece(text: str, score: float, token_type: int) -> bytes:
    """A field `pieces` of ModelProto, a SentencePiece: piece, score, type."""
    return _bytes_field(
        1,
        _bytes_field(1, text.encode()) + _tag(2, _FIXED32) + struct.pack("<f", score) + _varint_field(3, token_type),
    )


def _varint(value: int) -> bytes:
    """Base 128, low digits first, the high bit set on all but the last."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint_field(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + _varint(value)


def _bytes_field(field: int, data: bytes) -> bytes:
    return _tag(field, _LENGTH) + _varint(len(data)) + data
