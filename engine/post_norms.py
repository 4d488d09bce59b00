"""Norms of what a half of a layer gives, before it is added to the residual stream."""

from __future__ import annotations

from ..kernels import elementwise
from .builder import Builder
from .rows import Rows
from .tensors import role


def add_rms_norm(b: Builder, x: Rows, y: Rows, name: str) -> Rows:
    """x + y / sqrt(mean(y ** 2) + epsilon) * weight, in x's place. name: the weight's."""
    b.program.add(elementwise.add_rms_norm, name=role(name), count=x.count, x=x.array, y=y.array,
                  weight=b.tensors.vector(name, x.width), stride=x.stride, vectors=x.vectors, width=x.width,
                  epsilon=b.h.norm_epsilon)
    return x.changed()
