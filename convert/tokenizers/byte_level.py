"""Byte-level BPE vocabularies, from a tokenizer.json: GGUF's "gpt2"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .pretokenizer import recognise
from .vocabulary import Vocabulary, added_tokens


def is_byte_level(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json turns bytes into characters before it merges."""
    definition = content.get("pre_tokenizer") or {}
    steps = definition.get("pretokenizers", [definition])
    return any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in steps)


def read_byte_level(content: dict[str, Any], source: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises LcpuError for what the engine has no equal of."""
    check_normalizer(content.get("normalizer"), source)
    model = content["model"]
    pretokenizer = recognise(content.get("pre_tokenizer"), bool(model.get("ignore_merges")), source)
    vocabulary = Vocabulary("gpt2", pretokenizer.name, add_space_prefix=pretokenizer.add_space_prefix)
    for text, token in model["vocab"].items():
        vocabulary.put(token, text, TokenType.NORMAL)
    vocabulary.put_added(added_tokens(content.get("added_tokens"), source))
    vocabulary.merges = [_merge(merge, source) for merge in model["merges"]]
    return vocabulary


def check_normalizer(definition: Any, source: Path) -> None:
    """Unicode normalization to NFC is passed over, as in llama.cpp: most text is in it. Anything else is refused."""
    steps = definition.get("normalizers", [definition]) if isinstance(definition, dict) else []
    others = [step for step in steps if not isinstance(step, dict) or step.get("type") != "NFC"]
    if others:
        shown = " ".join(str(others[0]).split())[:200]
        raise LcpuError(f"{source}: the normalizer {shown} changes texts in a way that lcpu cannot")


def _merge(merge: Any, source: Path) -> str:
    """A merge, in one of its two spellings, as "left right"."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
        raise LcpuError(f"{source}: the merge {str(merge)[:80]!r} is not two tokens: damaged; download it again")
    return " ".join(part.replace(" ", "Ġ") for part in pair)
