"""What a checkpoint becomes: the metadata and the tensors of a GGUF file, in order, before any value is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf

from ..engine.gguf_metadata import Value
from ..engine.gguf_types import TENSOR_TYPES
from ..engine.hyperparameters import read as read_by_engine
from .architectures import Architecture, architecture_of
from .architectures.architecture import hyperparameters, sizes
from .checkpoint import Checkpoint, read_config
from .json_file import Config
from .kept import summary
from .packings import packing_of
from .tensors import tensors_of
from .tokenizers import tokenizer_metadata
from .type_rules import ALIASES, MIXTURES, Overrides
from .types import natural_types, tensor_types
from .values import Values

# Keys that lcpu alone reads, and the value by which nothing changes.
_OWN_KEYS = {"attention.scale": None, "rope.scaling.yarn_truncate": True}


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
    packing: str = ""  # how the weights were quantized before; empty for floats and ternary ones

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def kept(self, errors: Mapping[str, float] | None = None) -> str:
        """A line that says which weights of a quantized checkpoint keep their values; empty for one of floats.

        errors: the relative errors of tensors, where they were measured.
        """
        return summary(self.packing, [(each.name, each.values, each.type_id) for each in self.tensors], errors)


def plan(checkpoint: Checkpoint, type_name: str, name: str, overrides: Overrides | None = None,
         allow_lossy: bool = False) -> Plan:
    """What to write.

    `type_name` is one of convert.types, `overrides` change it for some tensors; `name` is the model's, maybe with its
    owner's. allow_lossy: weights that were quantized before may be so again, in types that do not hold their values.
    Raises LcpuError for models and tokenizers that cannot be converted, and for tensors that are missing or do not fit.
    """
    described = describe(checkpoint.folder, checkpoint.config, name)
    values = dict(tensors_of(checkpoint, described.architecture))
    is_auto = type_name == "auto"
    type_name, base = natural_types(values.values()) if is_auto else (ALIASES.get(type_name, type_name),) * 2
    parameters = sum(math.prod(value.shape) for value in values.values())
    metadata = _general(described.architecture, name, parameters, type_name) | described.hyperparameters
    types, misfits = tensor_types(values, metadata, base, overrides or Overrides(), keep=is_auto,
                                  allow_lossy=allow_lossy)
    notes = list(described.notes)
    if misfits:
        notes.append(f"the rows of {len(misfits)} tensors, such as {misfits[0]}, are not whole blocks of the type: "
                     "they get another")
    tensors = tuple(PlannedTensor(key, value, types[key]) for key, value in values.items())
    found = packing_of(checkpoint.config)
    notes += _limits(checkpoint, described)
    return Plan({**metadata, **described.tokenizer}, tensors, type_name, tuple(notes),
                found[0].name if found else "")


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
    keys = hyperparameters(architecture, config)
    read_by_engine({"general.architecture": architecture.name} | keys, config.path)
    tokenizer, notes = tokenizer_metadata(folder, config, sizes(config)["vocab"], _title(name),
                                           keeps_merges=architecture.keeps_merges)
    return Description(architecture, keys, tokenizer, tuple(notes))


def check_description(folder: Path, name: str) -> None:
    """Raises LcpuError for a model that cannot be converted, whatever its weights."""
    describe(folder, read_config(folder), name)


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


def _limits(checkpoint: Checkpoint, described: Description) -> Iterator[str]:
    """What the file cannot say of the model."""
    config, name = checkpoint.config, described.architecture.name
    yield from dict.fromkeys(note for part, note in described.architecture.parts.items()
                             if any(tensor.startswith(part) for tensor in checkpoint.tensors))
    for key, plain in _OWN_KEYS.items():
        if described.hyperparameters.get(f"{name}.{key}", plain) != plain:
            yield f"{name}.{key} is lcpu's own key: a program that does not read it, such as llama.cpp, computes " \
                  "other numbers"
    window = config.get("sliding_window")
    length = config.count("max_position_embeddings", 1)
    if f"{name}.attention.sliding_window" in described.hyperparameters:
        return
    if type(window) is int and window < length and config.flag("use_sliding_window", True):
        yield f"the model's attention reaches back {window} tokens; a GGUF file does not say so, and it reaches further"
