"""SentencePiece vocabularies (`tokenizer.ggml.model` = "llama"): the model is rebuilt from the GGUF file's arrays.

The serialised form is SentencePiece's ModelProto (src/sentencepiece_model.proto), written here by hand because its
fields are few and the protobuf package is large.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from ...kernels.errors import LcpuError
from .vocabulary import BYTE_TOKENS, TokenType, Vocabulary

_LOG = logging.getLogger("lcpu")
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

    A character that has no token is given as its bytes. A byte without a token is the token whose text it is, such as
    "\\n", or the unknown token, with a warning for the first. Raises LcpuError if the vocabulary is not one
    SentencePiece can have; the function raises it for a character that the vocabulary has no token for at all.
    """
    import sentencepiece

    size = len(vocabulary.tokens)
    missing = _missing_bytes(vocabulary)
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=_model_proto(vocabulary, missing))
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise LcpuError(f"SentencePiece refuses the vocabulary ({cause}); convert the model again") from None

    unknown = next(iter(vocabulary.of_type(TokenType.UNKNOWN)), size)  # size: an id that stands for none
    instead = {size + n: vocabulary.ids.get(chr(byte), unknown) if byte < 128 else unknown
               for n, byte in enumerate(missing)}
    warned = False

    def encode(text: str) -> list[int]:
        nonlocal warned
        ids = processor.encode(text)
        if ids and max(ids) >= size:
            ids = [instead.get(token, token) for token in ids]
            if max(ids) >= size:
                raise LcpuError("the text has a character that the model's vocabulary cannot express; leave it out")
        if not warned and unknown in ids:
            warned = True
            _LOG.warning("the text has characters that the model's vocabulary cannot express, such as line breaks or "
                         "rare letters: the model sees %r instead", vocabulary.tokens[unknown])
        return ids

    return encode


def _missing_bytes(vocabulary: Vocabulary) -> list[int]:
    """The bytes without a byte token; none if all are, since unknown characters then stay whole."""
    missing = [byte for byte, text in enumerate(BYTE_TOKENS) if text not in vocabulary.ids]
    return missing if len(missing) < len(BYTE_TOKENS) else []


def _model_proto(vocabulary: Vocabulary, missing: list[int]) -> bytes:
    """missing: bytes that get tokens after all others, since SentencePiece wants byte tokens for all 256 or none."""
    types = vocabulary.types.copy()
    types[types == TokenType.UNDEFINED] = TokenType.UNUSED
    types[types == TokenType.USER_DEFINED] = TokenType.NORMAL  # they are found before SentencePiece sees the text
    bytes_there = [vocabulary.ids[text] for text in BYTE_TOKENS if text in vocabulary.ids]
    types[bytes_there] = TokenType.BYTE

    # SentencePiece wants exactly one unknown token: the first is kept, and where there is none, one is put at the end.
    unknown = vocabulary.of_type(TokenType.UNKNOWN)
    types[unknown[1:]] = TokenType.CONTROL
    assert vocabulary.scores is not None
    pieces = _pieces(vocabulary.tokens, vocabulary.scores, types)
    more = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in missing]
    if not unknown:
        name = "<unknown>"
        while name in vocabulary.ids:
            name += ">"
        more.append((name, TokenType.UNKNOWN))
    pieces += _pieces([text for text, _ in more], np.zeros(len(more)), np.array([type for _, type in more]))

    trainer = _varint_field(3, _BPE) + _varint_field(35, bool(bytes_there))  # model_type, byte_fallback
    # No dummy prefix (the caller decides where it goes), no removal of extra spaces; spaces are escaped.
    normalizer = _bytes_field(1, b"identity") + b"".join(_varint_field(n, v) for n, v in ((3, 0), (4, 0), (5, 1)))
    return pieces + _bytes_field(2, trainer) + _bytes_field(3, normalizer)


def _pieces(texts: Sequence[str], scores: np.ndarray, types: np.ndarray) -> bytes:
    """The fields `pieces` of ModelProto, each a SentencePiece: piece, score, type.

    What comes before a text depends on its length alone, and what comes after it has a fixed size: so a vocabulary of
    262,144 tokens takes 0.1 s, not 0.5.
    """
    ends = np.zeros(len(texts), [("score_tag", "u1"), ("score", "<f4"), ("type_tag", "u1"), ("type", "u1")])
    ends["score_tag"], ends["type_tag"] = _tag(2, _FIXED32), _tag(3, _VARINT)
    ends["score"], ends["type"] = scores, types
    size = ends.itemsize
    encoded = [text.encode() for text in texts]
    texts_at = {length: _before_bytes(1, length) for length in set(map(len, encoded))}
    starts = {length: _before_bytes(1, len(at) + length + size) + at for length, at in texts_at.items()}
    after = (end for end, in struct.iter_unpack(f"{size}s", ends.tobytes()))
    return b"".join(chain.from_iterable(zip(map(starts.__getitem__, map(len, encoded)), encoded, after, strict=True)))


def _varint(value: int) -> bytes:
    """Base 128, low digits first, the high bit set on all but the last."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _tag(field: int, wire_type: int) -> int:
    return field << 3 | wire_type


def _varint_field(field: int, value: int) -> bytes:
    return _varint(_tag(field, _VARINT)) + _varint(value)


def _bytes_field(field: int, data: bytes) -> bytes:
    return _before_bytes(field, len(data)) + data


def _before_bytes(field: int, length: int) -> bytes:
    return _varint(_tag(field, _LENGTH)) + _varint(length)
