"""The tokenizer of a checkpoint as metadata of a GGUF file."""

from __future__ import annotations

from pathlib import Path

from ...kernels.errors import LcpuError
from ..json_file import Config, read_json, read_json_if_there
from .byte_level import is_byte_level, read_byte_level
from .sentencepiece import read_byte_fallback, read_sentencepiece
from .special import special_metadata
from .vocabulary import Vocabulary, added_tokens

# What a tokenizer may be read from.
FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip


def tokenizer_metadata(folder: Path, config: Config, vocab_size: int) -> tuple[dict[str, object], list[str]]:
    """The keys of a tokenizer, and notes for the user. Raises LcpuError for one that the engine does not have."""
    try:
        source, vocabulary = _read_vocabulary(folder)
        lost = vocabulary.fit(vocab_size, source)
        keys = vocabulary.metadata() | special_metadata(folder, config, vocabulary)
        for text in keys.values():
            "".join(text if isinstance(text, (str, list)) else "").encode()
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:  # JSON of any shape
        cause = " ".join(str(error).split())[:80]
        raise LcpuError(f"{folder}: the files of the tokenizer are damaged ({type(error).__name__}: {cause}): "
                        "download them again") from None
    shown = ", ".join(map(repr, lost[:5]))
    notes = [f"{source.name} has tokens that the model has no rows for, which are left out: {shown}"] if lost else []
    return keys, notes


def _read_vocabulary(folder: Path) -> tuple[Path, Vocabulary]:
    """The vocabulary of a checkpoint, and the file that it is from."""
    as_json, as_model = folder / "tokenizer.json", folder / "tokenizer.model"
    if as_json.exists():
        content = read_json(as_json)
        if is_byte_level(content):
            return as_json, _from_json(content, as_json)
        if not as_model.exists():
            return as_json, _from_json(content, as_json)
    if not as_model.exists():
        raise LcpuError(f"{folder}: has neither tokenizer.json nor tokenizer.model: no tokenizer that lcpu can convert")
    vocabulary = read_sentencepiece(as_model)
    if as_json.exists():
        vocabulary.put_added(added_tokens(content.get("added_tokens"), as_json))
    else:
        old, new = folder / "added_tokens.json", folder / "tokenizer_config.json"
        entries = [{"content": text, "id": token} for text, token in read_json_if_there(old).items()]
        vocabulary.put_added(added_tokens(entries, old))
        vocabulary.put_added(added_tokens(read_json_if_there(new).get("added_tokens_decoder"), new))
    return as_model, vocabulary


def _from_json(content: dict[str, object], source: Path) -> Vocabulary:
    model = content.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        kind = model.get("type") if isinstance(model, dict) else None
        raise LcpuError(f"{source}: has a vocabulary of the kind {str(kind)[:40]!r}; lcpu converts BPE")
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("merges"), list):
        raise LcpuError(f"{source}: has a vocabulary of the kind {str(model.get('type'))[:40]!r}; lcpu converts BPE")
    if any(type(token) is not int or token < 0 for token in model["vocab"].values()):
        raise LcpuError(f"{source}: holds a token whose id is no number: damaged; download it again")
    return read_byte_level(content, source) if is_byte_level(content) else read_byte_fallback(content, source)
