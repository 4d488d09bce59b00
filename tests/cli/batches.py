"""Requests and answers of `lcpu batch`, for its tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Batch = Callable[..., tuple[int, list[Any], str]]

LINES: list[dict[str, Any]] = [
    {"prompt": "abc", "max_tokens": 20},
    {"prompt": "the quick brown fox", "max_tokens": 5, "id": "fox", "temperature": 1.5},
    {"prompt": "hello there", "temperature": 0, "max_tokens": 30},
    {"prompt": "abc", "max_tokens": 20, "seed": 9},
    {"prompt": [1, 262, 263], "max_tokens": 3, "top_k": 1},
    {"prompt": "x", "max_tokens": 0},
    {"prompt": "zebra", "repeat_penalty": 1.3, "max_tokens": 12, "stop": ["e"]},
]


def written(lines: list[Any]) -> str:
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def said(answers: list[Any]) -> list[Any]:
    """The answers, without how much of their prompts was found in the cache."""
    return [{**answer, "usage": answer["usage"] | {"prompt_tokens_details": None}} for answer in answers]


def answers_in(path: Path | str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
