"""SentencePiece vocabularies with BPE from the tokenizer.json that was made of a tokenizer.model: GGUF's "llama"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...engine.tokenizer.spm import byte_value
from ...engine.tokenizer.vocabulary import TokenType
from ...kernels.errors import LcpuError
from .added import added_tokens
from .bpe_model import check_fallback, check_options, merge_pair, put_tokens
from .vocabulary import Vocabulary

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_PREPEND = {"type": "Prepend", "prepend": "▁"}
# Gemma's pre-tokenizer cuts at spaces, of which the normalizer has left none.
_NO_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_TAB, _TAB_BYTE = "\t", "<0x09>"


def read_byte_fallback(content: dict[str, Any], source: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises LcpuError for what a SentencePiece vocabulary cannot do.

    It has merges in the place of scores: the earlier the merge that builds a piece, the higher the piece's score.
    """
    model = content["model"]
    check_options(model, source)
    check_fallback(model, source)
    model = _with_tab_byte(model)
    vocabulary = Vocabulary("llama", "default")
    vocabulary.add_space_prefix, vocabulary.prepend_scheme = space_rules(content, source)
    types = {text: TokenType.NORMAL if byte_value(text) is None else TokenType.BYTE for text in model["vocab"]}
    if model.get("unk_token") is not None:
        types[model["unk_token"]] = TokenType.UNKNOWN
    added = added_tokens(content.get("added_tokens"), source)
    pieces = {text for text, type in types.items() if type == TokenType.NORMAL} - {entry.text for entry in added}
    built, never_built = _scores([merge_pair(merge, source) for merge in model["merges"]], pieces, source)
    types |= dict.fromkeys(never_built, TokenType.UNUSED)
    put_tokens(vocabulary, types, model, source, {text: built.get(text, -float(len(built))) for text in types})
    vocabulary.put_added(added)
    check_byte_tokens(vocabulary, source)
    return vocabulary


def _with_tab_byte(model: dict[str, Any]) -> dict[str, Any]:
    """A "model" with the byte token of the tab under its own name: Gemma 1 and 2 call it a tab."""
    if _TAB not in model["vocab"] or _TAB_BYTE in model["vocab"]:
        return model
    return model | {"vocab": {_TAB_BYTE if text == _TAB else text: token for text, token in model["vocab"].items()}}


def check_byte_tokens(vocabulary: Vocabulary, source: Path) -> None:
    """Raises LcpuError for a vocabulary that cannot express every text."""
    values = {byte_value(vocabulary.tokens[token]) for token, type in vocabulary.types.items()
              if type == TokenType.BYTE}
    if values != set(range(256)):
        raise LcpuError(f"{source}: has not all of the byte tokens <0x00> to <0xFF>, which engines need for characters "
                        "that have no token")


def space_rules(content: Mapping[str, Any], source: Path) -> tuple[bool, str | None]:
    """Where spaces go that are not in a text: GGUF's `add_space_prefix` and `prepend_scheme`."""
    normalizer, pretokenizer = content.get("normalizer"), content.get("pre_tokenizer")
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    if pretokenizer in (None, _NO_SPLIT) and steps == [_REPLACE]:
        return False, None
    if pretokenizer is None and steps == [_PREPEND, _REPLACE]:
        return True, None
    shape = [(pretokenizer or {}).get(key) for key in ("type", "replacement", "split")]
    if not steps and shape == ["Metaspace", "▁", False]:
        scheme = (pretokenizer or {}).get("prepend_scheme", "always")
        if scheme in ("first", "always"):
            return True, scheme
        if scheme == "never":
            return False, None
    shown = " ".join(str(pretokenizer or normalizer).split())[:200]
    raise LcpuError(f"{source}: the pre-tokenizer or normalizer {shown} is none that lcpu has")


def _scores(
    merges: Sequence[tuple[str, str]], pieces: set[str], source: Path
) -> tuple[dict[str, float], list[str]]:
    """The scores of the pieces that merges build, and the pieces that no merge builds, though two others make them up.

    SentencePiece builds a piece of any two others: LcpuError if merges leave out some of these pairs. Pieces whose
    merges are mixed have the same score.
    """
    ranks: dict[str, list[int]] = {}
    for rank, (left, right) in enumerate(dict.fromkeys(merges)):
        if pieces >= {left, right, left + right}:
            ranks.setdefault(left + right, []).append(rank)
    never_built = []
    for piece in sorted(pieces):
        pairs = sum(piece[:cut] in pieces and piece[cut:] in pieces for cut in range(1, len(piece)))
        if pairs and piece not in ranks:
            never_built.append(piece)
        elif pairs != len(ranks.get(piece, ())):
            raise LcpuError(f"{source}: the merges that build {piece[:80]!r} are not those of a SentencePiece model: "
                            "texts would get other ids in a GGUF file")
    scores: dict[str, float] = {}
    last, score = -1, 1.0
    for piece, own in ranks.items():  # in the order of their first merges
        score -= own[0] > last
        scores[piece] = score
        last = max(last, own[-1])
    return scores, never_built
