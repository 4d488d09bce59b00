"""Granite 3 and 4: as Llama, with factors for embeddings, halves of layers, scores and logits."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .llama import LLAMA

_FACTORS = {"embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale",
            "attention_multiplier": "attention.scale"}


def _metadata(config: Config) -> dict[str, Value]:
    keys: dict[str, Value] = {key: config.real(name) for name, key in _FACTORS.items() if config.get(name) is not None}
    return keys | {"logit_scale": config.real("logits_scaling", 1.0)}


GRANITE = replace(LLAMA, name="granite", gguf=gguf.MODEL_ARCH.GRANITE, metadata=_metadata)
