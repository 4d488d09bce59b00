"""A vocabulary on its way into a GGUF file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .added import AddedToken

# What programs read in the answers of Gemma 4: llama.cpp's list.
_SHOWN = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
_ADDED_SCORE = -1000.0  # SentencePiece never builds an added token, so any score will do


@dataclass
class Vocabulary:
    """Tokens by id, which may have gaps: there, the model has rows that no text leads to."""

    model: str  # tokenizer.ggml.model: "llama", "gpt2" or "gemma4"
    pre: str  # tokenizer.ggml.pre
    tokens: dict[int, str] = field(default_factory=dict)
    types: dict[int, TokenType] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)  # of "llama"
    merges: list[str] = field(default_factory=list)  # of the others: "left right"
    added: list[AddedToken] = field(default_factory=list)
    add_space_prefix: bool = False
    prepend_scheme: str | None = None  # tokenizer.ggml.prepend_scheme

    def put(self, token: int, text: str, type: TokenType, score: float = 0.0) -> None:
        self.tokens[token], self.types[token], self.scores[token] = text, type, score

    def put_added(self, added: Iterable[AddedToken]) -> None:
        for entry in added:
            token, text = entry.id, entry.text
            self.added.append(entry)
            if self.types.get(token) == TokenType.UNKNOWN:
                continue
            # As in llama.cpp: what looks like part of the format is, whatever the file says.
            is_control = entry.is_special or (text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>")))
            is_control &= not (self.model == "gemma4" and text in _SHOWN)
            type = TokenType.CONTROL if is_control else TokenType.USER_DEFINED
            if self.model == "llama" and not is_control:
                text = text.replace("▁", " ")  # it is looked for in the text as it is
            self.put(token, text, type, _ADDED_SCORE)

    def ids(self) -> dict[str, int]:
        return {text: token for token, text in self.tokens.items()}

    def fit(self, size: int, source: Path) -> list[str]:
        """Give it as many tokens as the model has rows; the texts of added tokens that have none are returned.

        Raises LcpuError if there are ordinary tokens without a row, and if two tokens have the same text.
        """
        lost = {token: text for token, text in self.tokens.items() if token >= size}
        if any(self.types[token] not in (TokenType.CONTROL, TokenType.USER_DEFINED) for token in lost):
            raise LcpuError(f"{source}: has {max(self.tokens) + 1} tokens, but the model only {size}: "
                            "it is another model's tokenizer")
        for token in lost:
            del self.tokens[token]
        self.added = [entry for entry in self.added if entry.id in self.tokens]
        ids = self.ids()
        twice = next((token for token, text in self.tokens.items() if ids[text] != token), None)
        if twice is not None:
            text = self.tokens[twice]
            raise LcpuError(f"{source}: the token {text[:80]!r} has two ids, {twice} and {ids[text]}, which a GGUF "
                            "file cannot hold: remove one of them")
        for token in range(size):
            if token not in self.tokens:
                filler = f"[PAD{token}]"
                while filler in ids:
                    filler = f"[{filler}]"
                self.put(token, filler, TokenType.UNUSED, -10000.0)
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
            if self.add_space_prefix or self.model == "gemma4":
                keys["add_space_prefix"] = self.add_space_prefix
        if self.prepend_scheme is not None:
            keys["prepend_scheme"] = self.prepend_scheme
        return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
