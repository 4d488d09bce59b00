"""Qwen 1.5 and 2 MoE: Qwen 2 with experts, whose weights are not renormalized, and one more that every token has."""

from ..builder import Builder
from ..experts import add_experts
from ..rows import Rows
from .llama import logits
from .qwen2 import attend


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    x = b.embed("token_embd.weight")
    for layer in range(b.h.block_count):
        name = f"blk.{layer}."
        x = attend(b, x, name)
        x = feed_forward(b, x, b.rms_norm(x, name + "ffn_norm.weight"), name)
    return logits(b, x)


def feed_forward(b: Builder, x: Rows, normed: Rows, name: str, *, renormalize: bool = False) -> Rows:
    """x + the experts of each token + the one of all tokens, which has a gate."""
    x = add_experts(b, x, normed, name, renormalize=renormalize)
    width = b.h.expert_shared_feed_forward_length
    hidden = b.gated(normed, name + "ffn_gate_shexp", name + "ffn_up_shexp", width)
    shared = b.linear(hidden, name + "ffn_down_shexp", b.h.embedding_length)
    return b.add_sigmoid_gated(x, shared, normed, name + "ffn_gate_inp_shexp.weight")
