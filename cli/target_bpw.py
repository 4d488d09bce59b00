"""`lcpu quantize --target-bpw`: types that are chosen under a budget, and the table that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .inspect import aligned, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..convert.bit_budget import Budget
    from ..engine.gguf_file import TensorInfo

TargetBpw = Annotated[
    float | None,
    typer.Option(
        "--target-bpw", metavar="BITS", min=1, max=32, show_default=False,
        help="In the place of TYPE: choose a type for each tensor, by measured errors, such that all weights take at "
        "most so many bits on average, such as 4.5.",
    ),
]  # fmt: skip


def budget_table(budget: Budget, infos: Mapping[str, TensorInfo]) -> str:
    """A row for each tensor whose type was chosen.

    error: root of the squared error of its products (of the output layer: its values) over their squares.
    share: of what all errors are expected to cost.
    """
    from ..engine.gguf_types import TENSOR_TYPES

    total = sum(option.cost for option in budget.chosen.values()) or 1.0
    rows = [["tensor", "type", "bits/weight", "error", "share"]]
    for name, option in budget.chosen.items():
        values = 1
        for size in infos[name].shape:
            values *= size
        rows.append([printable(name), TENSOR_TYPES[option.type_id].name, f"{8 * option.nbytes / values:.2f}",
                     f"{option.error ** 0.5:.4f}", f"{option.cost / total:.1%}"])
    return "\n".join(aligned(rows, "<<>>>"))
