"""GPTQ checkpoints, of AutoGPTQ, GPTQModel and others: "quant_method": "gptq".

Of a layer with K inputs, N outputs, b bits and G groups of inputs: qweight int32 [K b / 32, N], fields of b bits along
K; qzeros int32 [G, N b / 32], along N; scales [G, N]; g_idx int32 [K], the group of each input. value[n, k] =
scales[g, n] * (code[n, k] - zero[g, n]). Checkpoints of the first version store zeros less 1 in qzeros: 1 is to be
added to the fields of a word in one 32-bit addition, since the subtraction borrowed across them as well.
Source: AutoGPTQ's qlinear modules, GPTQModel's convert_gptq_v1_to_v2_format.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..json_file import Config
from ..source import SourceTensor
from .bits import as_bytes, fields_at, unpack
from .integers import Integers
from .packing import Packing, Parts, floats

ENDINGS = (".qweight", ".qzeros", ".scales", ".g_idx")
BITS = range(2, 9)  # 5 to 7: of AutoRound
_FORMATS = ("gptq", "gptq_v2")
_ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}  # a 1 in each field of a word


def is_packed(tensors: Mapping[str, SourceTensor]) -> bool:
    return ".qweight" in tensors


def _format(settings: Config) -> str:
    named = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    return str(named).lower()


def _check(settings: Config) -> None:
    if _format(settings) not in _FORMATS:
        raise settings.error("quantization_config", f"has the format {_format(settings)[:40]!r}; of GPTQ, lcpu reads "
                             f"{' and '.join(_FORMATS)}: take a checkpoint in one of these")


def _read(parts: Parts, shape: tuple[int, ...]) -> Integers:
    return read_gptq(parts, shape, zeros_less_one=_format(parts.settings) == "gptq")


def read_gptq(parts: Parts, shape: tuple[int, ...], zeros_less_one: bool) -> Integers:
    """The weight [N, K] of a layer. zeros_less_one: what the checkpoint says of qzeros, which is not always so."""
    rows, k = shape
    qweight = parts.tensor(".qweight", dtypes=("I32",))
    bits = next((bits for bits in BITS if qweight.shape == (k * bits // 32, rows) and k * bits % 32 == 0), None)
    if bits is None:
        raise parts.error(qweight, f"has the shape {qweight.shape}, which is not that of {rows} x {k} values of 2 "
                          "to 8 bits")
    scales, count = parts.group_scales(".scales", rows)
    qzeros = parts.tensor(".qzeros", [(count, rows * bits // 32)], ("I32",))
    less_one = _less_one(qzeros, bits, zeros_less_one)

    def codes(wanted: np.ndarray) -> np.ndarray:
        first, last = int(wanted.min()), int(wanted.max()) + 1
        return unpack(as_bytes(qweight.array()[:, first:last].T), bits, k)[wanted - first]

    def zeros(wanted: np.ndarray) -> np.ndarray:
        words = _zero_words(parts, qzeros, bits)
        if not less_one:
            return fields_at(words, wanted * bits, bits).T
        if bits in _ONES:
            return fields_at(words + np.uint32(_ONES[bits]), wanted * bits, bits).T
        return (fields_at(words, wanted * bits, bits).T + 1) % 2**bits  # fields straddle words

    return Integers(shape, (0, 2**bits - 1), codes, lambda wanted: floats(scales).T[wanted], zeros,
                    _groups(parts, k, count), parts.release)


def _groups(parts: Parts, k: int, count: int) -> np.ndarray:
    """The group of each of K columns."""
    if ".g_idx" not in parts.tensors or parts.is_described:
        return np.arange(k) // -(-k // count)
    g_idx = parts.tensor(".g_idx", [(k,)], ("I32", "I64"))
    groups = g_idx.array().astype(np.int64)
    if groups.min() < 0 or groups.max() >= count:
        raise parts.error(g_idx, f"names groups that are not among the {count} of the layer: damaged")
    return groups


def _zero_words(parts: Parts, qzeros: SourceTensor, bits: int) -> np.ndarray:
    """qzeros as uint32."""
    if qzeros.file is not None:
        return qzeros.array().view(np.uint32)
    symmetric = parts.settings.get("sym") is not False
    return np.full(qzeros.shape, _ONES.get(bits, 0) << (bits - 1) if symmetric else 0, np.uint32)


def _less_one(qzeros: SourceTensor, bits: int, said: bool) -> bool:
    """Whether zeros are stored less 1. Symmetric checkpoints tell it themselves: all zeros are in the middle."""
    if qzeros.file is None:
        return False
    words = qzeros.array().view(np.uint32)
    fields = fields_at(words, np.arange(words.shape[1] * 32 // bits) * bits, bits)
    lowest, highest = int(fields.min()), int(fields.max())
    middle = 2 ** (bits - 1)
    return lowest == middle - 1 if lowest == highest and lowest in (middle - 1, middle) else said


GPTQ = Packing("GPTQ", ENDINGS, is_packed, _read, _check)
