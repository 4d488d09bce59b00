"""Which weights of a checkpoint are masters of ternary ones: "quantization_config" of config.json."""

from __future__ import annotations

from .architectures import Architecture
from .json_file import Config


def has_masters(config: Config, architecture: Architecture) -> bool:
    """Whether float matrices were made ternary in training, and are to be so in use."""
    settings = config.section("quantization_config")
    is_online = settings.get("quant_method") == "bitnet" and settings.get("quantization_mode") == "online"
    return is_online if settings.values else architecture.is_ternary


def stays_float(config: Config, name: str) -> bool:
    """Whether quantization_config leaves a tensor out, by its name in the checkpoint."""
    left_out = config.section("quantization_config").get("modules_to_not_convert")
    return any(isinstance(part, str) and part in name for part in (left_out if isinstance(left_out, list) else ()))
