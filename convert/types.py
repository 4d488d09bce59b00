"""Which types a checkpoint can be converted to, and which of them each of its tensors gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..engine.gguf_file import TensorInfo
from ..engine.gguf_metadata import Value
from ..engine.gguf_types import TENSOR_TYPES
from ..kernels.errors import LcpuError
from .imatrix import check_demands
from .type_rules import ALIASES, MIXTURES, TYPE_IDS, Overrides, choose_types
from .values import Values

TYPES = ("auto", *(name for name in MIXTURES if name != "copy"))

_F32, _F16, _I2_S = (TYPE_IDS[name] for name in ("F32", "F16", "I2_S"))


def natural_type(values: Iterable[Values]) -> str:
    """The type that keeps what is in a checkpoint: I2_S if matrices are ternary, else that of most values."""
    sizes: Counter[str] = Counter()
    for value in values:
        if len(value.shape) == 2:
            sizes["i2_s" if value.is_ternary else value.dtype.lower()] += value.shape[0] * value.shape[1]
    return "i2_s" if sizes["i2_s"] else sizes.most_common(1)[0][0]


def tensor_types(
    values: Mapping[str, Values], metadata: Mapping[str, Value], wanted: str, overrides: Overrides
) -> tuple[dict[str, int], list[str]]:
    """The type id of every tensor by name, and the names of those whose rows do not fit the type that they should get.

    The rules are those of `lcpu quantize`. Norms, biases and the like are F32, which is what engines compute with; in
    an I2_S file, matrices that are not ternary are F16. Raises LcpuError for what I2_S cannot hold, and for
    types that need an importance matrix.
    """
    if wanted == "i2_s":
        _check_ternary(values)
        embedding = overrides.embedding or ("F16" if "output.weight" in values else "")  # else it counts as the output
        overrides = replace(overrides, output=overrides.output or "F16", embedding=embedding)
    infos = [TensorInfo(name, value.shape, _F32 if len(value.shape) == 1 else TYPE_IDS[value.dtype], 0, 0, 0)
             for name, value in values.items()]
    mixture = MIXTURES[ALIASES.get(wanted, wanted)]
    types, misfits = choose_types(infos, metadata, mixture, overrides)
    check_demands(types, {info.name: info for info in infos}, mixture, None,
                  "convert to bf16 and give one to `lcpu quantize --imatrix`")
    for name, type_id in types.items():
        if type_id == _I2_S and not values[name].is_ternary:
            types[name] = _F16
    return types, misfits


def _check_ternary(values: Mapping[str, Values]) -> None:
    block = TENSOR_TYPES[_I2_S].block_values
    ternary = {name: value.shape[-1] for name, value in values.items() if value.is_ternary}
    if not ternary:
        raise LcpuError("i2_s is for BitNet checkpoints, and this model's weights are not ternary: take another --type")
    for name, length in ternary.items():
        if length % block:
            raise LcpuError(f"tensor {name} has rows of {length} values, which I2_S cannot hold: it needs a multiple "
                            f"of {block}; take another --type")
