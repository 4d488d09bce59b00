"""The options of a generation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..kernels.errors import LcpuError


@dataclass(frozen=True)
class GenerationOptions:
    """The defaults are llama.cpp's. Raises LcpuError for a value out of range."""

    max_tokens: int = -1  # -1: until the model ends the text, or the context is full
    temperature: float = 0.8  # 0: always the most likely token
    top_k: int = 40  # 0: all tokens
    top_p: float = 0.95  # 1: all tokens
    min_p: float = 0.05  # 0: all tokens
    repeat_penalty: float = 1.0  # 1: none
    repeat_last_n: int = 64  # how many of the last tokens the penalty looks at; 0: none, -1: all
    seed: int | None = None  # None: a random one
    stop: tuple[str, ...] = ()  # strings that end the text and are not part of it
    ignore_eos: bool = False  # never choose a token that ends the text
    context_shift: bool = False  # at a full context, drop the oldest half of what is not kept, and go on
    keep: int = 0  # tokens of the prompt that are then kept, beside a BOS token; -1: all of the prompt

    def __post_init__(self) -> None:
        for name, least, most in (("temperature", 0.0, 1e6), ("top_p", 0.0, 1.0), ("min_p", 0.0, 1.0),
                                  ("repeat_penalty", 1e-6, 1e6), ("max_tokens", -1, math.inf),
                                  ("repeat_last_n", -1, math.inf), ("keep", -1, math.inf), ("top_k", 0, math.inf)):
            value = getattr(self, name)
            if not least <= value <= most:  # also for NaN
                raise LcpuError(f"{name} is {value}; it must be {_range(least, most)}")
        if self.seed is not None and self.seed < 0:
            raise LcpuError(f"seed is {self.seed}; it must be at least 0")
        if any(not text for text in self.stop):
            raise LcpuError("a stop string is empty: it would end every text at once; leave it out")


def _range(least: float, most: float) -> str:
    return f"at least {least}" if most == math.inf else f"{least:g} to {most:g}"
