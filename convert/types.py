"""Which types a checkpoint can be converted to, and which of them each of its tensors gets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..engine.gguf_file import TensorInfo
from ..engine.gguf_metadata import Value
from ..engine.gguf_types import TENSOR_TYPES
from ..kernels.errors import LcpuError
from .imatrix import check_demands
from .type_rules import ALIASES, MIXTURES, TYPE_IDS, Overrides, choose_types, is_overridden
from .values import Values

TYPES = ("auto", *(name for name in MIXTURES if name != "copy"))

_FLOATS = ("BF16", "F16", "F32")  # the first is for checkpoints without float matrices
_F32, _F16, _I2_S = (TYPE_IDS[name] for name in ("F32", "F16", "I2_S"))


def natural_types(values: Iterable[Values]) -> tuple[str, str]:
    """The type that keeps most of what is in a checkpoint, and the one for matrices that are floats.

    Both are I2_S if matrices are ternary.
    """
    sizes: Counter[str] = Counter()
    for value in values:
        if len(value.shape) > 1:
            kept = value.kept
            name = "i2_s" if value.is_ternary else value.dtype if kept is None else kept.types[0] if kept.types else ""
            sizes[name.lower()] += math.prod(value.shape)
    if sizes["i2_s"]:
        return "i2_s", "i2_s"
    floats = max((name.lower() for name in _FLOATS), key=lambda name: sizes[name])
    sizes[floats] += sizes.pop("", 0)  # what no type of whole numbers holds
    return sizes.most_common(1)[0][0], floats


def tensor_types(
    values: Mapping[str, Values], metadata: Mapping[str, Value], wanted: str, overrides: Overrides, *,
    keep: bool = False, allow_lossy: bool = False,
) -> tuple[dict[str, int], list[str]]:
    """The type id of every tensor by name, and the names of those whose rows do not fit the type that they should get.

    The rules are those of `lcpu quantize`. Norms, biases, routers and the like are F32, which is what engines compute
    with; in an I2_S file, matrices that are not ternary are F16. keep: weights that were quantized before get the
    smallest type that keeps them, unless `overrides` say otherwise. Raises LcpuError for what I2_S cannot hold,
    for types that need an importance matrix, and, unless allow_lossy, for weights that were quantized before and would
    be so in a type that does not keep them.
    """
    if wanted == "i2_s":
        _check_ternary(values)
        embedding = overrides.embedding or ("F16" if "output.weight" in values else "")  # else it counts as the output
        overrides = replace(overrides, output=overrides.output or "F16", embedding=embedding)
    infos = [TensorInfo(name, value.shape, _F32 if _is_small(name, value) else TYPE_IDS[value.dtype], 0, 0, 0)
             for name, value in values.items()]
    mixture = MIXTURES[ALIASES.get(wanted, wanted)]
    types, misfits = choose_types(infos, metadata, mixture, overrides)
    for name, type_id in types.items():
        kept = values[name].kept
        if type_id == _I2_S and not values[name].is_ternary:
            types[name] = _F16
        if keep and kept is not None and kept.types and not is_overridden(name, "output.weight" in values, overrides):
            types[name] = TYPE_IDS[kept.types[0]]
    check_demands(types, {info.name: info for info in infos}, mixture, None,
                  "convert to bf16 and give one to `lcpu quantize --imatrix`")
    if not allow_lossy:
        _check_kept(values, types)
    return types, misfits


def _is_small(name: str, values: Values) -> bool:
    """Whether it is vectors, a router of experts or a convolution: llama.cpp's converter leaves them in F32, too."""
    kept = ("ffn_gate_inp.weight", "ssm_conv1d.weight", "shortconv.conv.weight", ".bias")
    return len(values.shape) == 1 or name.endswith(kept)


def _check_kept(values: Mapping[str, Values], types: Mapping[str, int]) -> None:
    lossy = {}
    for name, value in values.items():
        type = TENSOR_TYPES[types[name]].name
        if value.kept is not None and type not in (*value.kept.types, *value.kept.near, *_FLOATS):
            lossy[name] = type
    if lossy:
        name, type = next(iter(lossy.items()))
        keeping = next((kept.types[0] for each in lossy if (kept := values[each].kept) and kept.types), "")
        way_out = f"without --type, they are kept in {keeping}" if keeping else "without --type, they become floats"
        raise LcpuError(f"{len(lossy)} weights, such as {name}, are quantized, and {type} would change them again: "
                        f"{way_out}; or allow it by `lcpu convert --allow-lossy`")


def _check_ternary(values: Mapping[str, Values]) -> None:
    block = TENSOR_TYPES[_I2_S].block_values
    ternary = {name: value.shape[-1] for name, value in values.items() if value.is_ternary}
    if not ternary:
        raise LcpuError("i2_s is for BitNet checkpoints, and this model's weights are not ternary: take another --type")
    for name, length in ternary.items():
        if length % block:
            raise LcpuError(f"tensor {name} has rows of {length} values, which I2_S cannot hold: it needs a multiple "
                            f"of {block}; take another --type")
