"""BPE vocabularies of characters, from a tokenizer.json: GGUF's "gemma4"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.tokenizer.spm import byte_value
from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .added import added_tokens
from .bpe_model import check_fallback, check_options, merge_pair, put_tokens
from .byte_fallback import check_byte_tokens, space_rules
from .vocabulary import Vocabulary


def read_characters(content: dict[str, Any], source: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises LcpuError for what the engine has no equal of."""
    model = content["model"]
    check_options(model, source)
    check_fallback(model, source)
    if space_rules(content, source) != (False, None):
        raise LcpuError(f"{source}: puts a space before texts, which engines do not with a vocabulary of this kind")
    vocabulary = Vocabulary("gemma4", "gemma4")
    types = {text: TokenType.NORMAL if byte_value(text) is None else TokenType.BYTE for text in model["vocab"]}
    if model.get("unk_token") is not None:
        types[model["unk_token"]] = TokenType.UNKNOWN
    put_tokens(vocabulary, types, model, source)
    vocabulary.put_added(added_tokens(content.get("added_tokens"), source))
    check_byte_tokens(vocabulary, source)
    vocabulary.merges = [_merge(merge, source) for merge in model["merges"]]
    return vocabulary


def _merge(merge: Any, source: Path) -> str:
    left, right = merge_pair(merge, source)
    if " " in left + right:
        raise LcpuError(f"{source}: the merge {str(merge)[:80]!r} has a space, which a GGUF file cannot hold")
    return f"{left} {right}"
