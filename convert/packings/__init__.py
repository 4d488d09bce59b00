"""How quantized checkpoints store their weights, by "quant_method" of config.json. A new one is a file and a line."""

from __future__ import annotations

from collections.abc import Mapping

from ..json_file import Config
from .auto_round import AUTO_ROUND
from .awq import AWQ
from .bitnet import BITNET
from .bitsandbytes import BITSANDBYTES
from .compressed_tensors import COMPRESSED_TENSORS
from .fp8 import FP8
from .gptq import GPTQ
from .integers import Integers, integer_weight
from .mxfp4 import MXFP4
from .packing import Packing, Parts
from .weight import Weight, every, reordered, weight_values

PACKINGS: Mapping[str, Packing] = {
    "gptq": GPTQ,
    "awq": AWQ,
    "auto-round": AUTO_ROUND,
    "intel/auto-round": AUTO_ROUND,
    "compressed-tensors": COMPRESSED_TENSORS,
    "bitsandbytes": BITSANDBYTES,
    "fp8": FP8,
    "fbgemm_fp8": FP8,
    "modelopt": FP8,
    "mxfp4": MXFP4,
    "bitnet": BITNET,
}

# Where checkpoints say how they are quantized.
_SECTIONS = ("quantization_config", "compression_config", "quantization")


def packing_of(config: Config) -> tuple[Packing, Config] | None:
    """The packing of a checkpoint and its settings; None for plain floats. Raises LcpuError for one that is unknown."""
    section = next((name for name in _SECTIONS if config.section(name).values), None)
    if section is None:
        return None
    settings = config.section(section)
    method = settings.get("quant_method") or _method_without_name(section, settings)
    packing = PACKINGS.get(method) if isinstance(method, str) else None
    if packing is None:
        known = ", ".join(sorted({each.name for each in PACKINGS.values()}, key=str.lower))
        raise config.error(section, f"says that the weights are quantized by {str(method)[:40]!r}; lcpu reads {known}: "
                           "take another checkpoint, or the model that this one was made of")
    packing.check(settings)
    return packing, settings


def _method_without_name(section: str, settings: Config) -> str:
    if section == "quantization":
        return "MLX"
    loads = any(str(key).startswith(("load_in_", "bnb_")) for key in settings.values)
    return "bitsandbytes" if loads else "compressed-tensors" if section == "compression_config" else "an unknown method"


__all__ = ["PACKINGS", "Integers", "Packing", "Parts", "Weight", "every", "integer_weight", "packing_of",
           "reordered", "weight_values"]
