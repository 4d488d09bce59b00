"""Does a converted tokenizer do what its source does? Asked of the libraries that define both, before weights are read.

The rules of this folder refuse what GGUF cannot express. What they overlook would give a model other tokens than it was
trained with, and nobody would notice: so the ids of some texts are compared as well.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from ...engine.tokenizer import Tokenizer
from ...engine.tokenizer.spm import SPACE
from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .added import AddedToken

_TEXTS = (
    "Hello world", "a", "\n", "  ", " It's a  test,   isn't it?\n\n\tYes: we'll see.  ", "----====####....!!!???",
    "x = [1, 22, 333, 4444];\r\n    return x*2.5e-10", "HTTPServer camelCase snake_case CONSTANT_NAME don't DON'T 3.14",
    "<html><body class='a'>&nbsp;</body></html>", "\u00a0\u3000\u200b\ufeff\x00\x7f",
    "\U0001f642 \U0001f469\u200d\U0001f680 ok", "Größe naïve façade",
    "日本語の文章です。한국어", "Ελληνικά русский עברית العربية हिन्दी",
)  # fmt: skip
_MOST_TOKENS = 64  # special tokens whose surroundings are tried

Encode = Callable[[str], list[int]]


def check_against_json(path: Path, tokenizer: Tokenizer, added: Collection[AddedToken], skipped: set[str]) -> None:
    """Raises LcpuError unless `tokenizer` gives the ids that a tokenizer.json gives. `skipped`: tokens not to try."""
    from tokenizers import Tokenizer as Reference

    try:
        reference = Reference.from_file(str(path))
    except Exception as error:
        cause = " ".join(str(error).split())[:160]
        raise LcpuError(f"{path}: the library `tokenizers` cannot read it ({cause}): download it again") from None
    for entry in added:
        if (token := reference.token_to_id(entry.text)) != entry.id:
            raise LcpuError(f"{path}: the added token {entry.text[:80]!r} has the id {entry.id}, but the library "
                            f"`tokenizers` gives it {token}: it must come after the tokens before it")
    specials = _tried(tokenizer, skipped)
    texts = [*_TEXTS, *_overlaps(specials), *_around(specials), *_runs(tokenizer)]
    _compare(path, tokenizer, lambda text: reference.encode(text, add_special_tokens=False).ids, texts)


def check_against_sentencepiece(path: Path, tokenizer: Tokenizer) -> None:
    """Raises LcpuError unless `tokenizer` gives the ids that a tokenizer.model gives."""
    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    size = reference.get_piece_size()
    pieces = [text for text, token in _special(tokenizer, TokenType.USER_DEFINED) if token < size]
    texts = [*_TEXTS, *_around(_spread(pieces))]
    if tokenizer.vocabulary.prepend_scheme is not None:  # SentencePiece puts a space before a space, transformers not
        texts = [text for text in texts if not text.startswith(" ")]
    _compare(path, tokenizer, reference.encode, texts)


def _compare(path: Path, tokenizer: Tokenizer, reference: Encode, texts: list[str]) -> None:
    for text in texts:
        text = unicodedata.normalize("NFC", text)
        if tokenizer.encode(text, add_bos=False, parse_special=True) != reference(text):
            raise LcpuError(f"{path}: the text {text[:120]!r} would get other ids from a GGUF file than from this "
                            "tokenizer: it cannot be converted")


def _special(tokenizer: Tokenizer, *types: TokenType) -> list[tuple[str, int]]:
    vocabulary = tokenizer.vocabulary
    return [(vocabulary.tokens[token], token) for token in vocabulary.of_type(*types)]


def _tried(tokenizer: Tokenizer, skipped: set[str]) -> list[str]:
    found = _special(tokenizer, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    return _spread([text for text, _ in found if text not in skipped])


def _spread(texts: list[str]) -> list[str]:
    """A part of a long list, from all over it."""
    return texts[:: -(-len(texts) // _MOST_TOKENS)] if texts else []


def _around(specials: list[str]) -> Iterator[str]:
    for text in specials:
        yield f"Hello {text} world{text}{text}\n{text} \n\n{text}a{text}  {text}"
        yield f"{text}\n hello"


def _overlaps(specials: list[str]) -> Iterator[str]:
    """Texts in which two special tokens overlap: it depends on the search which of them is found."""
    starts: dict[str, list[str]] = {}
    for text in specials:
        for length in range(1, len(text)):
            starts.setdefault(text[:length], []).append(text)
    for text in specials:
        for length in range(1, len(text)):
            for other in starts.get(text[-length:], ())[:_MOST_TOKENS]:
                yield text + other[length:]


def _runs(tokenizer: Tokenizer) -> Iterator[str]:
    """Texts of pieces that have the same score, such as Llama's runs of spaces: the first in a text is built first."""
    groups: dict[float, list[str]] = {}
    if (scores := tokenizer.vocabulary.scores) is not None:
        for token in tokenizer.vocabulary.of_type(TokenType.NORMAL):
            if len(text := tokenizer.vocabulary.tokens[token]) > 1:
                groups.setdefault(float(scores[token]), []).append(text.replace(SPACE, " "))
    for group in groups.values():
        pieces = _spread(group) if len(group) > 1 else []
        yield from (first + second for first in pieces for second in pieces)
        yield from (piece * times for piece in pieces for times in (3, 4, 5))
