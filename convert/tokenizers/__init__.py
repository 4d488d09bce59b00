"""The tokenizer of a checkpoint as metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...engine.tokenizer import Tokenizer, from_metadata
from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from ..json_file import Config, read_json, read_json_if_there
from .added import added_tokens, check_added
from .byte_fallback import read_byte_fallback
from .byte_level import is_byte_level, normalizes_to_nfc, read_byte_level
from .characters import read_characters
from .check import check_against_json, check_against_sentencepiece
from .sentencepiece import read_sentencepiece
from .special import special_metadata
from .vocabulary import Vocabulary

# What a tokenizer may be read from.
FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip


def tokenizer_metadata(
    folder: Path, config: Config, vocab_size: int, model_name: str = "", *, keeps_merges: bool = False
) -> tuple[dict[str, object], list[str]]:
    """The keys of a tokenizer, and notes for the user. `model_name` is `general.name`, by which engines know Phi-3.

    keeps_merges: a vocabulary of characters is not SentencePiece's, whose scores take the place of merges.

    Raises LcpuError for one that the engine does not have, or of which it would make other ids.
    """
    try:
        source = _read_source(folder, keeps_merges)
        vocabulary = source.vocabulary
        lost = vocabulary.fit(vocab_size, source.path)
        special, notes = special_metadata(folder, config, vocabulary)
        keys = vocabulary.metadata() | special
        for text in keys.values():
            "".join(text if isinstance(text, (str, list)) else "").encode()
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:  # JSON of any shape
        cause = " ".join(str(error).split())[:80]
        raise LcpuError(f"{folder}: the files of the tokenizer are damaged ({type(error).__name__}: {cause}): "
                        "download them again") from None
    tokenizer = from_metadata(keys | {"general.name": model_name})
    check_added(vocabulary.added, tokenizer.vocabulary.strips_after, source.path)
    named = _special_by_name(vocabulary, tokenizer)
    if source.is_json:
        check_against_json(source.path, tokenizer, vocabulary.added, source.normalized_tokens | named)
    else:
        check_against_sentencepiece(source.path, tokenizer)
    if lost:
        notes.append(f"{source.path.name} has tokens that the model has no rows for, which are left out: {_some(lost)}")
    if named:
        notes.append(f"engines read these texts as special tokens, which {source.path.name} does not: {_some(named)}")
    return keys, [*notes, *source.notes()]


def _special_by_name(vocabulary: Vocabulary, tokenizer: Tokenizer) -> set[str]:
    """Tokens that engines take for special ones by their text, whatever the file says."""
    special = tokenizer.vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)
    return {vocabulary.tokens[token] for token in special if vocabulary.types[token] == TokenType.NORMAL}


def _some(texts: Iterable[str]) -> str:
    return ", ".join(sorted(map(repr, texts))[:5])


@dataclass(frozen=True)
class _Source:
    """A vocabulary, and the file that it is from."""

    path: Path
    vocabulary: Vocabulary
    is_json: bool = True
    to_nfc: bool = False

    @property
    def normalized_tokens(self) -> set[str]:
        """Added tokens that are looked for after "▁" was put before texts, so that they are found after spaces only."""
        prepends = self.is_json and self.vocabulary.add_space_prefix and self.vocabulary.prepend_scheme is None
        return {entry.text for entry in self.vocabulary.added if prepends and entry.normalized}

    def notes(self) -> list[str]:
        notes = []
        if self.normalized_tokens:
            shown = _some(self.normalized_tokens)
            notes.append(f"added tokens that tokenizer.json finds only after a space are found everywhere: {shown}")
        if self.vocabulary.model == "gpt2" and self.vocabulary.prepend_scheme:
            notes.append("a space goes before every text, which tokenizer.ggml.prepend_scheme says: a program that "
                         "does not read this key, such as llama.cpp, makes other ids")
        if self.to_nfc:
            notes.append("tokenizer.json brings texts into Unicode's form NFC, which most are in; a GGUF file cannot "
                         "express it")
        return notes


def _read_source(folder: Path, keeps_merges: bool) -> _Source:
    """The tokenizer.json is what transformers reads; a tokenizer.model beside it is what that one was made of."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return _Source(folder / "tokenizer.model", _from_model(folder), is_json=False)
    content = read_json(path)
    if not isinstance(content.get("model"), dict):
        raise LcpuError(f"{path}: has no model: damaged; download it again")
    if is_byte_level(content):
        return _Source(path, read_byte_level(content, path), to_nfc=normalizes_to_nfc(content))
    return _Source(path, (read_characters if keeps_merges else read_byte_fallback)(content, path))


def _from_model(folder: Path) -> Vocabulary:
    """The vocabulary of a checkpoint without a tokenizer.json."""
    path = folder / "tokenizer.model"
    if not path.exists():
        raise LcpuError(f"{folder}: has neither tokenizer.json nor tokenizer.model: no tokenizer that lcpu can convert")
    vocabulary = read_sentencepiece(path)
    old, new = folder / "added_tokens.json", folder / "tokenizer_config.json"
    settings = read_json_if_there(new)
    if settings.get("legacy") is False and vocabulary.add_space_prefix:
        vocabulary.prepend_scheme = "first"  # as transformers reads it
    entries = [{"content": text, "id": token} for text, token in read_json_if_there(old).items()]
    vocabulary.put_added(added_tokens(entries, old))
    vocabulary.put_added(added_tokens(settings.get("added_tokens_decoder"), new))
    return vocabulary
