"""Choose a type for every tensor under a budget of bits, from measured errors: `lcpu quantize --target-bpw`.

The divergence of a quantized model's predictions grows with the squared error of each matrix's products, relative to
the products, and errors of different matrices add up (Malinovskii et al., "Pushing the Limits of Large Language Model
Quantization via the Linearity Theorem"). So each tensor is quantized in each type on a sample of its rows; what an
error costs depends on the tensor's role; and bits are spent where they save the most.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..engine.gguf_file import GGUFFile, TensorInfo
from ..engine.gguf_types import TENSOR_TYPES
from ..engine.threads import thread_count
from ..kernels.errors import LcpuError
from ..kernels.formats import FORMATS
from ..kernels.jit import announcing
from ..kernels.memory import zeros
from ..kernels.program import Program
from ..kernels.quantizing import PIECE, SCRATCH_BYTES, convert, convert_weighted
from ..kernels.team import Team
from .imatrix import ImportanceMatrix
from .type_rules import MIXTURES, TYPE_IDS, Overrides, choose_types, free_tensors, largest_magnitude, layer_of, role_of

CANDIDATES = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0", "F16")
SAMPLE = 1 << 17  # values of a tensor that are quantized to measure an error: it is then certain to about 1%
_F32, _F64 = TYPE_IDS["F32"], TYPE_IDS["F64"]

# What a relative squared error of products costs, by role: KL divergences, against that of ffn_up in all layers. They
# are means of what was measured with Q4_0 on SmolLM2-135M and Qwen2.5-Coder-0.5B; all layers of a role count the same.
# token_embd: where it is not the output layer, too. Errors of the output layer are those of its values: the largest
# part of what it is multiplied with moves all logits alike, which changes no prediction.
SENSITIVITY: Mapping[str, float] = {
    "attn_q": 0.26, "attn_k": 0.65, "attn_v": 0.62, "attn_output": 0.39, "ffn_gate": 0.72, "ffn_up": 1.0,
    "ffn_down": 0.93, "output": 1.0, "token_embd": 0.05,
}


@dataclass(frozen=True)
class Option:
    """A type that a tensor could get."""

    type_id: int
    nbytes: int
    error: float  # squared error of the products (of the output layer: of the values) over their squares
    cost: float  # what that is expected to add to the divergence, in a unit of its own


@dataclass(frozen=True)
class Budget:
    """The types of all tensors, and what was measured of those that were free."""

    types: dict[str, int]
    chosen: dict[str, Option]
    file_type: int | None  # general.file_type: that of the type which most weights have


def choose(file: GGUFFile, bits: float, overrides: Overrides, imatrix: ImportanceMatrix | None = None, *,
           threads: int | None = None, progress: Callable[[str, int, int], None] | None = None) -> Budget:
    """Types with which the tensors of a file take at most so many bits for each of all their values.

    Tensors whose types the user names keep these. Raises LcpuError if even the smallest types take more.
    """
    infos = file.tensors
    types, _ = choose_types(infos.values(), file.metadata, MIXTURES["copy"], overrides)
    free = {name: infos[name] for name in free_tensors(infos.values(), overrides)
            if infos[name].type_id in FORMATS or infos[name].type_id == _F64}
    fixed = sum(TENSOR_TYPES[types[name]].nbytes(info.shape) for name, info in infos.items() if name not in free)
    budget = bits * sum(math.prod(info.shape) for info in infos.values()) / 8
    roles = _roles(infos)
    layers = 1 + max((layer_of(name) for name in infos), default=0)
    progress = progress or (lambda stage, done, total: None)
    options: dict[str, list[Option]] = {}
    count = thread_count(threads, sum(info.nbytes for info in free.values()))
    with announcing(lambda name: progress("compiling", 0, 0)), Team(count) as team:
        measure = _Measure(file, team, imatrix)
        for done, (name, info) in enumerate(free.items()):
            progress("measuring", done, len(free))
            sensitivity = SENSITIVITY.get(roles[name], 1.0) / (layers if layer_of(name) >= 0 else 1)
            options[name] = _hull(measure.options(info, sensitivity, of_products=roles[name] != "output"))
    chosen = allocate(options, budget - fixed)
    if chosen is None:
        least = fixed + sum(each[0].nbytes for each in options.values())
        raise LcpuError(f"{file.path}: takes at least {8 * least / (budget * 8 / bits):.2f} bits per weight: take a "
                        "larger --target-bpw, or smaller types for tensors that are named")
    types |= {name: option.type_id for name, option in chosen.items()}
    return Budget(types, chosen, _file_type(types, infos))


def allocate(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option] | None:
    """One of each tensor's options, with the smallest sum of costs that is found within so many bytes; None: no way.

    Options go from small to large, with gains for each byte that fall. From the smallest ones on, the step with the
    largest gain for a byte comes next. A step that does not fit ends the steps of its tensor.
    """
    chosen = {name: each[0] for name, each in options.items()}
    left = budget - sum(option.nbytes for option in chosen.values())
    if left < 0:
        return None
    steps = [(-_gain(each[0], each[1]), name, 1) for name, each in options.items() if len(each) > 1]
    heapq.heapify(steps)
    while steps:
        _, name, index = heapq.heappop(steps)
        option, each = options[name][index], options[name]
        if option.nbytes - chosen[name].nbytes > left:
            continue
        left -= option.nbytes - chosen[name].nbytes
        chosen[name] = option
        if index + 1 < len(each):
            heapq.heappush(steps, (-_gain(option, each[index + 1]), name, index + 1))
    return chosen


def _gain(small: Option, large: Option) -> float:
    return (small.cost - large.cost) / (large.nbytes - small.nbytes)


def _hull(options: Sequence[Option]) -> list[Option]:
    """The options that are best for some price of a byte, from small to large."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda option: (option.nbytes, option.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _gain(hull[-1], option) >= _gain(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    assert all(small.nbytes < large.nbytes for small, large in pairwise(hull))
    return hull


def _roles(names: Iterable[str]) -> dict[str, str]:
    """By name. An embedding that is the output layer, too, has that role."""
    roles = {name: role_of(name) for name in names}
    tied = "output" not in roles.values()
    return {name: "output" if tied and role == "token_embd" else role for name, role in roles.items()}


def _file_type(types: Mapping[str, int], infos: Mapping[str, TensorInfo]) -> int | None:
    sizes: dict[int, int] = {}
    for name, type_id in types.items():
        sizes[type_id] = sizes.get(type_id, 0) + math.prod(infos[name].shape)
    most = TENSOR_TYPES[max(sizes, key=lambda type_id: sizes[type_id])].name
    return next((mixture.file_type for mixture in MIXTURES.values() if mixture.base == most), None)


class _Measure:
    """Quantizes samples of tensors."""

    def __init__(self, file: GGUFFile, team: Team, imatrix: ImportanceMatrix | None) -> None:
        self._file, self._team, self._imatrix = file, team, imatrix
        self._scratch = zeros((team.threads, SCRATCH_BYTES), np.uint8)

    def options(self, info: TensorInfo, sensitivity: float, of_products: bool = True) -> list[Option]:
        """Those whose blocks a tensor's rows are made of, and which are not larger than the tensor is.

        of_products: errors count by importance where there is one; they are quantized with it in any case.
        """
        x = self._sample(info)
        importance = self._imatrix.of(info) if self._imatrix else None
        weights = np.ones((1, info.shape[-1]), np.float32) if importance is None else importance
        weights = weights[np.arange(len(x)) * len(weights) // len(x)]  # of each row
        counts = weights if of_products else np.ones_like(weights)
        square = float((counts * x * x).sum(dtype=np.float64))
        found = []
        for kind in CANDIDATES:
            type_id = TYPE_IDS[kind]
            nbytes = TENSOR_TYPES[type_id].nbytes(info.shape)
            if info.shape[-1] % TENSOR_TYPES[type_id].block_values or nbytes > info.nbytes:
                continue
            y = self._rounded(info, x, None if importance is None else weights, type_id)
            error = float((counts * (x - y) ** 2).sum(dtype=np.float64)) / square if square else 0.0
            found.append(Option(type_id, nbytes, error, sensitivity * error))
        self._file.release(info.name)
        return found or [Option(info.type_id, info.nbytes, 0.0, 0.0)]

    def _sample(self, info: TensorInfo) -> np.ndarray:
        """Some rows of a tensor, from front to back: float32 [rows, row length]."""
        columns = info.shape[-1]
        rows = math.prod(info.shape) // columns
        count = min(rows, -(-SAMPLE // columns))
        data = self._file.data(info.name).view(np.uint8)[: TENSOR_TYPES[info.type_id].nbytes(info.shape)]
        taken = data.reshape(rows, -1)[np.arange(count) * rows // count]
        if info.type_id == _F64:
            return taken.view("<f8").astype(np.float32)
        x = zeros((count, columns), np.float32)
        self._convert(info, np.ascontiguousarray(taken), info.type_id, x, _F32)
        return x

    def _rounded(self, info: TensorInfo, x: np.ndarray, weights: np.ndarray | None, type_id: int) -> np.ndarray:
        """Rows as a type has them."""
        blocks = zeros((TENSOR_TYPES[type_id].nbytes(x.shape),), np.uint8)
        self._convert(info, x, _F32, blocks, type_id, weights)
        y = zeros(x.shape, np.float32)
        self._convert(info, blocks, type_id, y, _F32)
        return y

    def _convert(self, info: TensorInfo, source: np.ndarray, old: int, target: np.ndarray, new: int,
                 weights: np.ndarray | None = None) -> None:
        """weights: float32, for each value of a sample, where it is quantized."""
        from_, to = FORMATS[old], FORMATS[new]
        values = source.nbytes // from_.block_bytes * from_.block
        refused = np.zeros(1, np.int64)
        operands: dict[str, Any] = {
            "values": values, "source": source, "source_bytes": PIECE // from_.block * from_.block_bytes,
            "source_block": from_.block, "source_scale": 1.0, "decode": from_.decode.address, "target": target,
            "target_bytes": PIECE // to.block * to.block_bytes, "target_block": to.block,
            "limit": largest_magnitude(new), "scratch": self._scratch, "refused": refused}
        program = Program()
        if weights is None or to.weighted_encoder is None:
            program.add(convert, encode=to.encode.address, unit=0.0, **operands)
        else:  # one long row: experts have weights of their own
            program.add(convert_weighted, encode=to.weighted_encoder.address, importance=np.ascontiguousarray(weights),
                        first=0, columns=values, **operands)
        self._team.run(program.finish())
        if refused[0]:
            raise LcpuError(f"{self._file.path}: tensor '{info.name}' has values that are not finite, or too large for "
                            f"{TENSOR_TYPES[new].name}: the file is damaged, or take --tensor-type '{info.name}=bf16'")
