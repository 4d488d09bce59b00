"""What is said about the weights of a quantized checkpoint: how many keep their values, and how far off others are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..engine.gguf_types import TENSOR_TYPES
from .values import Values


def summary(packing: str, tensors: Iterable[tuple[str, Values, int]], errors: Mapping[str, float] | None) -> str:
    """One line on the tensors (name, values, type id) that were quantized before; empty if there are none.

    errors: root mean square errors over those of the values, of tensors where they were measured.
    """
    exact: dict[str, int] = {}
    others: dict[str, int] = {}
    scattered, worst = 0, 0.0
    for name, values, type_id in tensors:
        if values.kept is None:
            continue
        type = TENSOR_TYPES[type_id].name
        error = (errors or {}).get(name)
        keeps = type == "F32" or (type in values.kept.types and values.kept.is_exact) or error == 0
        counts = exact if keeps else others
        counts[type] = counts.get(type, 0) + 1
        scattered += values.kept.is_scattered
        worst = max(worst, error or 0.0)
    if not exact and not others:
        return ""
    parts = [f"{sum(exact.values())} keep their values exactly ({_counted(exact)})"] if exact else []
    if others:
        off = "" if errors is None else f", off by {worst:.2g} of their root mean square at most"
        parts.append(f"{sum(others.values())} {'do not' if exact else 'get other values'} ({_counted(others)}){off}")
    line = f"of the weights quantized by {packing}, {'; '.join(parts)}"
    if scattered:
        line += (f"; {scattered} have columns in activation order (desc_act), whose scales only float types can keep: "
                 "--type q8_0 --allow-lossy makes them smaller")
    return line


def _counted(types: Mapping[str, int]) -> str:
    return ", ".join(name if len(types) == 1 else f"{count} {name}" for name, count in types.items())
