"""SmolLM3: as Llama, and nothing rotates in every fourth layer."""

from dataclasses import replace

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK
from .llama import LLAMA


def _metadata(config: Config) -> dict[str, Value]:
    """No keys. Raises LcpuError for other layers than engines take."""
    layers = config.count("num_hidden_layers")
    rotates = config.get("no_rope_layers")  # 1 for layers that rotate
    if rotates is not None and rotates != [int((layer + 1) % 4 > 0) for layer in range(layers)]:
        raise config.error("no_rope_layers", f"is {str(rotates)[:80]}, and engines rotate all layers but every fourth "
                           "one; take another model")
    if config.flag("use_sliding_window"):
        raise config.error("use_sliding_window", "is true, which engines do not compute with models of this "
                           "architecture; take another model")
    return {}


SMOLLM3 = replace(LLAMA, name="smollm3", gguf=gguf.MODEL_ARCH.SMOLLM3, block=DECODER_BLOCK, optional={},
                  metadata=_metadata)
