"""The architectures that can be converted. A new one is a file and a line here."""

from collections.abc import Mapping
from typing import Any

from ...kernels.errors import LcpuError
from ..json_file import Config
from .architecture import Architecture
from .bitnet import BITNET, BITNET_158
from .falcon import FALCON
from .gemma import GEMMA
from .gemma2 import GEMMA2
from .gemma3 import GEMMA3
from .gemma4 import GEMMA4
from .gpt_oss import GPT_OSS
from .granite import GRANITE, GRANITEMOE
from .lfm2 import LFM2, LFM2MOE
from .llama import LLAMA, MIXTRAL
from .mistral3 import MISTRAL3
from .olmo2 import OLMO2
from .olmoe import OLMOE
from .phi3 import PHI3
from .qwen2 import QWEN2
from .qwen2moe import QWEN2MOE
from .qwen3 import QWEN3
from .qwen3moe import QWEN3MOE
from .qwen35 import QWEN35
from .qwen35moe import QWEN35MOE
from .smollm3 import SMOLLM3
from .stablelm import STABLELM
from .starcoder2 import STARCODER2

# By the name in "architectures" of config.json.
ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": LLAMA,
    "LLaMAForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "MixtralForCausalLM": MIXTRAL,
    "GptOssForCausalLM": GPT_OSS,
    "OlmoeForCausalLM": OLMOE,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen2MoeForCausalLM": QWEN2MOE,
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3MoeForCausalLM": QWEN3MOE,
    "Qwen3_5ForCausalLM": QWEN35,
    "Qwen3_5ForConditionalGeneration": QWEN35,
    "Qwen3_5MoeForCausalLM": QWEN35MOE,
    "Qwen3_5MoeForConditionalGeneration": QWEN35MOE,
    "GemmaForCausalLM": GEMMA,
    "Gemma2ForCausalLM": GEMMA2,
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3ForConditionalGeneration": GEMMA3,
    "Gemma4ForCausalLM": GEMMA4,
    "Gemma4ForConditionalGeneration": GEMMA4,
    "Phi3ForCausalLM": PHI3,
    "GraniteForCausalLM": GRANITE,
    "GraniteMoeForCausalLM": GRANITEMOE,
    "GraniteMoeSharedForCausalLM": GRANITEMOE,
    "Lfm2ForCausalLM": LFM2,
    "Lfm2VlForConditionalGeneration": LFM2,
    "Lfm2MoeForCausalLM": LFM2MOE,
    "SmolLM3ForCausalLM": SMOLLM3,
    "Olmo2ForCausalLM": OLMO2,
    "Olmo3ForCausalLM": OLMO2,
    "Ministral3ForCausalLM": MISTRAL3,
    "Mistral3ForConditionalGeneration": MISTRAL3,
    "Starcoder2ForCausalLM": STARCODER2,
    "StableLmForCausalLM": STABLELM,
    "FalconForCausalLM": FALCON,
    "BitnetForCausalLM": BITNET,
    "BitNetForCausalLM": BITNET_158,
}


def architecture_of(config: Config) -> Architecture:
    """Raises LcpuError for one that is not in the table."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    if name is None or name not in ARCHITECTURES:
        named = f"the architecture {name[:80]!r}" if name else "no architecture"
        raise LcpuError(f"{config.path}: has {named}; lcpu converts {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """A config.json as the files of its architecture are read: that of the language model, where there are others."""
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    text = values.get("text_config")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        return values
    return ARCHITECTURES[name].complete(values | text | {"architectures": names} if isinstance(text, dict) else values)


__all__ = ["ARCHITECTURES", "Architecture", "architecture_of", "complete"]
