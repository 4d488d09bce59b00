"""The least that steps have to do: the bytes that they must read, and the operations that they must compute.

A multiplication and an addition are two operations.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kernels.simd import LANES
from .model import Model
from .tensors import Matrix

_OUTPUT_LAYERS = ("output.weight", "token_embd.weight")


def is_output_layer(name: str) -> bool:
    """Whether this matrix is multiplied only with the tokens whose logits are wanted."""
    return name in _OUTPUT_LAYERS


def weight_bytes(model: Model, matrix: Matrix, tokens: int) -> int:
    """Bytes that a step of so many tokens reads: of panels, without the padding of the last one.

    Of experts, as many as the tokens have if they share none.
    """
    parts = min(len(matrix.parts), tokens * _used(model, matrix))
    return parts * matrix.rows * matrix.panels.shape[1] // LANES


def weight_operations(model: Model, matrix: Matrix, tokens: int) -> int:
    return 2 * _used(model, matrix) * matrix.rows * matrix.k * tokens


def attention_operations(model: Model, contexts: Iterable[int]) -> int:
    """Of all layers: queries times keys, and probabilities times values. contexts: the positions up to each token."""
    contexts = list(contexts)
    return sum(2 * 2 * layer.width * _seen(layer.window, contexts, 1) for layer in model.attended)


def attention_bytes(model: Model, ends: Iterable[int], tokens: int) -> int:
    """Keys and values that steps of so many tokens read, in all layers. ends: the positions up to each one's last."""
    ends = list(ends)
    return sum(layer.position_bytes * _seen(layer.window, ends, tokens) for layer in model.attended)


def _seen(window: int, contexts: Iterable[int], tokens: int) -> int:
    """Positions of one layer: where it has a window, those in it, of the first of `tokens` and on."""
    return sum(min(context, window + tokens - 1) if window else context for context in contexts)


def _used(model: Model, matrix: Matrix) -> int:
    """How many parts of a matrix a token is multiplied with: of experts, those that it has."""
    return model.h.expert_used_count if len(matrix.parts) > 1 else 1
