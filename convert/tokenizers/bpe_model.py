"""What all BPE models of a tokenizer.json have in common: options, tokens and merges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .vocabulary import Vocabulary

# Options that change ids in a way that GGUF cannot express.
_UNKNOWN_OPTIONS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


def check_options(model: Mapping[str, Any], source: Path) -> None:
    """Raises LcpuError for a "model" that is no BPE, or BPE of a kind that a GGUF file cannot hold."""
    if model.get("type", "BPE") != "BPE" or not (isinstance(model.get("vocab"), dict)
                                                 and isinstance(model.get("merges"), list)):
        raise LcpuError(f"{source}: has a vocabulary of the kind {str(model.get('type'))[:40]!r}; lcpu converts BPE")
    for option in _UNKNOWN_OPTIONS:
        if model.get(option):
            raise LcpuError(f"{source}: the model has {option} {str(model[option])[:40]!r}, which a GGUF file cannot "
                            "express: texts would get other ids")


def check_fallback(model: Mapping[str, Any], source: Path) -> None:
    """Raises LcpuError for a "model" of characters that has no bytes for those without a token."""
    if not model.get("byte_fallback") or model.get("ignore_merges"):
        wrong = "no byte_fallback" if not model.get("byte_fallback") else "ignore_merges"
        raise LcpuError(f"{source}: the model has {wrong}, which engines do not know of a vocabulary of this kind")


def put_tokens(vocabulary: Vocabulary, types: Mapping[str, TokenType], model: Mapping[str, Any], source: Path,
               scores: Mapping[str, float] | None = None) -> None:
    """Put the tokens of a "model" into a vocabulary."""
    for text, type in types.items():
        token = model["vocab"][text]
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise LcpuError(f"{source}: holds a token whose id is no number: damaged; download it again")
        if token in vocabulary.tokens:
            raise LcpuError(f"{source}: the tokens {vocabulary.tokens[token][:80]!r} and {text[:80]!r} have the same "
                            f"id, {token}, which a GGUF file cannot hold")
        vocabulary.put(token, text, type, scores[text] if scores else 0.0)


def merge_pair(merge: Any, source: Path) -> tuple[str, str]:
    """A merge, which has one of two spellings, as (left, right)."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
        raise LcpuError(f"{source}: the merge {str(merge)[:80]!r} is not two tokens: damaged; download it again")
    return pair[0], pair[1]
