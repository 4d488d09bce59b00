"""A plain NumPy forward pass of the embedded GGUF files, read with the `gguf` package: the check of what was exported.

python -m lcpu.models.reference models/stories.gguf --prompt "Once upon a time"
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

Array = np.ndarray


@dataclass(frozen=True)
class Reference:
    """A model in memory: metadata values by key without the architecture's prefix, float32 tensors by name."""

    architecture: str
    metadata: dict[str, object]
    tensors: dict[str, Array]

    def number(self, key: str) -> float:
        return float(self.metadata[key])  # type: ignore[arg-type]


def read(path: Path) -> Reference:
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = str(metadata["general.architecture"])
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}
    return Reference(architecture, {key.removeprefix(architecture + "."): v for key, v in metadata.items()}, tensors)


def tokenizer_of(model: Reference) -> sentencepiece.SentencePieceProcessor:
    """The SentencePiece model that the file's tokens, scores and types describe."""
    proto = sentencepiece_model_pb2.ModelProto()
    parts = (model.metadata[f"tokenizer.ggml.{part}"] for part in ("tokens", "scores", "token_type"))
    for token, score, kind in zip(*parts, strict=True):  # type: ignore[call-overload]
        proto.pieces.add(piece=token, score=float(score), type=int(kind))
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def int8_rounded(x: Array) -> Array:
    """x [tokens, k], each row rounded to 127 steps of its largest magnitude."""
    scale = 127 / np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5)
    return np.clip(np.rint(x * scale), -128, 127) / scale


def rope(x: Array, base: float, halves: bool) -> Array:
    """Rotates x [tokens, heads, head_dim] by position: pairs (i, i + d/2) if `halves` (NEOX), else (2i, 2i + 1)."""
    tokens, _, dim = x.shape
    angle = np.arange(tokens)[:, None, None] * base ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = (slice(0, dim // 2), slice(dim // 2, dim)) if halves else (slice(0, dim, 2), slice(1, dim, 2))
    out = np.empty_like(x)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def attention(q: Array, k: Array, v: Array) -> Array:
    """Causal attention, q [tokens, heads, head_dim], k and v [tokens, kv heads, head_dim] -> [tokens, heads * dim]."""
    tokens, heads, dim = q.shape
    k, v = (np.repeat(y, heads // y.shape[1], axis=1) for y in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim)
    scores[:, np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", scores, v).reshape(tokens, heads * dim)


def logits(model: Reference, ids: list[int]) -> Array:
    """float32 [tokens, vocab]."""
    ternary = model.architecture == "bitnet-b1.58"
    eps, base = model.number("attention.layer_norm_rms_epsilon"), model.number("rope.freq_base")
    head_dim = int(model.number("rope.dimension_count"))
    weights = model.tensors
    x = weights["token_embd.weight"][ids]
    for layer in range(int(model.number("block_count"))):

        def norm(name: str, y: Array, layer: int = layer) -> Array:
            return rms_norm(y, weights[f"blk.{layer}.{name}.weight"], eps)

        def matmul(name: str, y: Array, layer: int = layer) -> Array:
            return (int8_rounded(y) if ternary else y) @ weights[f"blk.{layer}.{name}.weight"].T

        h = norm("attn_norm", x)
        q, k, v = (matmul(name, h).reshape(len(ids), -1, head_dim) for name in ("attn_q", "attn_k", "attn_v"))
        y = attention(rope(q, base, ternary), rope(k, base, ternary), v)
        x = x + matmul("attn_output", norm("attn_sub_norm", y) if ternary else y)
        h = norm("ffn_norm", x)
        gate, up = matmul("ffn_gate", h), matmul("ffn_up", h)
        h = norm("ffn_sub_norm", np.maximum(gate, 0) ** 2 * up) if ternary else gate / (1 + np.exp(-gate)) * up
        x = x + matmul("ffn_down", h)
    return rms_norm(x, weights["output_norm.weight"], eps) @ weights["token_embd.weight"].T


def generate(model: Reference, prompt: str, temperature: float = 0.0, seed: int = 0, limit: int = 400) -> list[int]:
    """The prompt's ids and what follows them, up to and with the end-of-text token or `limit` tokens in all."""
    tokenizer, rng = tokenizer_of(model), np.random.default_rng(seed)
    ids = [tokenizer.bos_id(), *tokenizer.encode(prompt)]
    while len(ids) < limit and ids[-1] != tokenizer.eos_id():
        last = logits(model, ids)[-1]
        if temperature:
            ids.append(int(np.argmax(last / temperature + rng.gumbel(size=last.shape))))
        else:
            ids.append(int(np.argmax(last)))
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = read(args.model)
    ids = generate(model, args.prompt, args.temperature, args.seed)
    print(tokenizer_of(model).decode(ids), "" if ids[-1] == 2 else "[no end of text]")


if __name__ == "__main__":
    main()
