"""A vocabulary on its way into a GGUF file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError

_ADDED_SCORE = -1000.0  # SentencePiece never builds an added token, so any score will do


class AddedToken(NamedTuple):
    """A token that is found in a text before any other, whole."""

    id: int
    text: str
    is_special: bool  # part of the format, not of the text


@dataclass
class Vocabulary:
    """Tokens by id, which may have gaps: there, the model has rows that no text leads to."""

    model: str  # tokenizer.ggml.model: "llama" or "gpt2"
    pre: str  # tokenizer.ggml.pre
    tokens: dict[int, str] = field(default_factory=dict)
    types: dict[int, TokenType] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)  # of "llama"
    merges: list[str] = field(default_factory=list)  # of "gpt2": "left right"
    add_space_prefix: bool = False

    def put(self, token: int, text: str, type: TokenType, score: float = 0.0) -> None:
        self.tokens[token], self.types[token], self.scores[token] = text, type, score

    def put_added(self, added: Iterable[AddedToken]) -> None:
        for token, text, is_special in added:
            if self.types.get(token) == TokenType.UNKNOWN:
                continue
            # As in llama.cpp: what looks like part of the format is, whatever the file says.
            is_control = is_special or (text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>")))
            type = TokenType.CONTROL if is_control else TokenType.USER_DEFINED
            if self.model == "llama" and not is_control:
                text = text.replace("▁", " ")  # it is looked for in the text as it is
            self.put(token, text, type, _ADDED_SCORE)

    def ids(self) -> dict[str, int]:
        return {text: token for token, text in self.tokens.items()}

    def fit(self, size: int, source: Path) -> list[str]:
        """Give it as many tokens as the model has rows; the texts of added tokens that have none are returned.

        Raises LcpuError if there are ordinary tokens without a row.
        """
        lost = {token: text for token, text in self.tokens.items() if token >= size}
        if any(self.types[token] not in (TokenType.CONTROL, TokenType.USER_DEFINED) for token in lost):
            raise LcpuError(f"{source}: has {max(self.tokens) + 1} tokens, but the model only {size}: "
                            "it is another model's tokenizer")
        for token in lost:
            del self.tokens[token]
        for token in range(size):
            if token not in self.tokens:
                self.put(token, f"[PAD{token}]", TokenType.UNUSED, -10000.0)
        return list(lost.values())

    def metadata(self) -> dict[str, object]:
        order = sorted(self.tokens)
        keys: dict[str, object] = {
            "model": self.model,
            "pre": self.pre,
            "tokens": [self.tokens[token] for token in order],
            "token_type": np.array([self.types[token] for token in order], np.int32),
        }
        if self.model == "llama":
            keys["scores"] = np.array([self.scores[token] for token in order], np.float32)
            keys["add_space_prefix"] = self.add_space_prefix
        else:
            keys["merges"] = self.merges
            if self.add_space_prefix:
                keys["add_space_prefix"] = True
        return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def added_tokens(entries: Any, source: Path) -> list[AddedToken]:
    """The added tokens of a tokenizer.json, or of the added_tokens_decoder of a tokenizer_config.json."""
    if isinstance(entries, dict):
        entries = [entry | {"id": int(token)} for token, entry in entries.items()
                   if token.isdecimal() and isinstance(entry, dict)]
    tokens = []
    for entry in entries or ():
        token, text = (entry.get("id"), entry.get("content")) if isinstance(entry, dict) else (None, None)
        if type(token) is not int or token < 0 or type(text) is not str:
            raise LcpuError(f"{source}: holds an added token without id or content: damaged; download it again")
        tokens.append(AddedToken(token, text, bool(entry.get("special"))))
    return tokens
