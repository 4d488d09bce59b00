"""Mixtures of experts: a feed-forward that computes, for each token, the few experts that a router chooses for it.

Shazeer et al., "Outrageously Large Neural Networks"; what is computed, and in which order, is as in llama.cpp's
build_moe_ffn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..kernels import experts as kernels
from ..kernels.activations import INT8, Activation
from ..kernels.jit import address_of
from ..kernels.matmul import GROUP_BYTES, GROUPS, MAX_TOKENS
from ..kernels.simd import LANES
from .builder import Builder
from .rows import Rows
from .tensors import Matrix, role

Scoring = Literal["softmax", "sigmoid", "softmax of chosen"]

_SCORINGS: dict[Scoring, int] = {"softmax": kernels.SOFTMAX, "sigmoid": kernels.SIGMOID,
                                 "softmax of chosen": kernels.SOFTMAX_OF_CHOSEN}
_MOST_SPARE = MAX_TOKENS // 2 - 1  # rows of a group that no token fills


@dataclass(frozen=True, eq=False)
class _Routing:
    """What a layer's router has decided. One memory serves all layers; arrays are as in `kernels.experts.route`."""

    used: int
    capacity: int  # rows
    weights: np.ndarray
    places: np.ndarray
    groups: np.ndarray
    rows: np.ndarray

    @property
    def count(self) -> int:
        """The address of the number of rows."""
        return address_of(self.groups)


def add_experts(b: Builder, x: Rows | None, normed: Rows, name: str, *, scoring: Scoring = "softmax",
                renormalize: bool = False, factor: float = 1.0, activation: str = "silu",
                router_input: Rows | None = None) -> Rows:
    """x + the weighted sum of down . (activation(gate . normed) * up . normed) over the experts of each token.

    x: None for the sum alone. name: what the layer's tensors begin with, "blk.0.". scoring: what a token's router
    scores become: weights of all experts, of which the highest are chosen, or of those chosen by the scores themselves.
    renormalize: divide weights by their sum. factor: multiplies weights. activation: of the gate. router_input: what
    the router reads, by default normed.

    Where the file has exp_probs_b.bias, it is added for choosing alone; the router and all experts may have biases,
    and ffn_down_exps.scale multiplies what each expert gives.
    Results of a token do not depend on other tokens. Raises LcpuError for tensors that are missing or wrong.
    """
    count, used, width = b.h.expert_count, b.h.expert_used_count, b.h.expert_feed_forward_length
    gate, up, down = (f"{name}ffn_{part}_exps" for part in ("gate", "up", "down"))
    b.split(f"{name}ffn_gate_up_exps", [(gate, width), (up, width)])
    factors = _factors(b, down, normed.width, width, count)
    routing = _route(b, router_input or normed, name, count, used, scoring, renormalize, factor, factors)
    matrices = [_matrix(b, part, width, normed.width, count) for part in (gate, up)]
    gathered = {form: _gathered(b, routing, normed, form)
                for form in dict.fromkeys(matrix.format.activation for matrix in matrices)}
    if b.input_squares:
        b.input_squares.add_experts(normed, matrices, routing.groups, routing.rows)
    gate_rows, up_rows = _products(b, routing, matrices, [gathered[matrix.format.activation] for matrix in matrices])
    hidden = b.gate(gate_rows, up_rows, activation)
    matrix = b.matrix(f"{down}.weight", normed.width, width, experts=count, is_scaled=factors is None)
    source = b.input(hidden, matrix.format.activation)
    if b.input_squares:
        b.input_squares.add_experts(hidden, [matrix], routing.groups, None)
    result, = _products(b, routing, [matrix], [source])
    out = x or b.new_rows("experts", normed.width, normed.count)
    b.program.add(kernels.add_weighted, count=out.count, used=used, places=routing.places, weights=routing.weights,
                  weights_stride=routing.weights.strides[0], x=result.array, x_stride=result.stride, out=out.array,
                  out_stride=out.stride, vectors=out.vectors, accumulate=x is not None)
    return out.changed()


def _factors(b: Builder, name: str, rows: int, k: int, experts: int) -> np.ndarray | None:
    """Of what experts' matrices give, float32 [experts], where the file has such and panels have no place for them."""
    scale = f"{name}.scale"
    if not b.has(scale) or b.tensors.can_scale(f"{name}.weight", rows, k, experts):
        return None
    return b.tensors.vector(scale, experts)


def _route(b: Builder, x: Rows, name: str, count: int, used: int, scoring: Scoring, renormalize: bool, factor: float,
           factors: np.ndarray | None) -> _Routing:
    scores = b.linear(x, f"{name}ffn_gate_inp", count)
    pairs = b.batch.capacity * used
    capacity = pairs + _MOST_SPARE * min(count, pairs)
    weights = b.buffer("expert weights", 4 * -(-used // LANES) * LANES)
    places, rows = b.buffer("expert places", 8 * used), b.buffer("expert rows", 16, capacity)
    groups = b.buffer("expert groups", GROUPS + count * GROUP_BYTES, 1)
    bias = b.tensors.vector(f"{name}exp_probs_b.bias", count) if b.has(f"{name}exp_probs_b.bias") else 0
    b.program.add(kernels.route, count=x.count, scores=scores.array, stride=scores.stride, experts=count, used=used,
                  scoring=_SCORINGS[scoring], bias=bias, renormalize=renormalize, factor=float(factor),
                  factors=0 if factors is None else factors, chosen=b.buffer("chosen experts", 8 * used),
                  weights=weights, weights_stride=weights.strides[0],
                  places=places, groups=groups, rows=rows, ranks=b.scratch("ranks", scores.stride),
                  ranks_bytes=scores.stride,
                  next_rows=b.buffer("next rows of experts", 8 * count, 1), finished=b.buffer("routed tokens", 64, 1))
    return _Routing(used, capacity, weights, places, groups, rows)


def _matrix(b: Builder, name: str, rows: int, k: int, experts: int) -> Matrix:
    return b.matrix(f"{name}.weight", rows, k, experts=experts)


def _gathered(b: Builder, routing: _Routing, x: Rows, activation: Activation) -> np.ndarray:
    """x as a format's matmul takes it, a row for each token and expert: made once for a token, then copied."""
    source = b.input(x, activation)
    nbytes = source.strides[0]
    out = b.buffer(f"gathered {activation}", nbytes, routing.capacity)
    b.program.add(kernels.gather_rows, groups=routing.groups, rows=routing.rows, x=source, x_stride=nbytes, out=out,
                  out_stride=nbytes, nbytes=nbytes, int8=isinstance(activation, INT8))
    return out


def _products(b: Builder, routing: _Routing, matrices: list[Matrix], inputs: list[np.ndarray]) -> list[Rows]:
    """Every row times the matrices of its expert [+ bias]; threads go from one to the next without waiting."""
    results = []
    for matrix, source in zip(matrices, inputs, strict=True):
        out = b.new_rows(role(matrix.name), matrix.rows, routing.count, routing.capacity)
        panels, panel_stride = len(matrix.panels) // len(matrix.parts), matrix.panels.strides[0]
        b.program.add(matrix.format.matmul_experts, barrier=matrix is matrices[-1], name=role(matrix.name),
                      groups=routing.groups, weights=matrix.panels, x=source, out=out.array,
                      x_stride=source.strides[0], out_stride=out.stride, panels=panels, panel_stride=panel_stride,
                      blocks=matrix.blocks, share=b.share(panels * routing.used, panel_stride))
        results.append(out)
    for matrix, out in zip(matrices, results, strict=True):
        bias = matrix.name.removesuffix("weight") + "bias"
        if b.has(bias):
            values = b.tensors.vectors(bias, matrix.rows, len(matrix.parts))
            b.program.add(kernels.add_expert_bias, groups=routing.groups, rows=routing.rows, x=out.array,
                          stride=out.stride, bias=values, bias_stride=values.strides[0], vectors=out.vectors)
    return results
