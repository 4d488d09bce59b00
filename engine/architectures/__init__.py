"""The architectures that the engine runs, by GGUF's `general.architecture`. A new one is a file and a line here."""

from collections.abc import Callable

from ...kernels.errors import LcpuError
from ..builder import Builder
from ..gguf_file import GGUFFile
from ..rows import Rows
from . import (
    bitnet,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gemma4,
    gpt_oss,
    granite,
    lfm2,
    llama,
    mistral3,
    olmo2,
    olmoe,
    phi3,
    qwen2,
    qwen2moe,
    qwen3,
    qwen35,
    qwen35moe,
    smollm3,
    stablelm,
    starcoder2,
)

FAMILIES: dict[str, dict[str, Callable[[Builder], Rows]]] = {
    "BitNet": {"bitnet": bitnet.build, "bitnet-25": bitnet.build, "bitnet-b1.58": bitnet.build},
    "Falcon": {"falcon": falcon.build},
    "Gemma": {"gemma": gemma.build, "gemma2": gemma2.build, "gemma3": gemma3.build, "gemma4": gemma4.build},
    "gpt-oss": {"gpt-oss": gpt_oss.build},
    "Granite": {"granite": granite.build, "granitemoe": granite.build},
    "LFM": {"lfm2": lfm2.build, "lfm2moe": lfm2.build},
    "Llama and Mistral": {"llama": llama.build, "mistral3": mistral3.build},
    "OLMo": {"olmo2": olmo2.build, "olmoe": olmoe.build},
    "Phi": {"phi3": phi3.build},
    "Qwen": {"qwen2": qwen2.build, "qwen2moe": qwen2moe.build, "qwen3": qwen3.build, "qwen3moe": qwen3.build,
             "qwen35": qwen35.build, "qwen35moe": qwen35moe.build},
    "SmolLM": {"smollm3": smollm3.build},
    "StableLM": {"stablelm": stablelm.build},
    "StarCoder": {"starcoder2": starcoder2.build},
}
ARCHITECTURES = {name: build for family in FAMILIES.values() for name, build in family.items()}


def builder_of(file: GGUFFile) -> Callable[[Builder], Rows]:
    """What records the program of a model. Raises LcpuError for an architecture that is not in the table."""
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = "; ".join(f"{family} ({', '.join(names)})" for family, names in FAMILIES.items())
        raise LcpuError(f"{file.path}: architecture {str(architecture)[:64]!r} is not supported; lcpu runs {known}")
    return ARCHITECTURES[architecture]
