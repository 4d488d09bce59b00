"""Layers whose queries see only the last positions, and what families with such layers have in common."""

from __future__ import annotations

from dataclasses import replace

from .builder import Builder
from .rope import RopeTable


def layer_windows(b: Builder, period: int, default: int = 0) -> list[int]:
    """How many positions a query of each layer sees; 0: all.

    The last of every `period` layers sees all, unless the file has another period, or says for each layer whether it
    has a window. default: the window of a file that does not say. Keys and rules are llama.cpp's (set_swa_pattern).
    """
    layers, pattern = b.h.block_count, "attention.sliding_window_pattern"
    window = b.keys.count("attention.sliding_window", default, least=0)
    local = b.keys.flags(pattern, layers)
    if local is None:
        period = b.keys.count(pattern, period, least=0)
        local = [period == 0 or (layer + 1) % period > 0 for layer in range(layers)]
    return [window if is_local else 0 for is_local in local]


def rope_tables(b: Builder, windows: list[int], base: float, attention_factor: float = 1.0,
                rotated: int = 0) -> list[RopeTable]:
    """The angles of each layer. Those with a window rotate without scaling, and with a base of their own.

    base: of a file that has none for them. attention_factor: theirs. rotated: of their heads' values, how many rotate,
    where it is another number than in other layers; then the file's factors are for these alone.
    """
    of_all = b.rope_table()
    if not any(windows):
        return [of_all] * len(windows)
    scaling = replace(b.h.rope_scaling, type="none", factor=1.0, attention_factor=attention_factor)
    base = b.keys.real("rope.freq_base_swa", base, low=2.0)
    h = replace(b.h, rope_freq_base=base, rope_scaling=scaling, rope_dimension_count=rotated or
                b.h.rope_dimension_count)
    of_windows = b.rope_table(h, has_factors=not rotated)
    return [of_windows if window else of_all for window in windows]
