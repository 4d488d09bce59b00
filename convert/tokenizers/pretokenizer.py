"""Which of the engine's pre-tokenizers a tokenizer.json defines.

A definition is a sequence of steps, each of which cuts a text at the matches of a regular expression; the engine's
table holds these expressions. What is not in the table is refused: another pre-tokenizer would give other tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ...engine.tokenizer.pretokenizers import PRETOKENIZERS
from ...kernels.errors import LcpuError

# Of several names for the same rules, those by which llama.cpp knows the models that lcpu converts.
_PREFERRED = ("llama-bpe", "qwen2", "smollm", "gpt-2", "tekken")

# What a ByteLevel step cuts by unless it is told not to.
_BYTE_LEVEL = PRETOKENIZERS["gpt-2"].patterns[0]


class Recognised(NamedTuple):
    name: str  # tokenizer.ggml.pre
    add_space_prefix: bool  # before a text that does not begin with one


def recognise(definition: Any, ignore_merges: bool, source: Path) -> Recognised:
    """The pre-tokenizer that "pre_tokenizer" of a tokenizer.json is. Raises LcpuError if it is none of the table."""
    steps = definition.get("pretokenizers", [definition]) if isinstance(definition, dict) else []
    if _is_falcon(steps):
        return Recognised("falcon", False)
    if any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in steps[:-1]):
        raise LcpuError(f"{source}: the pre-tokenizer cuts texts after its step ByteLevel, which lcpu cannot do: "
                        "take another checkpoint")
    patterns = tuple(pattern for step in steps for pattern in _patterns(step, source))
    matching = [name for name, known in PRETOKENIZERS.items()
                if known.patterns == patterns and known.ignore_merges == ignore_merges]
    if not matching:
        shown = " ".join(str(patterns).split())[:300]
        merges = "with" if ignore_merges else "without"
        raise LcpuError(f"{source}: the pre-tokenizer {shown} ({merges} ignore_merges) is none that lcpu has: "
                        f"{', '.join(sorted(PRETOKENIZERS))}")
    preferred = [name for name in _PREFERRED if name in matching]
    prefix = bool(steps[-1].get("add_prefix_space"))
    if prefix and len(steps) > 1:
        raise LcpuError(f"{source}: the pre-tokenizer puts a space before every word, which lcpu cannot do: "
                        "take another checkpoint")
    return Recognised((preferred or matching)[0], prefix)


def _is_falcon(steps: list[Any]) -> bool:
    """Falcon cuts out punctuation, then words, and threes of digits at last, when bytes have become characters.

    Digits are bytes of their own, so that these cuts may come first. It may cut between digits and others before: its
    merges, made so, join nothing there.
    """
    kinds = [step.get("type") if isinstance(step, dict) else None for step in steps]
    if kinds not in (["Punctuation", "ByteLevel", "Split"], ["Punctuation", "ByteLevel", "Digits", "Split"]):
        return False
    punctuation, byte_level, *digits, split = steps
    return (punctuation.get("behavior") == "Contiguous" and byte_level.get("use_regex", True)
            and not byte_level.get("add_prefix_space") and not any(step.get("individual_digits") for step in digits)
            and split.get("pattern") == {"Regex": PRETOKENIZERS["falcon"].patterns[-1]}
            and split.get("behavior") == "Isolated")


def _patterns(step: Any, source: Path) -> list[str]:
    """The expressions that one step cuts by: none or one."""
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "ByteLevel":
        return [_BYTE_LEVEL] if step.get("use_regex", True) else []
    if kind == "Digits":
        return [r"\p{N}" if step.get("individual_digits") else r"\p{N}+"]
    if kind == "Split" and isinstance(step.get("pattern"), dict):
        pattern = step["pattern"].get("Regex")
        isolated = step.get("behavior") == "Isolated"
        # Keeping the matches and dropping what is between them is the same where there is nothing between them.
        matches_all = step.get("behavior") == "Removed" and step.get("invert") and str(pattern).endswith(r"|\s+")
        if isinstance(pattern, str) and (isolated or matches_all):
            return [pattern]
    shown = " ".join(str(step).split())[:400]
    raise LcpuError(f"{source}: the pre-tokenizer has the step {shown}, which lcpu cannot do: take another checkpoint")
