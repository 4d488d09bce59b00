"""Which weights of a checkpoint are ternary, and how they are stored: "quantization_config" of config.json."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from ..kernels.errors import LcpuError
from .architectures import Architecture
from .json_file import Config


class Ternary(Enum):
    """How a checkpoint has its ternary matrices."""

    DIVIDE = "packed values over weight_scale"
    MULTIPLY = "packed values times weight_scale"
    MASTER = "floats that are made ternary in training"


# Files beside a config.json that does not say itself how the weights are quantized, and what makes them.
_QUANTIZERS = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ", "hf_quant_config.json": "ModelOpt"}


def check_quantization(config: Config, files: Collection[str]) -> None:
    """Raises LcpuError for a checkpoint that is quantized otherwise than BitNet's. `files`: the names of its files."""
    for section in ("quantization_config", "compression_config", "quantization"):
        settings = config.section(section)
        if settings.values and settings.get("quant_method") != "bitnet":
            method = settings.get("quant_method") or _method_without_name(section, settings)
            raise _quantized(config, section, f"says that the weights are quantized by {str(method)[:40]!r}")
    if config.get("quantization_config") is None:
        for name in _QUANTIZERS.keys() & set(files):
            method = _QUANTIZERS[name]
            raise _quantized(config, f"there is {name} beside it:", f"the weights are quantized by {method!r}")


def _method_without_name(section: str, settings: Config) -> str:
    if section == "quantization":
        return "MLX"
    loads = any(str(key).startswith(("load_in_", "bnb_")) for key in settings.values)
    return "bitsandbytes" if loads else "compressed-tensors" if section == "compression_config" else "an unknown method"


def _quantized(config: Config, where: str, cause: str) -> LcpuError:
    return config.error(where, f"{cause}; lcpu converts float and BitNet checkpoints: take the model that this one was "
                               "made of")


def ternary_kind(config: Config, architecture: Architecture) -> Ternary | None:
    """None for a checkpoint of plain floats. Raises LcpuError for one that is quantized in another way."""
    check_quantization(config, ())
    settings = config.section("quantization_config")
    if not settings.values:
        return Ternary.MASTER if architecture.is_ternary else None
    if settings.flag("use_rms_norm"):
        raise config.error("quantization_config", "has use_rms_norm: norms before every matrix are not supported")
    if settings.get("quantization_mode") == "online":
        return Ternary.MASTER
    return Ternary.MULTIPLY if settings.get("linear_class") == "autobitlinear" else Ternary.DIVIDE


def stays_float(config: Config, name: str) -> bool:
    """Whether quantization_config leaves a tensor out, by its name in the checkpoint."""
    left_out = config.section("quantization_config").get("modules_to_not_convert")
    return any(isinstance(part, str) and part in name for part in (left_out if isinstance(left_out, list) else ()))
