"""A short description of a model."""

from __future__ import annotations

import math
from collections import Counter

from .gguf_file import GGUFFile


def describe(file: GGUFFile) -> str:
    """Architecture, number of parameters and their most common type, such as "llama 1.1B Q4_0"."""
    sizes: Counter[str] = Counter()
    for info in file.tensors.values():
        sizes[info.type_name] += math.prod(info.shape)
    count = sum(sizes.values())
    rounded = round(count, 3 - len(str(count)))  # to the three digits that are shown
    unit, name = next((u for u in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if rounded >= u[0]), (1, ""))
    return f"{file.metadata['general.architecture']} {count / unit:.3g}{name} {sizes.most_common(1)[0][0]}"
