"""Qwen 3.5 and 3.6, dense: of four layers, three are gated delta nets, which keep a state, and one is attention."""

from collections.abc import Callable

from ...kernels import elementwise
from ...kernels.errors import LcpuError
from ..builder import Builder
from ..delta_net import convolve, delta_net, multiply_by_second_half, take_heads
from ..rows import WHOLE_VECTORS, Rows
from .llama import dense, logits, norm_and_rotate


def build(b: Builder) -> Rows:
    """Record the program; the result is the logits [outputs][vocab]."""
    return build_with(b, dense)


def build_with(b: Builder, feed_forward: Callable[[Builder, Rows, Rows, str], Rows]) -> Rows:
    """The same with another feed_forward(b, x, normed x, what the layer's tensors begin with)."""
    layers, attends = b.h.block_count - b.keys.count("nextn_predict_layers", 0, least=0), _attention_layers(b)
    x = b.embed("token_embd.weight")
    for layer in range(layers):
        name = f"blk.{layer}."
        normed = b.rms_norm(x, name + "attn_norm.weight")
        x = _attention(b, x, normed, name) if attends[layer] else _delta_net(b, x, normed, name)
        normed = b.rms_norm(x, name + "post_attention_norm.weight")
        x = feed_forward(b, x, normed, name)
    return logits(b, x)


def _attention_layers(b: Builder) -> list[bool]:
    recurrent = b.keys.flags("attention.recurrent_layers", b.h.block_count)
    if recurrent is not None:
        return [not each for each in recurrent]
    interval = b.keys.count("full_attention_interval", 4)
    return [(layer + 1) % interval == 0 for layer in range(b.h.block_count)]


def _attention(b: Builder, x: Rows, normed: Rows, name: str) -> Rows:
    h = b.h
    both, k, v = b.linears(normed, [(name + "attn_q", 2 * h.head_count * h.head_dim),
                                    (name + "attn_k", h.head_count_kv * h.head_dim),
                                    (name + "attn_v", h.head_count_kv * h.head_dim)])
    q, k = norm_and_rotate(b, take_heads(b, both, h.head_count), k, name)
    attended = multiply_by_second_half(b, b.attention(q, k, v, name), both, h.head_count)
    return b.linear(attended, name + "attn_output", h.embedding_length, add_to=x)


def _delta_net(b: Builder, x: Rows, normed: Rows, name: str) -> Rows:
    keys, head_dim = b.keys, b.keys.count("ssm.state_size")
    key_heads, value_heads = keys.count("ssm.group_count"), keys.count("ssm.time_step_rank")
    if head_dim % WHOLE_VECTORS or value_heads % key_heads or keys.count("ssm.inner_size") != value_heads * head_dim:
        raise LcpuError(f"{b.file.path}: has delta nets of {key_heads} and {value_heads} heads of {head_dim} values, "
                        f"which lcpu does not compute: heads must be multiples of {WHOLE_VECTORS} values, and share "
                        "keys")
    width = value_heads * head_dim
    qkv, z, alpha, beta = b.linears(normed, [
        (name + "attn_qkv", 2 * key_heads * head_dim + width), (name + "attn_gate", width),
        (name + "ssm_alpha", value_heads), (name + "ssm_beta", value_heads)])
    qkv = convolve(b, qkv, name + "ssm_conv1d.weight", keys.count("ssm.conv_kernel"))
    out = delta_net(b, qkv, alpha, beta, name, key_heads, value_heads, head_dim)
    weight = b.tensors.vector(name + "ssm_norm.weight", head_dim)
    b.program.add(elementwise.rms_norm_heads, name="ssm_norm", count=out.count, x=out.array, weight=weight,
                  stride=out.stride, heads=value_heads, head_dim=head_dim, epsilon=b.h.norm_epsilon)
    return b.linear(b.gate(z, out.changed()), name + "ssm_out", b.h.embedding_length, add_to=x)
