"""What conversion must come to, worked out one value at a time, and a Llama as transformers computes it."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np

from lcpu.engine.gguf_file import GGUFFile

from .checkpoints import BLOCKS, HEAD, HEADS, KV_HEADS

GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm", "mlp.ffn_sub_norm": "ffn_sub_norm",
    "self_attn.inner_attn_ln": "attn_sub_norm", "mlp.ffn_layernorm": "ffn_sub_norm",
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


def llama3_factor(frequency: float) -> float:
    """As Llama 3.1 defines it."""
    wavelength = 2 * np.pi / frequency
    if wavelength < 64 / 4:
        return 1
    if wavelength > 64 / 1:
        return 8
    smooth = (64 / wavelength - 1) / (4 - 1)
    return 1 / ((1 - smooth) / 8 + smooth)


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor of a checkpoint, by a table of our own."""
    simple = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
              "lm_head.weight": "output.weight"}
    if name in simple:
        return simple[name]
    block, module = name.removeprefix("model.layers.").split(".", 1)
    module, kind = module.rsplit(".", 1)
    return f"blk.{block}.{GGUF_NAMES[module]}.{kind}"


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows i and i + half of every head become neighbours."""
    out = np.empty_like(weights)
    size = len(weights) // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = weights[head * size + i]
            out[head * size + 2 * i + 1] = weights[head * size + size // 2 + i]
    return out


def values_of(file: GGUFFile, name: str) -> np.ndarray:
    info = file.tensors[name]
    return gguf.quants.dequantize(file.data(name).copy(), gguf.GGMLQuantizationType(info.type_id)).reshape(info.shape)


def check_tensors(file: GGUFFile, tensors: dict[str, np.ndarray], *, interleave: bool) -> None:
    """The file has these tensors, and no others but rope_freqs."""
    wanted = {gguf_name(name): array for name, array in tensors.items()}
    assert file.tensors.keys() - {"rope_freqs.weight"} == wanted.keys()
    for name, array in wanted.items():
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
        array = interleaved(array, heads) if heads and interleave else array
        assert file.tensors[name].type_name == "F32", name
        assert np.array_equal(values_of(file, name), array), name


def unpacked_reference(packed: np.ndarray) -> np.ndarray:
    """Values of a packed tensor, one by one."""
    quarter, k = packed.shape
    out = np.zeros((4 * quarter, k), np.float32)
    for row in range(quarter):
        for column in range(k):
            for crumb in range(4):
                out[crumb * quarter + row, column] = (int(packed[row, column]) >> 2 * crumb) % 4 - 1
    return out


def pack(ternary: np.ndarray) -> np.ndarray:
    codes = (ternary + 1).astype(np.uint8).reshape(4, -1, ternary.shape[1])
    return codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6


def i2_s_reference(ternary: np.ndarray, scale: np.float32) -> bytes:
    """A tensor in I2_S, weight by weight."""
    out = np.zeros(ternary.size // 4 + 32, np.uint8)
    for index, value in enumerate(ternary.ravel()):
        group, j = divmod(index, 128)
        out[32 * group + j % 32] |= int(value + 1) << (6 - 2 * (j // 32))
    out[ternary.size // 4 :][:4] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
    return out.tobytes()


def reference_logits(tensors: dict[str, np.ndarray], tokens: list[int], factor: Callable[[float], float]) -> np.ndarray:
    """A Llama as transformers computes it, in float64: halves of heads rotate."""
    w = {name: array.astype(np.float64) for name, array in tensors.items()}
    frequencies = [f / factor(f) for f in 10000.0 ** (-np.arange(0, HEAD, 2) / HEAD)]
    angles = np.outer(np.arange(len(tokens)), frequencies)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def gated(x: np.ndarray, parts: list[str]) -> np.ndarray:
        gate = linear(x, parts[0])
        return linear(gate / (1 + np.exp(-gate)) * linear(x, parts[1]), parts[2])

    def rotated(x: np.ndarray) -> np.ndarray:
        first, second = np.split(x, 2, -1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    x = w["model.embed_tokens.weight"][tokens]
    mask = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for block in range(BLOCKS):
        name = f"model.layers.{block}."
        normed = norm(x, f"{name}input_layernorm")
        q, k, v = (linear(normed, f"{name}self_attn.{part}_proj").reshape(len(tokens), -1, HEAD) for part in "qkv")
        q, k = rotated(q), rotated(k)
        k, v = (np.repeat(each, HEADS // KV_HEADS, axis=1) for each in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / HEAD**0.5 + mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        x = x + linear(np.einsum("hqk,khd->qhd", shares, v).reshape(len(tokens), -1), f"{name}self_attn.o_proj")
        normed = norm(x, f"{name}post_attention_layernorm")
        if f"{name}mlp.gate_proj.weight" in w:
            x = x + gated(normed, [f"{name}mlp.{part}_proj" for part in ("gate", "up", "down")])
            continue
        scores = linear(normed, f"{name}block_sparse_moe.gate")  # Mixtral: the two best experts of each token
        for token, row in enumerate(scores):
            best = np.argsort(-row)[:2]
            shares = np.exp(row[best]) / np.exp(row[best]).sum()
            for expert, share in zip(best, shares, strict=True):
                parts = [f"{name}block_sparse_moe.experts.{expert}.w{part}" for part in (1, 3, 2)]
                x[token] += share * gated(normed[token], parts)
    return norm(x, "model.norm") @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
