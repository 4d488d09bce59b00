"""Byte-level BPE vocabularies, from a tokenizer.json: GGUF's "gpt2"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.tokenizer.bpe import BYTE_CHARACTERS
from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .added import added_tokens
from .bpe_model import check_options, merge_pair, put_tokens
from .pretokenizer import recognise
from .vocabulary import Vocabulary


def is_byte_level(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json turns bytes into characters before it merges."""
    definition = content.get("pre_tokenizer") or {}
    steps = definition.get("pretokenizers", [definition])
    return any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in steps)


def read_byte_level(content: dict[str, Any], source: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises LcpuError for what the engine has no equal of."""
    check_normalizer(content.get("normalizer"), source)
    model = content["model"]
    check_options(model, source)
    missing = [byte for byte, character in BYTE_CHARACTERS.items() if character not in model["vocab"]]
    if missing and (model.get("unk_token") is not None or model.get("byte_fallback")):
        raise LcpuError(f"{source}: has no token for the byte {missing[0]} and another one in its place, which a GGUF "
                        "file cannot express")
    pretokenizer = recognise(content.get("pre_tokenizer"), bool(model.get("ignore_merges")), source)
    vocabulary = Vocabulary("gpt2", pretokenizer.name)
    if pretokenizer.add_space_prefix:
        vocabulary.add_space_prefix, vocabulary.prepend_scheme = True, "always"
    put_tokens(vocabulary, dict.fromkeys(model["vocab"], TokenType.NORMAL), model, source)
    vocabulary.put_added(added_tokens(content.get("added_tokens"), source))
    vocabulary.merges = [_merge(merge, source) for merge in model["merges"]]
    return vocabulary


def normalizes_to_nfc(content: dict[str, Any]) -> bool:
    """Whether texts are brought into Unicode's form NFC first, if `check_normalizer` has nothing against it."""
    definition = content.get("normalizer")
    return isinstance(definition, dict) and definition.get("normalizers") != []


def check_normalizer(definition: Any, source: Path) -> None:
    """Unicode normalization to NFC is passed over, as in llama.cpp: most text is in it. Anything else is refused."""
    steps = definition.get("normalizers", [definition]) if isinstance(definition, dict) else []
    others = [step for step in steps if not isinstance(step, dict) or step.get("type") != "NFC"]
    if others:
        shown = " ".join(str(others[0]).split())[:200]
        raise LcpuError(f"{source}: the normalizer {shown} changes texts in a way that lcpu cannot")


def _merge(merge: Any, source: Path) -> str:
    """A merge, in one of its two spellings, as "left right"."""
    return " ".join(part.replace(" ", "Ġ") for part in merge_pair(merge, source))
