"""Qwen 3.5 and 3.6 MoE: the layers of Qwen 3.5, with experts, whose weights are renormalized, and one of all tokens."""

from functools import partial

from ..builder import Builder
from ..rows import Rows
from .qwen2moe import feed_forward
from .qwen35 import build_with


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    return build_with(b, partial(feed_forward, renormalize=True))
