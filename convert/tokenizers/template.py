"""What a tokenizer.json puts around a text: its "post_processor"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...kernels.errors import LcpuError
from ..json_file import read_json_if_there


def tokens_around(folder: Path) -> dict[str, int]:
    """The ids of the tokens around a text, by "bos" and "eos"; empty if there are none.

    Raises LcpuError for anything else than one token before a text, one after it, or both: GGUF can say no more.
    """
    path = folder / "tokenizer.json"
    definition = read_json_if_there(path).get("post_processor") or {}
    steps = definition.get("processors", [definition])
    templates = [step for step in steps if step.get("type", "ByteLevel") != "ByteLevel"]  # which only counts characters
    if not templates:
        return {}
    if len(templates) > 1 or templates[0]["type"] != "TemplateProcessing":
        kind = templates[-1]["type"]
        raise LcpuError(f"{path}: the post-processor {str(kind)[:40]!r} is none that lcpu has")
    single = templates[0]["single"]
    kinds = [kind for piece in single for kind in piece]
    at = kinds.index("Sequence") if kinds.count("Sequence") == 1 else 2
    if len(kinds) > 3 or at > 1 or len(kinds) - at > 2 or len(kinds) != len(single):
        shown = " ".join(_name(piece) for piece in single)
        raise LcpuError(f"{path}: texts become {shown[:200]!r}; a GGUF file allows one token before and one after")
    found = {}
    for index, piece in enumerate(single):
        if index != at:
            (token,) = _ids(piece, templates[0], path)
            found["bos" if index < at else "eos"] = token
    return found


def _name(piece: dict[str, Any]) -> str:
    return " ".join(str(content.get("id")) for content in piece.values())


def _ids(piece: dict[str, Any], template: dict[str, Any], path: Path) -> list[int]:
    name = piece["SpecialToken"]["id"]
    ids = template["special_tokens"][name]["ids"]
    if len(ids) != 1 or type(ids[0]) is not int:
        raise LcpuError(f"{path}: puts the tokens {str(ids)[:80]} around a text; a GGUF file allows only one before "
                        "and one after")
    return ids
