"""Which layers of a model have a type that others do not: llama.cpp's conditions (src/llama-quant.cpp).

A condition takes a layer's index and the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable

Condition = Callable[[int, int], bool]

# Conditions, each with the type of the layers it is true of that no earlier one is true of, and the type of the others,
# if that is not the base.
Rule = tuple[Condition | str, ...]
Rules = dict[str, Rule]  # by role


def more_bits(index: int, count: int) -> bool:
    """The first and the last eighth of the layers, and every third between them."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def first_eighth(index: int, count: int) -> bool:
    return index < count // 8


def middle(index: int, count: int) -> bool:
    """All but the first and the last eighth of the layers."""
    return count // 8 <= index < 7 * count // 8


def every(index: int, count: int) -> bool:
    return True


def first_four(index: int, count: int) -> bool:
    return index < 4


def first_two(index: int, count: int) -> bool:
    return index < 2


def first_sixteenth(index: int, count: int) -> bool:
    return index < count // 16


def type_by(rule: Rule, base: str, index: int, count: int) -> str:
    """The type of a layer."""
    for at in range(0, len(rule) - 1, 2):
        condition, kind = rule[at : at + 2]
        if callable(condition) and condition(index, count):
            return str(kind)
    return str(rule[-1]) if len(rule) % 2 else base


# Of Falcon models, by general.file_type: instead of the mixture's own.
FALCON: dict[int, Rules] = {
    12: {"ffn_down": (first_sixteenth, "Q5_K", more_bits, "Q4_K", "Q3_K")},  # q3_k_m
    13: {"ffn_down": ("Q4_K",), "attn_output": ("Q4_K",)},  # q3_k_l
    14: {"ffn_down": ("Q4_K",)},  # q4_k_s
    15: {"ffn_down": (first_sixteenth, "Q6_K", more_bits, "Q5_K", "Q4_K")},  # q4_k_m
}
