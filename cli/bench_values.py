"""Parse the values of `lcpu bench`: lists, ranges and repeated flags, as in llama-bench."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .options import UsageError

_RANGE = re.compile(r"(-?\d+)(?:-(\d+)(?:([+*])(\d+))?)?")  # first[-last[(+|*)step]]
_LARGEST = 1 << 24
_MOST = 1000  # values of a range: more are probably a mistake


def numbers(texts: Sequence[str] | None, default: Sequence[int], flag: str, *, least: int = 0,
            most: int = _LARGEST) -> list[int]:
    """The numbers of one flag, such as "1,2", "1-4", "8-64+8", "128-1024*2", or several of these with commas."""
    if not texts:
        return list(default)
    values = [value for text in texts for part in text.split(",") for value in _range(part.strip(), flag)]
    for value in values:
        if not least <= value <= most:
            raise UsageError(f"Invalid value for '{flag}': {value} is not {least} to {most}")
    return values


def _range(text: str, flag: str) -> list[int]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise UsageError(f"Invalid value for '{flag}': {text!r} is not a number, a list such as 1,2,4, "
                         "or a range such as 1-4, 8-64+8 or 128-1024*2")
    first, last = int(match[1]), int(match[2] or match[1])
    operation, step = match[3] or "+", int(match[4] or 1)
    values, value = [], first
    while value <= last:
        values.append(value)
        value = value + step if operation == "+" else value * step
        if value <= values[-1] or len(values) > _MOST:
            raise UsageError(f"Invalid value for '{flag}': {text!r} has no end, or too many values: "
                             "take a larger step or factor")
    if not values:
        raise UsageError(f"Invalid value for '{flag}': {text!r} goes down: name the smaller number first")
    return values


def shares(texts: Sequence[str] | None, default: Sequence[float], flag: str) -> list[float]:
    """Numbers from 0 to 1."""
    found = []
    for part in names(texts):
        if not re.fullmatch(r"[01]|0?\.\d+|1\.0+", part):
            raise UsageError(f"Invalid value for '{flag}': {part!r} is not a share, 0 to 1, such as 0.8")
        found.append(float(part))
    return found or list(default)


def pairs(texts: Sequence[str] | None, flag: str) -> list[tuple[int, int]]:
    """(prompt tokens, generated tokens) of each "512,128"."""
    found = []
    for text in texts or ():
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
        if match is None or max(prompt := int(match[1]), generated := int(match[2])) > _LARGEST:
            raise UsageError(f"Invalid value for '{flag}': {text!r} is not PROMPT,GENERATED, such as 512,128")
        if prompt or generated:
            found.append((prompt, generated))
    return found


def names(texts: Sequence[str] | None) -> list[str]:
    """The words of comma-separated lists."""
    return [part.strip() for text in texts or () for part in text.split(",") if part.strip()]


def cache_types(texts: Sequence[str] | None, flag: str) -> list[str]:
    """Types of keys or values in the cache."""
    found = names(texts) or ["f16"]
    for name in found:
        if name not in ("f16", "q8_0"):
            raise UsageError(f"Invalid value for '{flag}': {name!r} is not f16 or q8_0")
    return list(dict.fromkeys(found))


def files(paths: Sequence[Path] | None) -> list[Path]:
    """The paths of comma-separated lists. If a file with the whole name exists, the commas are part of its name."""
    return [Path(part) for path in paths or () for part in ([path] if path.exists() else names([str(path)]))]
