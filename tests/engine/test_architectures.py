"""Every architecture but plain llama against NumPy, float64, and ternary weights with the arithmetic of BitNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

from . import ternary
from .test_reference import angles, float16

WriteLlama = Callable[..., Path]
TOKENS = np.random.default_rng(3).integers(3, 286, 60).tolist()


@dataclass(frozen=True)
class Options:
    """What an architecture does otherwise than llama."""

    halves: bool = True  # what rotates: value i of the first half of a head with i of the second, or neighbours
    biases: bool = False  # of queries, keys and values
    head_norms: bool = False  # of queries and keys
    sub_norms: bool = False  # before the output and down projections
    squared_relu: bool = False  # instead of SiLU
    is_scaled: bool = False  # embeddings, by the square root of their length
    gelu: bool = False  # instead of SiLU
    post_norms: bool = False  # of both halves of a layer, before they are added
    windows: bool = False  # on layers with an even number
    local_base: bool = False  # of rotations, where there is a window
    caps: bool = False  # of attention's scores and of logits
    tied: bool = False  # whether the embedding is the output layer even where there is another one
    int8_scale: str = "row"  # what shares the scale of int8 activations: "row" or "block"; "": they are not rounded


OPTIONS = {
    "llama": Options(halves=False),
    "qwen2": Options(biases=True),
    "qwen3": Options(head_norms=True),
    "gemma": Options(is_scaled=True, gelu=True),
    "gemma2": Options(is_scaled=True, gelu=True, post_norms=True, windows=True, caps=True),
    "gemma3": Options(is_scaled=True, gelu=True, post_norms=True, windows=True, head_norms=True, local_base=True),
    "bitnet": Options(sub_norms=True, tied=True),
    "bitnet-25": Options(sub_norms=True, squared_relu=True, tied=True),
    "bitnet-b1.58": Options(sub_norms=True, squared_relu=True, tied=True),
}

# Metadata with which their options matter in 60 tokens.
EXTRAS: dict[str, dict[str, Any]] = {
    "gemma2": {"llama.attention.sliding_window": 9, "llama.attn_logit_softcapping": 2.0,
               "llama.final_logit_softcapping": 1.5},
    "gemma3": {"llama.attention.sliding_window": 9, "llama.attention.sliding_window_pattern": 2,
               "llama.rope.freq_base_swa": 50.0, "llama.attention.scale": 0.4},
}

Weight = np.ndarray | tuple[np.ndarray, float]  # float64, or of I2_S the signs and their scale


@lru_cache(1)
def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata without the architecture's prefix, and weights."""
    with GGUFFile.open(path) as file:
        prefix = f"{file.metadata['general.architecture']}."
        return {key.removeprefix(prefix): value for key, value in file.metadata.items()}, {
            name: ternary.decode(file.data(name), info.shape) if info.type_name == "I2_S" else
            file.data(name).view(np.float32).reshape(info.shape).astype(np.float64)
            for name, info in file.tensors.items()}


def norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * weight


def multiply(x: np.ndarray, weight: Weight, shared: str) -> np.ndarray:
    """x [tokens][k] . weight^T; if the weights are ternary, x is rounded to 127 steps for what shares a scale."""
    if isinstance(weight, np.ndarray):
        return x @ weight.T
    if shared:
        pieces = x.astype(np.float32).reshape(len(x), -1, {"row": x.shape[1], "block": 32}[shared])
        steps = np.float32(127) / np.maximum(abs(pieces).max(axis=2, keepdims=True), np.float32(1e-5))
        x = (np.clip(np.rint(pieces * steps), -128, 127) / steps.astype(np.float64)).reshape(x.shape)
    signs, scale = weight
    return x @ signs.T * scale


def rotate(x: np.ndarray, turns: np.ndarray, halves: bool) -> np.ndarray:
    """x [tokens][heads][head size] by the angles [tokens][pairs]; what has no angle stays."""
    pairs = turns.shape[1]
    first = np.arange(pairs) if halves else 2 * np.arange(pairs)
    second = first + (pairs if halves else 1)
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * turns[:, None])
    x = x.copy()
    x[..., first], x[..., second] = turned.real, turned.imag
    return x


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float = 0, window: int = 0, cap: float = 0
           ) -> np.ndarray:
    """[tokens][heads][head size] -> [tokens][heads * head size]; in float16, what attention keeps in it."""
    count, heads, head_dim = q.shape
    scale = scale or head_dim**-0.5
    q, k, v = (float16(np.repeat(each, heads // each.shape[1], axis=1)) for each in (q, k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * scale
    scores = cap * np.tanh(scores / cap) if cap else scores
    scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
    scores[:, np.tril(np.ones((count, count), bool), -(window or count))] = -np.inf
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights = float16(weights / weights.sum(axis=2, keepdims=True))
    return np.einsum("hqk,khd->qhd", weights, v).reshape(count, -1)


def reference(path: Path, tokens: list[int], options: Options) -> np.ndarray:
    """The logits after each token, float64 [len(tokens)][vocab]."""
    m, w = read(path)
    head_dim, epsilon = m["attention.key_length"], m["attention.layer_norm_rms_epsilon"]
    local = m | {"rope.freq_base": m.get("rope.freq_base_swa", 1e4), "rope.scaling.type": "none"}
    all_turns = [np.array([angles(keys, position, 1.0)[0] for position in range(len(tokens))]) for keys in (m, local)]
    cap, logit_cap = (m[f"{name}_logit_softcapping"] if options.caps else 0.0 for name in ("attn", "final"))
    scale = m.get("attention.scale", head_dim**-0.5)
    x = w["token_embd.weight"][tokens] * (m["embedding_length"] ** 0.5 if options.is_scaled else 1.0)
    for layer in range(m["block_count"]):
        window = m["attention.sliding_window"] if options.windows and layer % 2 == 0 else 0
        turns = all_turns[options.local_base and layer % 2 == 0]

        def normed(x: np.ndarray, name: str, wanted: bool = True, layer: int = layer) -> np.ndarray:
            return norm(x, w[f"blk.{layer}.{name}.weight"], epsilon) if wanted else x

        def linear(x: np.ndarray, name: str, layer: int = layer) -> np.ndarray:
            return multiply(x, w[f"blk.{layer}.{name}.weight"], options.int8_scale)

        source = normed(x, "attn_norm")
        q, k, v = ((linear(source, name) + (w[f"blk.{layer}.{name}.bias"] if options.biases else 0.0))
                   .reshape(len(tokens), -1, head_dim) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = (rotate(normed(each, name, options.head_norms), turns, options.halves)
                for each, name in ((q, "attn_q_norm"), (k, "attn_k_norm")))
        attended = normed(attend(q, k, v, scale, window, cap), "attn_sub_norm", options.sub_norms)
        x = x + normed(linear(attended, "attn_output"), "post_attention_norm", options.post_norms)
        source = normed(x, "ffn_norm")
        gate = linear(source, "ffn_gate")
        active = np.maximum(gate, 0) ** 2 if options.squared_relu else gate / (1 + np.exp(-gate))
        if options.gelu:
            active = gate / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
        hidden = normed(active * linear(source, "ffn_up"), "ffn_sub_norm", options.sub_norms)
        x = x + normed(linear(hidden, "ffn_down"), "post_ffw_norm", options.post_norms)
    output = "token_embd.weight" if options.tied or "output.weight" not in w else "output.weight"
    logits = multiply(norm(x, w["output_norm.weight"], epsilon), w[output], options.int8_scale)
    return logit_cap * np.tanh(logits / logit_cap) if logit_cap else logits


SHAPES: dict[str, dict[str, Any]] = {
    "as llama": {},
    "heads wider than the embedding": {"heads": 5, "kv_heads": 5, "head_dim": 26},
    "heads of more than a vector": {"embedding": 40, "heads": 6, "head_dim": 40},
    "a part of each head rotates": {"head_dim": 24, "llama.rope.dimension_count": 10},
    "rows that fill no panel": {"embedding": 45, "feed_forward": 71, "heads": 3, "kv_heads": 3, "head_dim": 10,
                                "vocab": 299},
    "tied embeddings": {"tensors": {"output.weight": None}},
    "another epsilon": {"llama.attention.layer_norm_rms_epsilon": 0.5},
    "scaling": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 3.0},
}
OTHERS = [architecture for architecture in OPTIONS if architecture != "llama"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("architecture", OTHERS)
def test_float(write_llama: WriteLlama, architecture: str, shape: dict[str, Any]) -> None:
    path = write_llama(architecture=architecture, **EXTRAS.get(architecture, {}) | shape)
    expected = reference(path, TOKENS, OPTIONS[architecture])
    assert expected.std() > 0.2
    with LLM.load(path, threads=2) as llm:
        assert np.abs(llm.logits(TOKENS) - expected).max() < 0.005


def flips(architecture: str) -> dict[str, Options]:
    """The options of an architecture with one of them the other way, as far as its tensors serve."""
    options = OPTIONS[architecture]
    always = ("halves", "tied") if options.gelu else ("halves", "squared_relu", "tied")
    names = [name for name, value in vars(options).items() if value is True or name in always]
    return {name: replace(options, **{name: not getattr(options, name)}) for name in names}


@pytest.mark.parametrize(("architecture", "name"), [(a, name) for a in OTHERS for name in flips(a)])
def test_each_option_matters(write_llama: WriteLlama, architecture: str, name: str) -> None:
    """Else the test above could not tell whether the engine heeds it."""
    path = write_llama(architecture=architecture, **EXTRAS.get(architecture, {}))
    expected = reference(path, TOKENS, OPTIONS[architecture])
    assert np.abs(reference(path, TOKENS, flips(architecture)[name]) - expected).max() > 0.1


TERNARY = {"token_embd.weight": "f32", "output.weight": "f32", "": "i2_s"}
TERNARY_SHAPE = {"embedding": 128, "feed_forward": 256, "heads": 16, "kv_heads": 1, "head_dim": 8}
TERNARY_ARCHITECTURES = ("llama", "bitnet", "bitnet-b1.58")
SEQUENCES = np.random.default_rng(5).integers(3, 286, (40, 4)).tolist()


@pytest.mark.parametrize("architecture", TERNARY_ARCHITECTURES)
def test_ternary(write_llama: WriteLlama, architecture: str) -> None:
    """Equal but where an activation is so near to a tie that the last bit of a float32 sum decides how it is rounded.

    That happens in one text of ten and moves its logits by up to 0.03: so there are many texts, and most must be equal.
    Any other arithmetic is off in all of them, as the last test shows.
    """
    path = write_llama(TERNARY, architecture=architecture, **TERNARY_SHAPE)
    with LLM.load(path, threads=2) as llm:
        expected = [reference(path, tokens, OPTIONS[architecture]) for tokens in SEQUENCES]
        off = [np.abs(llm.logits(tokens) - logits).max() for tokens, logits in zip(SEQUENCES, expected, strict=True)]
    assert np.std(expected) > 0.2
    assert np.mean(np.array(off) < 1e-3) > 0.5
    assert max(off) < 0.1


def variants(architecture: str) -> dict[str, Options]:
    """The options of an architecture with one of them another way, among them the rounding of activations."""
    options = OPTIONS[architecture]
    return flips(architecture) | {f"scale of a {shared}" if shared else "no int8": replace(options, int8_scale=shared)
                                  for shared in ("block", "")}


@pytest.mark.parametrize(("architecture", "name"), [(a, name) for a in TERNARY_ARCHITECTURES for name in variants(a)])
def test_each_option_matters_to_ternary_weights(write_llama: WriteLlama, architecture: str, name: str) -> None:
    path = write_llama(TERNARY, architecture=architecture, **TERNARY_SHAPE)
    for tokens in SEQUENCES[:8]:
        expected, other = (reference(path, tokens, o) for o in (OPTIONS[architecture], variants(architecture)[name]))
        assert np.abs(other - expected).max() > 0.01


def test_activation_of_the_metadata(write_llama: WriteLlama) -> None:
    """`bitnet` with squared ReLU, where the file says so."""
    path = write_llama(architecture="bitnet", **{"llama.hidden_activation": "relu2"})
    expected = reference(path, TOKENS, replace(OPTIONS["bitnet"], squared_relu=True))
    with LLM.load(path, threads=1) as llm:
        assert np.abs(llm.logits(TOKENS) - expected).max() < 0.005


def test_what_is_not_computed_is_refused(write_llama: WriteLlama) -> None:
    path = write_llama("i2_s", architecture="bitnet", **TERNARY_SHAPE)
    with pytest.raises(LcpuError, match=r"tensor 'token_embd.weight' is I2_S, which is for matrices"):
        LLM.load(path)
    path = write_llama(architecture="bitnet", tensors={"blk.1.ffn_down.scale": np.ones(1, np.float32)})
    with pytest.raises(LcpuError, match=r"tensor 'blk.1.ffn_down.scale' multiplies a matrix of type F32, which"):
        LLM.load(path)
