"""What a checkpoint becomes: the metadata and the tensors of a GGUF file, in order, before any value is read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from ..engine.gguf_metadata import Value
from ..engine.gguf_types import TENSOR_TYPES
from ..engine.hyperparameters import read as read_by_engine
from ..kernels.errors import LcpuError
from .architectures import Architecture, architecture_of
from .architectures.architecture import Shape, hyperparameters, sizes
from .architectures.rope import rope_factors
from .checkpoint import Checkpoint, read_config
from .json_file import Config
from .source import FLOATS, SourceTensor, as_float32
from .ternary import Ternary, check_quantization, stays_float, ternary_kind
from .tokenizers import tokenizer_metadata
from .type_rules import ALIASES, MIXTURES, Overrides
from .types import natural_type, tensor_types
from .values import Values, constant, plain, ternarized, unpacked

# What checkpoints may hold besides weights: it follows from config.json.
_SKIPPED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
_SCALE = "_scale"  # after ".weight"


@dataclass(frozen=True)
class PlannedTensor:
    name: str
    values: Values
    type_id: int

    @property
    def nbytes(self) -> int:
        return TENSOR_TYPES[self.type_id].nbytes(self.values.shape)


@dataclass(frozen=True)
class Plan:
    metadata: Mapping[str, object]
    tensors: tuple[PlannedTensor, ...]
    type_name: str  # of the matrices
    notes: tuple[str, ...]  # what the user should know

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def plan(checkpoint: Checkpoint, type_name: str, name: str, overrides: Overrides | None = None) -> Plan:
    """What to write.

    `type_name` is one of convert.types, `overrides` change it for some tensors; `name` is the model's, maybe with its
    owner's.
    Raises LcpuError for models and tokenizers that cannot be converted, and for tensors that are missing or do not fit.
    """
    described = describe(checkpoint.folder, checkpoint.config, name)
    values = dict(_all_values(checkpoint, described.architecture))
    type_name = natural_type(values.values()) if type_name == "auto" else ALIASES.get(type_name, type_name)
    parameters = sum(math.prod(value.shape) for value in values.values())
    metadata = _general(described.architecture, name, parameters, type_name) | described.hyperparameters
    types, misfits = tensor_types(values, metadata, type_name, overrides or Overrides())
    notes = list(described.notes)
    if misfits:
        notes.append(f"the rows of {len(misfits)} tensors, such as {misfits[0]}, are not whole blocks of the type: "
                     "they get another")
    tensors = tuple(PlannedTensor(key, value, types[key]) for key, value in values.items())
    return Plan({**metadata, **described.tokenizer}, tensors, type_name, (*notes, *_limits(checkpoint)))


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself beside its weights."""

    architecture: Architecture
    hyperparameters: dict[str, Value]
    tokenizer: dict[str, object]
    notes: tuple[str, ...]


def describe(folder: Path, config: Config, name: str) -> Description:
    """What the small files of a checkpoint say. Raises LcpuError for a model that they rule out."""
    architecture = architecture_of(config)
    ternary_kind(config, architecture)
    keys = hyperparameters(architecture, config)
    read_by_engine({"general.architecture": architecture.name} | keys, config.path)
    tokenizer, notes = tokenizer_metadata(folder, config, sizes(config)["vocab"], _title(name))
    return Description(architecture, keys, tokenizer, tuple(notes))


def check_description(folder: Path, name: str, files: Collection[str]) -> None:
    """Raises LcpuError for a model that cannot be converted, whatever its weights. `files`: the names of all files."""
    config = read_config(folder)
    check_quantization(config, files)
    describe(folder, config, name)


def _title(name: str) -> str:
    """general.name"""
    return gguf.Metadata.get_model_id_components(name, 0)[0] or name


def _general(architecture: Architecture, name: str, parameters: int, type_name: str) -> dict[str, Value]:
    """Keys under "general.", as llama.cpp's converter writes them."""
    _, owner, base, finetune, version, size = gguf.Metadata.get_model_id_components(name, parameters)
    keys = {
        "architecture": architecture.name,
        "type": "model",
        "name": _title(name),
        "organization": owner,
        "basename": base,
        "finetune": finetune,
        "version": version,
        "size_label": size or gguf.size_label(parameters, 0, 0, 0),
        "file_type": MIXTURES[type_name].file_type,
        "quantization_version": gguf.GGML_QUANT_VERSION,
    }
    return {f"general.{key}": value for key, value in keys.items() if value is not None}


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    """What the file cannot say of the model."""
    config = checkpoint.config
    window = config.get("sliding_window")
    length = config.count("max_position_embeddings", 1)
    if type(window) is int and window < length and config.flag("use_sliding_window", True):
        yield f"the model's attention reaches back {window} tokens; a GGUF file does not say so, and it reaches further"


def _all_values(checkpoint: Checkpoint, architecture: Architecture) -> Iterator[tuple[str, Values]]:
    """The tensors of the file by GGUF's names, in its order. Raises LcpuError unless all are there, and fit."""
    config, size = checkpoint.config, sizes(checkpoint.config)
    sources = _by_gguf_name(checkpoint, architecture, size["blocks"])
    maker = _Maker(checkpoint, architecture)
    factors = rope_factors(config, size["head"])
    if factors is not None:
        yield "rope_freqs.weight", constant(factors)
    shapes: dict[str, Shape] = {"token_embd.weight": ("vocab", "embed")}
    for block in range(size["blocks"]):
        shapes |= {f"blk.{block}.{name}": shape for name, shape in architecture.block.items()}
        shapes |= {f"blk.{block}.{name}": shape for name, shape in architecture.optional.items()
                   if f"blk.{block}.{name}" in sources}
    shapes["output_norm.weight"] = ("embed",)
    if architecture.has_output and not _is_tied(checkpoint, sources):
        shapes["output.weight"] = ("vocab", "embed")
    for name, shape in shapes.items():
        if name not in sources:
            raise LcpuError(f"{checkpoint.folder}: the tensor of {name} is missing: the checkpoint is not whole")
        yield name, maker.values(name, sources.pop(name), tuple(size[dimension] for dimension in shape))
    sources.pop("output.weight", None)
    if sources:
        source = next(iter(sources.values()))
        raise LcpuError(f"{checkpoint.folder}: tensor {source.name[:80]!r} has no place in {architecture.name} models: "
                        "take another checkpoint")


def _is_tied(checkpoint: Checkpoint, sources: Mapping[str, SourceTensor]) -> bool:
    """Whether the embedding is the output layer too. A checkpoint that does not say leaves the layer out if it is."""
    said = checkpoint.config.get("tie_word_embeddings")
    return checkpoint.config.flag("tie_word_embeddings") if said is not None else "output.weight" not in sources


def _by_gguf_name(checkpoint: Checkpoint, architecture: Architecture, blocks: int) -> dict[str, SourceTensor]:
    names = gguf.get_tensor_name_map(architecture.gguf, blocks)
    found: dict[str, SourceTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.endswith((*_SKIPPED, f".weight{_SCALE}")) or (name == "lm_head.weight" and not architecture.has_output):
            continue
        gguf_name = names.get_name(name, (".weight", ".bias")) or _other_name(name, architecture)
        if gguf_name is None:
            raise LcpuError(f"{checkpoint.folder}: tensor {name[:80]!r} has no place in {architecture.name} models "
                            f"of {blocks} blocks: take another checkpoint")
        found[gguf_name] = tensor
    return found


def _other_name(name: str, architecture: Architecture) -> str | None:
    """GGUF's name for "model.layers.N.<ending>.weight" of endings that the gguf package does not know."""
    parts = name.removeprefix("model.layers.").split(".", 1)
    ending = architecture.other_names.get(parts[-1].removesuffix(".weight"))
    return f"blk.{parts[0]}.{ending}.weight" if ending and parts[0].isdecimal() else None


class _Maker:
    """Makes the values of each tensor out of its source."""

    def __init__(self, checkpoint: Checkpoint, architecture: Architecture) -> None:
        self.checkpoint, self.architecture = checkpoint, architecture
        self.ternary = ternary_kind(checkpoint.config, architecture)
        self.size = sizes(checkpoint.config)

    def values(self, name: str, source: SourceTensor, shape: tuple[int, ...]) -> Values:
        """`shape` is that of the tensor in the file. Raises LcpuError if the source does not have it."""
        packed = source.dtype == "U8" and self.ternary in (Ternary.DIVIDE, Ternary.MULTIPLY) and len(shape) == 2
        stored = (shape[0] // 4, shape[1]) if packed else shape
        if source.shape != stored or (packed and shape[0] % 4):
            raise self.error(source, f"has the shape {_shown(source.shape)}, but config.json says {_shown(stored)}")
        order = self.order(name, shape[0])
        if packed:
            return unpacked(source, self.scale(source), order)
        if source.dtype not in FLOATS:
            raise self.error(source, f"has the type {source.dtype}, which is not that of weights")
        is_matrix = name.startswith("blk.") and len(shape) == 2
        if self.ternary is Ternary.MASTER and is_matrix and not stays_float(self.checkpoint.config, source.name):
            return ternarized(source, order)
        return plain(source, order)

    def order(self, name: str, rows: int) -> np.ndarray | None:
        """Where the rows of a tensor come from if they change places: from halves of heads to neighbours."""
        heads = {"attn_q": self.size["heads"], "attn_k": self.size["kv heads"]}.get(name.split(".")[-2])
        if heads is None or not self.architecture.interleaved_rope:
            return None
        return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()

    def scale(self, source: SourceTensor) -> float:
        """What the values of a packed tensor are to be multiplied by."""
        stored = self.checkpoint.tensors.get(source.name + _SCALE)
        if stored is None:
            raise self.error(source, f"has no {source.name + _SCALE}: the checkpoint is not whole")
        if math.prod(stored.shape) != 1 or stored.dtype not in FLOATS:
            raise self.error(stored, f"has the shape {_shown(stored.shape)} and type {stored.dtype}, not one float")
        if stored.file is None:
            return 1.0  # only described
        (scale,) = as_float32(stored.array().reshape(1), stored.dtype)
        if not (np.isfinite(scale) and scale > 0):
            raise self.error(stored, f"is {scale}, not a positive number: damaged")
        return float(1 / scale if self.ternary is Ternary.DIVIDE else scale)

    def error(self, source: SourceTensor, cause: str) -> LcpuError:
        where = self.checkpoint.folder if source.file is None else source.file.path
        return LcpuError(f"{where}: tensor {source.name[:80]!r} {cause}")


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of one value"
