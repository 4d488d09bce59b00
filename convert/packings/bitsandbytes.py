"""bitsandbytes checkpoints: "quant_method": "bitsandbytes", of 4 bits (NF4, FP4) and of 8.

4 bits: `weight` has the codes of all values in their order, two in a byte, the first in its high 4 bits; quant_map
float32 [16] says what they stand for, and absmax float32 what runs of `blocksize` values are multiplied by. Nested:
absmax is uint8, and stands for nested_quant_map[absmax] * nested_absmax[run of nested_blocksize] + nested_offset. The
numbers are in quant_state.bitsandbytes__nf4 (or fp4), JSON as uint8.
8 bits: `weight` is int8 [N, K], SCB float32 [N]; value = weight * SCB / 127.
Source: bitsandbytes' functional.py and nn/modules.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..source import SourceTensor, as_float32
from .integers import Integers
from .packing import Packing, Parts, floats
from .weight import Weight

_STATES = (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4")
_NESTED = (".weight.nested_absmax", ".weight.nested_quant_map")
_ENDINGS = (".weight", ".weight.absmax", ".weight.quant_map", *_NESTED, *_STATES, ".SCB", ".weight_format")
_STEP = np.float32(7.874015718698502e-3)  # 1 / 127, in bitsandbytes' digits


def _is_packed(tensors: Mapping[str, SourceTensor]) -> bool:
    return ".SCB" in tensors or ".weight.absmax" in tensors or any(state in tensors for state in _STATES)


def _read(parts: Parts, shape: tuple[int, ...]) -> Integers | Weight:
    return _read_int8(parts, shape) if ".SCB" in parts.tensors else _read_4bit(parts, shape)


def _read_int8(parts: Parts, shape: tuple[int, ...]) -> Integers:
    weight = parts.tensor(".weight", [shape], ("I8",))
    scales = parts.scales(".SCB", [(shape[0],), (shape[0], 1)])
    form = parts.tensors.get(".weight_format")
    if form is not None and form.file is not None and form.array().any():
        raise parts.error(form, "is not 0: the rows of the weight are not in their order, which lcpu cannot read")
    return Integers(
        shape, (-128, 127), lambda wanted: weight.array()[wanted],
        lambda wanted: (floats(scales).reshape(-1)[wanted] * _STEP)[:, None],
        lambda wanted: np.zeros((len(wanted), 1), np.int32), np.zeros(shape[1], np.int64), parts.release,
    )  # fmt: skip


def _read_4bit(parts: Parts, shape: tuple[int, ...]) -> Weight:
    weight = parts.tensor(".weight")
    rows, k = math.prod(shape[:-1]), shape[-1]
    if 2 * weight.nbytes != rows * k or k % 2:
        raise parts.error(weight, f"has {weight.nbytes} bytes, which are not {rows} x {k} values of 4 bits")
    state = _state(parts, rows * k)
    levels = floats(parts.scales(".weight.quant_map", [(16,)]))
    absmax = _absmax(parts, state, -(-rows * k // state["blocksize"]))

    def values(wanted: np.ndarray) -> np.ndarray:
        packed = weight.array().reshape(-1).view(np.uint8).reshape(rows, k // 2)[wanted]
        codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(len(wanted), k)
        runs = np.add.outer(wanted * k, np.arange(k)) // state["blocksize"]
        first = int(runs.min())
        return levels[codes] * absmax(first, int(runs.max()) + 1)[runs - first]

    return Weight(shape, values, release=parts.release)


def _state(parts: Parts, count: int) -> dict[str, Any]:
    """The numbers beside the tensors. Raises LcpuError if they are damaged, or of another count of values."""
    stored = parts.tensor(next((state for state in _STATES if state in parts.tensors), _STATES[0]), dtypes=("U8",))
    if stored.file is None:
        return {"blocksize": 64, "nested_blocksize": 256, "nested_offset": 0.0}
    try:
        state = json.loads(stored.array().tobytes())
        sizes = [state["blocksize"]] + ([state["nested_blocksize"]] if _NESTED[0] in parts.tensors else [])
        whole = all(type(size) is int and size > 0 for size in sizes) and math.prod(state["shape"]) == count
        float(state.get("nested_offset", 0.0))
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise parts.error(stored, "does not describe the weight: damaged; download it again")
    return state


def _absmax(parts: Parts, state: Mapping[str, Any], count: int) -> Callable[[int, int], np.ndarray]:
    """absmax(start, stop) -> what runs of values are multiplied by, of `count` in all: float32 [stop - start]."""
    if _NESTED[0] not in parts.tensors:
        plain = parts.scales(".weight.absmax", [(count,)])
        return lambda start, stop: as_float32(plain.array()[start:stop], plain.dtype)
    size, offset = state["nested_blocksize"], np.float32(state["nested_offset"])
    codes = parts.tensor(".weight.absmax", [(count,)], ("U8",))
    levels = floats(parts.scales(_NESTED[1], [(256,)]))
    scales = floats(parts.scales(_NESTED[0], [(-(-count // size),)]))
    return lambda start, stop: levels[codes.array()[start:stop]] * scales[np.arange(start, stop) // size] + offset


BITSANDBYTES = Packing("bitsandbytes", _ENDINGS, _is_packed, _read)
