"""Ministral 3, and the language model of Mistral 3 models that see: as Llama, with YaRN and growing queries."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from . import vision
from .llama import LLAMA
from .rope import rope_scaling

_ROPES = ("growing",)


def _metadata(config: Config) -> dict[str, Value]:
    _, scaling = rope_scaling(config, _ROPES)
    name = "llama_4_scaling_beta"
    return {} if scaling.get(name) is None else {"attention.temperature_scale": scaling.real(name)}


MISTRAL3 = replace(
    LLAMA,
    name="mistral3",
    gguf=gguf.MODEL_ARCH.MISTRAL3,
    ropes=_ROPES,
    prefixes=vision.PREFIXES,
    parts=vision.PARTS,
    metadata=_metadata,
)
