"""The tensors of a checkpoint as those of a GGUF file: their names, their order, and the values of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import gguf
import numpy as np

from ..kernels.errors import LcpuError
from .architectures import Architecture
from .architectures.architecture import Shape, sizes
from .architectures.rope import rope_factors
from .checkpoint import Checkpoint
from .packings import Integers, Parts, Weight, every, integer_weight, packing_of, reordered, weight_values
from .packings.integers import column_order, in_runs
from .packings.packing import shown, tensor_error
from .source import FLOATS, SourceTensor, as_float32
from .ternary import has_masters, stays_float
from .values import Values, changed, constant, plain, stacked, ternarized

# What checkpoints may hold besides weights: it follows from config.json.
_SKIPPED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")

_EXPERT = re.compile(r"(.+\.(?:experts|norms))\.(\d+)\.(.+)")  # norms: of heads


@dataclass(frozen=True)
class Stack:
    """What the experts of a layer have of one kind."""

    name: str  # without the expert's number
    experts: dict[int, SourceTensor | Parts] = field(default_factory=dict)


@dataclass(frozen=True)
class InTurn:
    """What several stacks of experts have in one tensor: the rows of each in turn (see `Architecture.stacks`)."""

    whole: SourceTensor | Parts
    index: int  # of the stack
    count: int  # stacks
    is_fused: bool = False  # the rows of one stack, or matrix, follow those of another (see `Architecture.fused`)

    @property
    def name(self) -> str:
        return self.whole.name


Source: TypeAlias = "SourceTensor | Parts | Stack | InTurn"
Sources: TypeAlias = "dict[str, Source]"  # by GGUF's names


def tensors_of(checkpoint: Checkpoint, architecture: Architecture) -> Iterator[tuple[str, Values]]:
    """The tensors of the file by GGUF's names, in its order. Raises LcpuError unless all are there, and fit."""
    config, size = checkpoint.config, sizes(checkpoint.config)
    sources = _by_gguf_name(checkpoint, architecture, size["blocks"])
    shapes = {name: tuple(size[each] if isinstance(each, str) else each for each in shape)
              for name, shape in _shapes(checkpoint, architecture, sources).items()}
    maker = _Maker(checkpoint, architecture, sources, shapes)
    for name, factors in rope_factors(config, size["head"], architecture.ropes).items():
        yield name, constant(factors)
    for name, shape in shapes.items():
        if name not in sources:
            raise LcpuError(f"{checkpoint.folder}: the tensor of {name} is missing: the checkpoint is not whole")
        yield name, maker.values(name, sources.pop(name), shape)
    sources.pop("output.weight", None)
    for name in architecture.spare(config):
        sources.pop(name, None)
    if sources:
        source = next(iter(sources.values()))
        raise LcpuError(f"{checkpoint.folder}: tensor {source.name[:80]!r} has no place in {architecture.name} models: "
                        "take another checkpoint")


def _shapes(checkpoint: Checkpoint, architecture: Architecture, sources: Sources) -> dict[str, Shape]:
    """Of all tensors of the file but the factors of rotations, in its order."""
    config = checkpoint.config
    shapes: dict[str, Shape] = {"token_embd.weight": ("vocab", "embed"), **architecture.beside(config)}
    kinds = architecture.kinds(config)
    for block in range(sizes(config)["blocks"]):
        besides = kinds[block] if kinds else {}
        shapes |= {f"blk.{block}.{name}": shape for name, shape in {**architecture.block, **besides}.items()}
        shapes |= {f"blk.{block}.{name}": shape for name, shape in architecture.optional.items()
                   if f"blk.{block}.{name}" in sources}
    shapes[f"{architecture.output_norm}.weight"] = ("embed",)
    if architecture.norm_bias:
        shapes[f"{architecture.output_norm}.bias"] = ("embed",)
    if architecture.has_output and not _is_tied(checkpoint, sources):
        shapes["output.weight"] = ("vocab", "embed")
    return shapes


def _is_tied(checkpoint: Checkpoint, sources: Sources) -> bool:
    """Whether the embedding is the output layer too. A checkpoint that does not say leaves the layer out if it is."""
    said = checkpoint.config.get("tie_word_embeddings")
    return checkpoint.config.flag("tie_word_embeddings") if said is not None else "output.weight" not in sources


def _by_gguf_name(checkpoint: Checkpoint, architecture: Architecture, blocks: int) -> Sources:
    names = gguf.get_tensor_name_map(architecture.gguf, blocks)
    found: Sources = {}
    for name, source in _gathered(checkpoint).items():
        if name.startswith(tuple(architecture.parts)):
            continue
        name = next((new + name[len(old) :] for old, new in architecture.prefixes if name.startswith(old)), name)
        expert = _EXPERT.fullmatch(name)
        name = f"{expert[1]}.{expert[3]}" if expert else name
        if name.endswith(_SKIPPED) or (name == "lm_head.weight" and not architecture.has_output):
            continue
        block, _, ending = name.removeprefix("model.layers.").partition(".")
        is_fused = ending in architecture.fused
        parts = architecture.fused[ending] if is_fused else architecture.stacks.get(ending, ())
        if parts and block.isdecimal():
            found |= {f"blk.{block}.{each}": InTurn(source, i, len(parts), is_fused) for i, each in enumerate(parts)}
            continue
        gguf_name = _other_name(name, architecture) or names.get_name(name, (".weight", ".bias"))
        if gguf_name is None:
            raise LcpuError(f"{checkpoint.folder}: tensor {name[:80]!r} has no place in {architecture.name} models "
                            f"of {blocks} blocks: take another checkpoint")
        if expert is None:
            found[gguf_name] = source
            continue
        stack = found.setdefault(gguf_name, Stack(name))
        if isinstance(stack, Stack):
            stack.experts[int(expert[2])] = source
    for name in [name for name, source in found.items() if _is_spare_bias(name, source, found, architecture)]:
        del found[name]
    return found


def _gathered(checkpoint: Checkpoint) -> Mapping[str, SourceTensor | Parts]:
    """The tensors of a checkpoint by their names, the parts of quantized weights put together."""
    found = packing_of(checkpoint.config)
    if found is None:
        return checkpoint.tensors
    packing, settings = found
    return packing.gather(checkpoint.tensors, settings, checkpoint.folder)


def _is_spare_bias(name: str, source: Source, sources: Sources, architecture: Architecture) -> bool:
    """Whether it is a bias of zeros that a quantizer gave to a layer which has none."""
    ending = name.split(".", 2)[-1]
    if not name.endswith(".bias") or ending in architecture.block:
        return False
    if not isinstance(source, SourceTensor) or source.file is None:
        return False
    weight = sources.get(name.removesuffix(".bias") + ".weight")
    return isinstance(weight, Parts) and source.dtype in FLOATS and not as_float32(source.array(), source.dtype).any()


def _other_name(name: str, architecture: Architecture) -> str | None:
    """GGUF's name for "model.layers.N.<ending>.weight" of endings that the gguf package does not know."""
    parts = name.removeprefix("model.layers.").split(".", 1)
    ending = architecture.other_names.get(parts[-1].removesuffix(".weight"))
    return f"blk.{parts[0]}.{ending}" if ending and parts[0].isdecimal() else None


def _without_ones(source: SourceTensor, shape: tuple[int, ...]) -> SourceTensor:
    """The same values in that shape, if it is the source's without dimensions of 1: a row is a vector, too."""
    kept = [i for i, size in enumerate(source.shape) if size > 1]
    if source.shape == shape or tuple(source.shape[i] for i in kept) != shape:
        return source
    return replace(source, shape=shape, strides=source.strides and tuple(source.strides[i] for i in kept))


class _Maker:
    """Makes the values of each tensor out of its source."""

    def __init__(self, checkpoint: Checkpoint, architecture: Architecture, sources: Sources,
                 shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.checkpoint, self.architecture = checkpoint, architecture
        self.has_masters = has_masters(checkpoint.config, architecture)
        self.packing = packing_of(checkpoint.config)
        self.size = sizes(checkpoint.config)
        self._columns: dict[str, np.ndarray] = {}  # where the columns of a tensor come from
        self._rows: dict[str, np.ndarray] = {}  # where the rows of tensors come from that make the input of such a one
        for block in range(self.size["blocks"]):
            self._arrange(f"blk.{block}.", sources, shapes)

    def values(self, name: str, source: Source, shape: tuple[int, ...]) -> Values:
        """`shape` is that of the tensor in the file. Raises LcpuError if the source does not have it."""
        if isinstance(source, Stack):
            if source.experts.keys() != set(range(shape[0])):
                raise LcpuError(f"{self.checkpoint.folder}: {source.name[:80]!r} are not the {shape[0]} experts that "
                                "config.json says: the checkpoint is not whole")
            return stacked([self.values(name, source.experts[number], shape[1:]) for number in range(shape[0])])
        if isinstance(source, InTurn):
            return self._cut(source, shape) if source.is_fused else self._in_turn(source, shape)
        order = self.order(name, shape[0])
        columns = self.architecture.column_order(name.split(".", 2)[-1], self.size)
        if isinstance(source, Parts):
            made = self.read(source, shape)
            if isinstance(made, Integers):
                made = integer_weight(made, self._columns.get(name) if columns is None else columns)
            elif columns is not None:
                made = reordered(made, columns)
            return weight_values(made, order)
        source = _without_ones(source, shape)
        if source.shape != shape:
            raise self.error(source, f"has the shape {shown(source.shape)}, but config.json says {shown(shape)}")
        if source.dtype not in FLOATS:
            raise self.error(source, f"has the type {source.dtype}, which is not that of weights")
        is_matrix = name.startswith("blk.") and len(shape) == 2
        change = next((change for end, change in self.architecture.changes.items() if name.endswith(end)), None)
        if change is not None:
            return changed(source, change, order)
        if self.has_masters and is_matrix and not stays_float(self.checkpoint.config, source.name):
            return ternarized(source, order)
        return plain(source, order, columns)

    def _cut(self, source: InTurn, shape: tuple[int, ...]) -> Values:
        """Of [..., rows, k]."""
        *stack, rows, k = shape
        whole, stored = source.whole, (*stack, source.count * rows, k)
        if isinstance(whole, Parts):
            raise whole.error(next(iter(whole.tensors.values())), "is quantized, and holds several tensors, which lcpu "
                              "does not take apart")
        self._check_floats(whole, stored)
        strides = (*([source.count * rows * k] if stack else []), k, 1)
        first = source.index * rows * k * (whole.nbytes // math.prod(stored))
        return plain(replace(whole, shape=shape, strides=strides, offset=whole.offset + first))

    def _in_turn(self, source: InTurn, shape: tuple[int, ...]) -> Values:
        """Of [experts, rows, k], or of biases [experts, rows]."""
        experts, rows, *k = shape
        whole, i, count = source.whole, source.index, source.count
        if isinstance(whole, Parts):
            made = self.read(whole, (experts, count * rows, *k))
            assert isinstance(made, Weight)
            return weight_values(every(made, i, count))
        stored = (experts, *k, count * rows)
        self._check_floats(whole, stored)
        size = whole.nbytes // math.prod(stored)
        strides = (math.prod(stored[1:]), count) if not k else (math.prod(stored[1:]), count, count * rows)
        return plain(replace(whole, shape=shape, strides=strides, offset=whole.offset + i * size))

    def _check_floats(self, whole: SourceTensor, shape: tuple[int, ...]) -> None:
        if whole.shape != shape or whole.dtype not in FLOATS or whole.strides is not None:
            raise self.error(whole, f"is not {shown(shape)} floats, as config.json says")

    def read(self, parts: Parts, shape: tuple[int, ...]) -> Integers | Weight:
        assert self.packing is not None
        packing = self.packing[0]
        if len(shape) != 2 and not (packing.takes_stacks and len(shape) > 2):
            first = next(iter(parts.tensors.values()))
            raise parts.error(first, f"is quantized, but {shown(shape)} values are no matrix of {packing.name}")
        return packing.read(parts, shape)

    def order(self, name: str, rows: int) -> np.ndarray | None:
        """Where the rows of a tensor come from if they change places; of llama's q and k, so that what rotates with
        each other is not in halves of heads but side by side."""
        heads = {"attn_q": self.size["heads"], "attn_k": self.size["kv heads"]}.get(name.split(".")[-2])
        if heads is None or not self.architecture.interleaved_rope:
            order = self.architecture.row_order(name.split(".", 2)[-1], self.size)
            return self._rows.get(name) if order is None else order
        return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()

    def _arrange(self, block: str, sources: Sources, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Find columns that must change places so that neighbours share scales: then the rows of the matrices before
        change places too. It is possible for ffn_down, whose input is that of gate and up value by value, and within
        heads for attn_output."""
        size, ffn = self.size, shapes.get(f"{block}ffn_down.weight", (0, 0))[1]
        columns = self._column_order(f"{block}ffn_down.weight", sources, ffn, ffn)
        if columns is not None:
            self._columns[f"{block}ffn_down.weight"] = columns
            self._rows |= {f"{block}{name}.{kind}": columns for name in ("ffn_gate", "ffn_up", "ffn_sub_norm")
                           for kind in ("weight", "bias")}
            if shapes[f"{block}ffn_up.weight"][0] == 2 * ffn:  # gate and up
                self._rows[f"{block}ffn_up.weight"] = np.concatenate([columns, ffn + columns])
        if "attn_output.weight" not in self.architecture.block:  # there may be gates before it, or heads differ
            return
        columns = self._column_order(f"{block}attn_output.weight", sources, size["q"], size["head"])
        if columns is None:
            return
        heads = columns.reshape(size["kv heads"], -1, size["head"]) % size["head"]
        if (heads == heads[:, :1]).all():  # heads with the same k and v, in the same order
            rows = heads[:, 0] + size["head"] * np.arange(size["kv heads"])[:, None]
            self._columns[f"{block}attn_output.weight"] = columns
            self._rows |= {f"{block}attn_v.{kind}": rows.ravel() for kind in ("weight", "bias")}
            before = np.arange(size["q"] + size["kv"])
            self._rows[f"{block}attn_qkv.weight"] = np.concatenate([before, len(before) + rows.ravel()])
            self._rows[f"{block}attn_sub_norm.weight"] = columns

    def _column_order(self, name: str, sources: Sources, k: int, span: int) -> np.ndarray | None:
        """The order that the K columns of a matrix should have, each `span` of them by itself; None for that it has."""
        source = sources.get(name)
        if not isinstance(source, Parts):
            return None
        made = self.read(source, (self.size["embed"], k))
        if not isinstance(made, Integers) or in_runs(made.groups) or k % 32:
            return None
        return column_order(made.groups, span)

    def error(self, source: SourceTensor, cause: str) -> LcpuError:
        return tensor_error(self.checkpoint.folder, source, cause)
