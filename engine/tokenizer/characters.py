"""BPE vocabularies of characters (`tokenizer.ggml.model` = "gemma4"): merges as in byte-level ones, pieces as in
SentencePiece's.

Spaces are "▁". Only line ends cut a text; a character without a token becomes its bytes, `<0x00>` to `<0xFF>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import bpe
from .spm import SPACE, piece_bytes
from .vocabulary import Vocabulary

__all__ = ["encoder", "piece_bytes"]

_LINES = re.compile(r"\n+|[^\n]+")


def encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """A function from text to ids. It knows no special tokens; a byte without a token is left out, as in llama.cpp.

    Line ends that have a token together get it, whatever the merges say, as in llama.cpp.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer(bpe.model(vocabulary, byte_fallback=True))
    ids = vocabulary.ids

    def encode(text: str) -> list[int]:
        tokens: list[int] = []
        for part in _LINES.findall(text.replace(" ", SPACE)):
            if part[0] == "\n" and part in ids:
                tokens.append(ids[part])
            else:
                tokens += tokenizer.encode(part, add_special_tokens=False).ids
        return tokens

    return encode
