"""The block formats that the engine computes on, by GGUF tensor type. A new one is a file and a line here."""

from .. import jit  # noqa: F401  before Numba itself, whose errors it explains
from . import bf16, f16, f32, i2_s, iq1_m, iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, iq4_nl, iq4_xs, mxfp4, nvfp4
from . import q1_0, q2_0, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0, tq1_0, tq2_0
from .format import Format

FORMATS: dict[int, Format] = {
    module.FORMAT.type_id: module.FORMAT
    for module in (f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, i2_s, tq1_0, tq2_0,
                   iq4_nl, iq4_xs, mxfp4, nvfp4, q1_0, q2_0, iq3_s, iq3_xxs, iq2_s, iq2_xs, iq2_xxs, iq1_m, iq1_s)
}

__all__ = ["FORMATS", "Format"]
