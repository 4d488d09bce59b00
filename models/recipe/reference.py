"""A plain NumPy forward pass of the embedded GGUF files, read with the `gguf` package: the check of what was exported.

python -m lcpu.models.recipe.reference models/stories.gguf --prompt "Once upon a time"
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from ...engine.tokenizer import Tokenizer, load
from .stories_text import stories

Array = np.ndarray


@dataclass(frozen=True)
class Reference:
    """A model in memory: metadata values by key without the architecture's prefix, float32 tensors by name."""

    architecture: str
    tokenizer: Tokenizer
    metadata: dict[str, object]
    tensors: dict[str, Array]

    def number(self, key: str) -> float:
        return float(self.metadata[key])  # type: ignore[arg-type]


def read(path: Path) -> Reference:
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = str(metadata["general.architecture"])
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}
    metadata = {key.removeprefix(architecture + "."): value for key, value in metadata.items()}
    return Reference(architecture, load(path), metadata, tensors)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def int8_rounded(x: Array) -> Array:
    """x [tokens, k], each row rounded to 127 steps of its largest magnitude."""
    scale = 127 / np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5)
    return np.clip(np.rint(x * scale), -128, 127) / scale


def rope(x: Array, start: int, base: float, halves: bool) -> Array:
    """Rotates x [tokens, heads, head_dim], whose first position is `start`, by position.

    The pairs are (i, i + d/2) if `halves` (NEOX), else (2i, 2i + 1).
    """
    tokens, _, dim = x.shape
    angle = np.arange(start, start + tokens)[:, None, None] * base ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = (slice(0, dim // 2), slice(dim // 2, dim)) if halves else (slice(0, dim, 2), slice(1, dim, 2))
    out = np.empty_like(x)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def attention(q: Array, k: Array, v: Array) -> Array:
    """Causal attention of the last positions, q [tokens, heads, head_dim], k and v [positions, kv heads, head_dim].

    Gives [tokens, heads * head_dim].
    """
    tokens, heads, dim = q.shape
    k, v = (np.repeat(y, heads // y.shape[1], axis=1) for y in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim)
    scores[:, np.triu(np.ones((tokens, len(k)), bool), 1 + len(k) - tokens)] = -np.inf
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", scores, v).reshape(tokens, heads * dim)


def logits(model: Reference, ids: list[int], cache: dict[int, tuple[Array, Array]] | None = None) -> Array:
    """float32 [tokens, vocab] of `ids`, which follow the tokens in `cache` and are added to it."""
    cache = {} if cache is None else cache
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
        start = len(cache[layer][0]) if layer in cache else 0
        q, k = (rope(y, start, base, ternary) for y in (q, k))
        if start:
            k, v = (np.concatenate(pair) for pair in zip(cache[layer], (k, v), strict=True))
        cache[layer] = k, v
        y = attention(q, k, v)
        x = x + matmul("attn_output", norm("attn_sub_norm", y) if ternary else y)
        h = norm("ffn_norm", x)
        gate, up = matmul("ffn_gate", h), matmul("ffn_up", h)
        h = norm("ffn_sub_norm", np.maximum(gate, 0) ** 2 * up) if ternary else gate / (1 + np.exp(-gate)) * up
        x = x + matmul("ffn_down", h)
    return rms_norm(x, weights["output_norm.weight"], eps) @ weights["token_embd.weight"].T


def generate(model: Reference, prompt: str, temperature: float = 0.0, seed: int = 0, limit: int = 400) -> list[int]:
    """The prompt's ids and what follows them, up to and with the end-of-text token or `limit` tokens in all."""
    rng = np.random.default_rng(seed)
    ids = model.tokenizer.encode(prompt)
    cache: dict[int, tuple[Array, Array]] = {}
    last = logits(model, ids, cache)[-1]
    while len(ids) < limit and ids[-1] != model.tokenizer.eos_id:
        if temperature:
            ids.append(int(np.argmax(last / temperature + rng.gumbel(size=last.shape))))
        else:
            ids.append(int(np.argmax(last)))
        last = logits(model, ids[-1:], cache)[-1]
    return ids


def agreement(model: Reference, draft: Reference, prompts: list[str]) -> float:
    """The share of the tokens of the model's greedy texts that the draft, given the same text so far, chooses too."""
    same: list[Array] = []
    for prompt in prompts:
        start = len(model.tokenizer.encode(prompt))
        ids = generate(model, prompt)
        same.append(logits(draft, ids[:-1]).argmax(axis=-1)[start - 1 :] == ids[start:])
    return float(np.concatenate(same).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--draft", type=Path, help="measure how often this model agrees, on the starts of new stories")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = read(args.model)
    if args.draft:
        prompts = [" ".join(text.split()[:8]) for text in stories(20, seed=11)]
        print(f"{agreement(model, read(args.draft), prompts):.1%} of the greedy tokens agree")
        return
    ids = generate(model, args.prompt, args.temperature, args.seed)
    print(model.tokenizer.decode(ids), "[end of text]" if ids[-1] == model.tokenizer.eos_id else "[cut]")


if __name__ == "__main__":
    main()
