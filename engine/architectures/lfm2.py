"""LFM 2, dense or with experts: most layers are short convolutions of gated values, the others attention.

Source: Liquid AI, "LFM2 Technical Report" (arXiv:2511.23404); names are llama.cpp's.
"""

from ...kernels.errors import LcpuError
from ..builder import Builder
from ..delta_net import convolve
from ..experts import add_experts
from ..rows import WHOLE_VECTORS, Rows
from .llama import dense, norm_and_rotate, projections

_SIGMOID = 2  # of expert_gating_func


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    h, keys = b.h, b.keys
    if h.embedding_length % WHOLE_VECTORS:
        raise LcpuError(f"{b.file.path}: convolutions have {h.embedding_length} channels; lcpu supports multiples of "
                        f"{WHOLE_VECTORS}; take another model")
    kv_heads = keys.counts("attention.head_count_kv", h.block_count, least=0)
    dense_layers = keys.count("leading_dense_block_count", 0, least=0) if h.expert_count else h.block_count
    x = b.embed("token_embd.weight")
    for layer in range(h.block_count):
        name = f"blk.{layer}."
        normed = b.rms_norm(x, name + "attn_norm.weight")
        x = _attention(b, x, normed, name) if kv_heads[layer] else _convolution(b, x, normed, name)
        normed = b.rms_norm(x, name + "ffn_norm.weight")
        x = dense(b, x, normed, name) if layer < dense_layers else _experts(b, x, normed, name)
    return b.logits(b.rms_norm(b.outputs(x), "token_embd_norm.weight"))


def _convolution(b: Builder, x: Rows, normed: Rows, name: str) -> Rows:
    """x + out . (c * convolution(b * values)), where one matrix gives b, c and the values."""
    width, fused = b.h.embedding_length, name + "shortconv.in_proj"
    outputs = [(f"{name}shortconv.{part}", width) for part in ("before", "after", "values")]
    b.split(fused, outputs)
    before, after, values = b.linears(normed, outputs)
    gated = b.gate(before, values, "none")
    made = convolve(b, gated, name + "shortconv.conv.weight", b.keys.count("shortconv.l_cache"), silu=False)
    return b.linear(b.gate(made, after, "none"), name + "shortconv.out_proj", width, add_to=x)


def _attention(b: Builder, x: Rows, normed: Rows, name: str) -> Rows:
    q, k, v = projections(b, normed, name)
    q, k = norm_and_rotate(b, q, k, name)
    attended = b.attention(q, k, v, name, window=b.keys.count("attention.sliding_window", 0, least=0))
    return b.linear(attended, name + "attn_output", x.width, add_to=x)


def _experts(b: Builder, x: Rows, normed: Rows, name: str) -> Rows:
    scoring = b.keys.count("expert_gating_func", _SIGMOID)
    if scoring != _SIGMOID:
        raise b.keys.error("expert_gating_func", f"is {scoring}: lcpu supports {_SIGMOID}, the sigmoid, with models of "
                                                 "this architecture; take another model")
    return add_experts(b, x, normed, name, scoring="sigmoid", renormalize=True)
