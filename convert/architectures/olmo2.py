"""OLMo 2 and 3: norms come after the halves of a layer, and of queries and keys as a whole."""

import gguf

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import DECODER_BLOCK, Architecture
from .windows import LOCAL_BASE, window_metadata, with_base_of_windows


def _metadata(config: Config) -> dict[str, Value]:
    keys = window_metadata(config, period=4) if config.get("sliding_window") is not None else {}
    return keys if config.get(LOCAL_BASE) is None else keys | {"rope.freq_base_swa": config.real(LOCAL_BASE)}


OLMO2 = Architecture(
    name="olmo2",
    gguf=gguf.MODEL_ARCH.OLMO2,
    block={name: shape for name, shape in DECODER_BLOCK.items() if name not in ("attn_norm.weight", "ffn_norm.weight")}
    | {
        "attn_q_norm.weight": ("q",),
        "attn_k_norm.weight": ("kv",),
        "post_attention_norm.weight": ("embed",),
        "post_ffw_norm.weight": ("embed",),
    },
    metadata=_metadata,
    complete=with_base_of_windows,
)
