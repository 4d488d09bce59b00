"""The tokenizer of a model: text to token ids and back."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import replace

from ...kernels.errors import LcpuError
from . import bpe, characters, spm
from .special import partition
from .vocabulary import TokenType, Vocabulary

_SILENT = frozenset({TokenType.UNDEFINED, TokenType.UNUSED})
_SPECIAL = frozenset({TokenType.CONTROL, TokenType.UNKNOWN})


class Tokenizer:
    """Turns text into the ids of a vocabulary's tokens and back, as llama.cpp does."""

    def __init__(self, vocabulary: Vocabulary):
        """Raises LcpuError if the vocabulary cannot be used."""
        kind = spm if vocabulary.model == "llama" else characters if vocabulary.merges_characters else bpe
        self.vocabulary = replace(vocabulary, merges=None)  # which take much memory, and the encoder has its own
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id, self.eos_id, self.end_ids = vocabulary.bos_id, vocabulary.eos_id, vocabulary.end_ids
        self.add_bos = vocabulary.add_bos
        self._encode_plain = kind.encoder(vocabulary)
        self._piece_bytes = kind.piece_bytes
        self._types = vocabulary.types.tolist()
        self._user_defined = self._longest_first(TokenType.USER_DEFINED)
        self._all_special = self._longest_first(TokenType.USER_DEFINED, *_SPECIAL)

    def _longest_first(self, *types: TokenType) -> list[tuple[str, int]]:
        tokens = [(self.vocabulary.tokens[token], token) for token in self.vocabulary.of_type(*types)]
        return sorted(tokens, key=lambda token: len(token[0].encode()), reverse=True)

    def encode(self, text: str, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text.

        With `add_bos`, BOS goes in front if the file asks for it (`self.add_bos`). EOS is never added, even if the file
        has `add_eos_token`: the text is to be continued. User-defined tokens are always found in the text; control
        tokens, such as `<|im_start|>`, only with `parse_special`, and are ordinary characters otherwise. What is not
        valid Unicode (surrogates) is read as U+FFFD. Raises LcpuError if the vocabulary has no way to express a
        character.
        """
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        ids = [self.bos_id] if add_bos and self.add_bos and self.bos_id is not None else []
        specials = self._all_special if parse_special else self._user_defined
        for index, part in enumerate(partition(text, specials, self.vocabulary.strips_after)):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encode_plain(self._space_before(part, is_first=index == 0) + part)
        return ids

    def _space_before(self, text: str, is_first: bool) -> str:
        """A space if one goes before `text`, which is the first of a prompt or follows a special token."""
        scheme = self.vocabulary.prepend_scheme
        has_space = text.startswith((" ", spm.SPACE) if self.vocabulary.model == "llama" else " ")
        is_left_out = (scheme == "first" and not is_first) or (scheme is not None and has_space)
        return " " if self.vocabulary.add_space_prefix and not is_left_out else ""

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of token ids. Bytes that are not UTF-8 become U+FFFD.

        Control and unknown tokens are left out, or with `skip_special=False` written as they are named. The space that
        `encode` puts before a SentencePiece text is taken away again. Raises LcpuError for an id out of range.
        """
        pieces: list[bytes] = []
        is_first = self.vocabulary.add_space_prefix
        for token in ids:
            piece = self.token_bytes(token, skip_special)
            if is_first and self._types[token] not in _SPECIAL:
                piece, is_first = piece.removeprefix(b" "), False
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")

    def token_bytes(self, token: int, skip_special: bool = True) -> bytes:
        """The bytes of one token, maybe a part of a character (see `Utf8Stream`). Empty for a control or unknown token,
        unless `skip_special=False`, and for an unused one. Raises LcpuError for an id out of range."""
        token = operator.index(token)
        if not 0 <= token < self.vocab_size:
            raise LcpuError(f"token {token} is not in the vocabulary; its tokens are 0 to {self.vocab_size - 1}")
        text, token_type = self.vocabulary.tokens[token], self._types[token]
        if token_type in _SILENT or (token_type in _SPECIAL and skip_special):
            return b""
        if token_type == TokenType.NORMAL:
            return self._piece_bytes(text)
        value = spm.byte_value(text) if token_type == TokenType.BYTE else None
        return text.encode() if value is None else bytes([value])
