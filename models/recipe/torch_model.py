"""The two architectures that are trained here, in PyTorch: `llama` and its ternary sibling `bitnet-b1.58`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 10000.0
NORM_EPS = 1e-5
CONTEXT = 512


@dataclass(frozen=True)
class Shape:
    """The sizes of one model. The output layer is always tied to the token embedding."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    ff: int
    vocab: int
    context: int = CONTEXT
    ternary: bool = False

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def ternary_weight(weight: Tensor) -> Tensor:
    """BitNet b1.58's absmean quantizer: scale * {-1, 0, 1}, one scale for the tensor, rounded to a float16 value."""
    scale = weight.abs().mean().clamp(min=1e-5).half().float()
    return (weight / scale).round().clamp(-1, 1) * scale


def int8_activation(x: Tensor) -> Tensor:
    """BitNet's activation quantizer: 127 steps of the largest magnitude of each token."""
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


class TernaryLinear(nn.Linear):
    """A linear layer that computes with quantized values and passes gradients straight through the rounding."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + (int8_activation(x) - x).detach()
        weight = self.weight + (ternary_weight(self.weight) - self.weight).detach()
        return F.linear(x, weight)


def rope_table(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [context, head_dim / 2]."""
    frequency = ROPE_BASE ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
    angle = torch.arange(shape.context, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, table: tuple[Tensor, Tensor], halves: bool) -> Tensor:
    """Rotary positions for x [..., tokens, head_dim]: pairs (i, i + d/2) if `halves` (NEOX), else (2i, 2i + 1)."""
    cos, sin = (t[: x.shape[-2]] for t in table)
    if halves:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Block(nn.Module):
    """One layer. Attributes are named like the tensors of a GGUF file."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        linear = TernaryLinear if shape.ternary else nn.Linear
        kv_dim = shape.kv_heads * shape.head_dim
        self.attn_norm = nn.RMSNorm(shape.dim, eps=NORM_EPS)
        self.attn_q = linear(shape.dim, shape.dim, bias=False)
        self.attn_k = linear(shape.dim, kv_dim, bias=False)
        self.attn_v = linear(shape.dim, kv_dim, bias=False)
        self.attn_output = linear(shape.dim, shape.dim, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.dim, eps=NORM_EPS)
        self.ffn_gate = linear(shape.dim, shape.ff, bias=False)
        self.ffn_up = linear(shape.dim, shape.ff, bias=False)
        self.ffn_down = linear(shape.ff, shape.dim, bias=False)
        if shape.ternary:
            self.attn_sub_norm = nn.RMSNorm(shape.dim, eps=NORM_EPS)
            self.ffn_sub_norm = nn.RMSNorm(shape.ff, eps=NORM_EPS)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention(self.attn_norm(x), table)
        return x + self.feed_forward(self.ffn_norm(x))

    def attention(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        shape, (batch, tokens, _) = self.shape, x.shape

        def heads(y: Tensor) -> Tensor:
            return y.view(batch, tokens, -1, shape.head_dim).transpose(1, 2)

        q = rotate(heads(self.attn_q(x)), table, shape.ternary)
        k = rotate(heads(self.attn_k(x)), table, shape.ternary)
        v = heads(self.attn_v(x))
        k, v = (y.repeat_interleave(shape.heads // shape.kv_heads, dim=1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, tokens, shape.dim)
        return self.attn_output(self.attn_sub_norm(y) if shape.ternary else y)

    def feed_forward(self, x: Tensor) -> Tensor:
        gate, up = self.ffn_gate(x), self.ffn_up(x)
        if self.shape.ternary:
            return self.ffn_down(self.ffn_sub_norm(F.relu(gate).square() * up))
        return self.ffn_down(F.silu(gate) * up)


class Model(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, tokens, vocab]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.dim)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.dim, eps=NORM_EPS)
        self.table = rope_table(shape)
        self.initialize()

    def initialize(self) -> None:
        """Normal noise, with smaller steps into the residual stream."""
        nn.init.normal_(self.token_embd.weight, std=0.02)
        for block in self.blk:
            for name, weight in block.named_parameters():
                if weight.ndim == 2:
                    nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
                if name in ("attn_output.weight", "ffn_down.weight"):
                    weight.data /= (2 * self.shape.layers) ** 0.5

    @torch.no_grad()
    def start_as_student(self, teacher: Model) -> None:
        """Takes the principal directions of the teacher's embedding.

        Every head begins by writing back what it reads (output = value transposed), from which copying is soon learned.
        """
        shape, embedding = self.shape, teacher.token_embd.weight
        directions = torch.linalg.svd(embedding, full_matrices=False).Vh[: shape.dim]
        self.token_embd.weight.copy_(embedding @ directions.T)
        for block in self.blk:
            value = block.attn_v.weight.view(shape.kv_heads, shape.head_dim, shape.dim)
            value = value.repeat_interleave(shape.heads // shape.kv_heads, dim=0).reshape(shape.dim, shape.dim)
            block.attn_output.weight.copy_(0.5 * value.T)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, self.table)
        return F.linear(self.output_norm(x), self.token_embd.weight)
