"""Which weights of a checkpoint are ternary, and how they are stored: "quantization_config" of config.json."""

from __future__ import annotations

from enum import Enum

from .architectures import Architecture
from .json_file import Config


class Ternary(Enum):
    """How a checkpoint has its ternary matrices."""

    DIVIDE = "packed values over weight_scale"
    MULTIPLY = "packed values times weight_scale"
    MASTER = "floats that are made ternary in training"


def ternary_kind(config: Config, architecture: Architecture) -> Ternary | None:
    """None for a checkpoint of plain floats. Raises LcpuError for one that is quantized in another way."""
    settings = config.section("quantization_config")
    method = settings.get("quant_method")
    if not settings.values:
        return Ternary.MASTER if architecture.is_ternary else None
    if method != "bitnet":
        raise config.error("quantization_config", f"says that the weights are quantized by {str(method)[:40]!r}; "
                           "lcpu converts float and BitNet checkpoints: take the model that this one was made of")
    if settings.flag("use_rms_norm"):
        raise config.error("quantization_config", "has use_rms_norm: norms before every matrix are not supported")
    if settings.get("quantization_mode") == "online":
        return Ternary.MASTER
    return Ternary.MULTIPLY if settings.get("linear_class") == "autobitlinear" else Ternary.DIVIDE


def stays_float(config: Config, name: str) -> bool:
    """Whether quantization_config leaves a tensor out, by its name in the checkpoint."""
    left_out = config.section("quantization_config").get("modules_to_not_convert")
    return any(isinstance(part, str) and part in name for part in (left_out if isinstance(left_out, list) else ()))
