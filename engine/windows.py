"""Layers whose queries see only the last positions, and what families with such layers have in common."""

from __future__ import annotations

from .builder import Builder


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
