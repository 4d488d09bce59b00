"""The block formats by GGUF tensor type, and which of them the engine computes on. A new one is a file and a line here.
"""

from . import bf16, f16, f32, i2_s, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0, tq1_0, tq2_0
from .format import Format, Storage

FORMATS: dict[int, Format] = {
    module.FORMAT.type_id: module.FORMAT
    for module in (f32, f16, bf16, q8_0, q4_0, q6_k, i2_s)
}

# All that files can be read and written in: those, and formats whose matmul is still missing.
STORAGE_FORMATS: dict[int, Storage] = FORMATS | {
    module.FORMAT.type_id: module.FORMAT
    for module in (q4_1, q5_0, q5_1, q4_k, q5_k, tq1_0, tq2_0)
}

__all__ = ["FORMATS", "STORAGE_FORMATS", "Format", "Storage"]
