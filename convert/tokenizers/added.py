"""Added tokens: found in a text before any other token, whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...kernels.errors import LcpuError


class AddedToken(NamedTuple):
    """An entry of "added_tokens" in a tokenizer.json."""

    id: int
    text: str
    is_special: bool  # part of the format, not of the text
    strips_left: bool = False  # takes the white space before it along
    strips_right: bool = False  # takes the white space after it along
    single_word: bool = False  # is not found inside of words
    normalized: bool = False  # is looked for in the text that the normalizer has changed


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
        flags = (bool(entry.get(name)) for name in ("special", "lstrip", "rstrip", "single_word", "normalized"))
        tokens.append(AddedToken(token, text, *flags))
    return tokens


def check_added(added: Iterable[AddedToken], strips_after: Collection[int], source: Path) -> None:
    """Raises LcpuError for tokens that are found in another way than GGUF can say.

    strips_after: the tokens of which the engine knows that they take the white space after them along. It knows
    Phi-3's by the model's name, as llama.cpp does.
    """
    for token in added:
        told = token.id in strips_after
        flags = {"lstrip": token.strips_left, "rstrip": token.strips_right and not told,
                 "single_word": token.single_word}
        wrong = next((name for name, is_set in flags.items() if is_set), None)
        if wrong is not None:
            raise LcpuError(f"{source}: the added token {token.text[:80]!r} has \"{wrong}\": true, which a GGUF file "
                            "cannot express: texts would get other ids. To convert it without, set it to false")
        if told and not token.strips_right:
            raise LcpuError(f"{source}: the added token {token.text[:80]!r} keeps the white space after it, but "
                            "engines drop it in models named Phi-3: give the model another name")
