"""AWQ checkpoints in the layout "gemm" (AutoAWQ, AutoRound): "quant_method": "awq".

Of a layer with K inputs, N outputs and G groups of inputs: qweight int32 [K, N / 8] and qzeros int32 [G, N / 8], fields
of 4 bits along N; scales [G, N]. Column 8 c + j is field _ORDER[j] of word c.
value[n, k] = scales[g, n] * (code[n, k] - zero[g, n]). Source: AutoAWQ's packing_utils.
"""

from __future__ import annotations

import numpy as np

from ..json_file import Config
from .bits import fields_at
from .gptq import is_packed
from .integers import Integers
from .packing import Packing, Parts, floats

ENDINGS = (".qweight", ".qzeros", ".scales")
_ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])
_BITS = 4


def _check(settings: Config) -> None:
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if version != "gemm":
        raise settings.error("quantization_config", f"has the layout {version[:40]!r}; of AWQ, lcpu reads 'gemm': take "
                             "a checkpoint in that layout")
    bits = settings.get("bits") or settings.get("w_bit") or _BITS
    if bits != _BITS:
        raise settings.error("quantization_config", f"has {bits!r:.20} bits; of AWQ, lcpu reads those of {_BITS}")


def read_awq(parts: Parts, shape: tuple[int, ...]) -> Integers:
    """The weight [N, K] of a layer."""
    rows, k = shape
    qweight = parts.tensor(".qweight", [(k, rows // 8)], ("I32",))
    scales, count = parts.group_scales(".scales", rows)
    qzeros = parts.tensor(".qzeros", [(count, rows // 8)], ("I32",))
    if rows % 8 or k % count:
        raise parts.error(qweight, f"is of {rows} x {k} values in {count} groups, which AWQ cannot have")

    def codes(wanted: np.ndarray) -> np.ndarray:
        first, last = int(wanted.min()) // 8, int(wanted.max()) // 8 + 1
        words = np.ascontiguousarray(qweight.array()[:, first:last].T).view(np.uint32)
        fields = np.empty((last - first, 8, k), np.uint8)
        for j, field in enumerate(_ORDER):
            fields[:, j] = words >> np.uint32(_BITS * field) & np.uint32(15)
        return fields.reshape(-1, k)[wanted - 8 * first]

    def zeros(wanted: np.ndarray) -> np.ndarray:
        if qzeros.file is None:
            return np.zeros((len(wanted), count), np.int32)
        positions = (wanted // 8 * 8 + _ORDER[wanted % 8]) * _BITS
        return fields_at(qzeros.array().view(np.uint32), positions, _BITS).T

    return Integers(shape, (0, 15), codes, lambda wanted: floats(scales).T[wanted], zeros,
                    np.arange(k) // (k // count), parts.release)


AWQ = Packing("AWQ", ENDINGS, is_packed, read_awq, _check)
