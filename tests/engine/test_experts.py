"""Mixtures of experts: whole models against NumPy, float64, and the same bits for every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite
from lcpu.engine import architectures
from lcpu.engine.architectures import llama
from lcpu.engine.batch import Piece
from lcpu.engine.builder import Builder
from lcpu.engine.experts import Scoring, add_experts
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.llm import LLM
from lcpu.engine.model import Model
from lcpu.engine.rows import Rows
from lcpu.kernels.errors import LcpuError

from .conftest import tensor_of
from .test_architectures import attend, norm, rotate
from .test_identity import run, same
from .test_reference import angles, read_f32

WriteLlama = Callable[..., Path]
Seen = dict[tuple[str, int], list[np.ndarray]]  # by the beginning of a tensor's name, and expert
TOKENS = np.random.default_rng(3).integers(3, 286, 400).tolist()
LAYERS = 2
MIXTRAL = {"llama.expert_count": 6, "llama.expert_used_count": 2}


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts, and how a file has its tensors."""

    count: int = 6
    used: int = 2
    scoring: Scoring = "softmax"
    renormalize: bool = False
    factor: float = 1.0
    selection_bias: bool = False
    biases: bool = False  # of the router and the experts
    relu: bool = False  # squared, instead of SiLU
    fused: bool = False  # gate and up in one tensor
    apart: bool = False  # a tensor for each expert
    embedding: int = 32
    width: int = 64  # of an expert
    kinds: dict[str, str] = field(default_factory=dict)  # formats, by part: "gate", "up", "down"

    def shape(self, part: str) -> tuple[int, int, int]:
        rows = {"gate": self.width, "up": self.width, "gate_up": 2 * self.width, "down": self.embedding}[part]
        return self.count, rows, self.width if part == "down" else self.embedding

    def tensors(self) -> dict[str, TensorToWrite | None]:
        """What a llama's feed-forward becomes."""
        random = np.random.default_rng(11)
        made: dict[str, TensorToWrite | None] = {}

        def add(name: str, shape: tuple[int, ...], kind: str = "f32", size: float = 1.0) -> None:
            values = random.standard_normal(shape, np.float32) * np.float32(size / shape[-1] ** 0.5)
            made[name] = tensor_of(name, values, kind)

        for layer in range(LAYERS):
            name = f"blk.{layer}.ffn_"
            made |= {f"{name}{part}.weight": None for part in ("gate", "up", "down")}
            add(f"{name}gate_inp.weight", (self.count, self.embedding), size=3)
            for part in ("gate_up", "down") if self.fused else ("gate", "up", "down"):
                kind, shape = self.kinds.get(part, "f32"), self.shape(part)
                for expert in range(self.count if self.apart else 0):
                    add(f"{name}{part}.{expert}.weight", shape[1:], kind)
                if not self.apart:
                    add(f"{name}{part}_exps.weight", shape, kind)
                if self.biases:
                    add(f"{name}{part}_exps.bias", shape[:2], size=3)
            if self.biases:
                add(f"{name}gate_inp.bias", (self.count,), size=3)
            if self.selection_bias:
                add(f"blk.{layer}.exp_probs_b.bias", (self.count,), size=1)
        return made

    @property
    def metadata(self) -> dict[str, Any]:
        return {"llama.expert_count": self.count, "llama.expert_used_count": self.used,
                "llama.expert_feed_forward_length": self.width}

    def build(self, b: Builder) -> Rows:
        """A llama's attention, and this as its feed-forward."""
        x = b.embed("token_embd.weight")
        for layer in range(LAYERS):
            name = f"blk.{layer}."
            q, k, v = llama.projections(b, b.rms_norm(x, name + "attn_norm.weight"), name)
            attended = b.attention(b.rope(q, b.h.head_count), b.rope(k, b.h.head_count_kv), v, name)
            x = b.linear(attended, name + "attn_output", b.h.embedding_length, add_to=x)
            x = add_experts(b, x, b.rms_norm(x, name + "ffn_norm.weight"), name, scoring=self.scoring,
                            renormalize=self.renormalize, factor=self.factor,
                            activation="relu_squared" if self.relu else "silu")
        return llama.logits(b, x)

    def feed_forward(self, w: dict[str, np.ndarray], name: str, x: np.ndarray, seen: Seen | None = None
                     ) -> tuple[np.ndarray, float]:
        """What is added to a token's row, and how far the rank of the last one chosen is ahead of the others'."""
        def tensor(part: str, kind: str, expert: int) -> np.ndarray:
            if f"{name}ffn_{part}.{expert}.{kind}" in w:
                return w[f"{name}ffn_{part}.{expert}.{kind}"]
            if self.fused and part != "down":
                return np.split(w[f"{name}ffn_gate_up_exps.{kind}"][expert], 2)[("gate", "up").index(part)]
            return w[f"{name}ffn_{part}_exps.{kind}"][expert]

        def linear(part: str, expert: int, x: np.ndarray) -> np.ndarray:
            if seen is not None:
                seen.setdefault((f"{name}ffn_{part}", expert), []).append(x)
            return tensor(part, "weight", expert) @ x + (tensor(part, "bias", expert) if self.biases else 0.0)

        scores = w[f"{name}ffn_gate_inp.weight"] @ x + w.get(f"{name}ffn_gate_inp.bias", 0.0)
        powers = np.exp(scores - scores.max())
        values = {"softmax": powers / powers.sum(), "sigmoid": 1 / (1 + np.exp(-scores)), "softmax of chosen": scores}
        ranks = values[self.scoring] + w.get(f"{name}exp_probs_b.bias", 0.0)
        order = np.argsort(-ranks)
        chosen = order[: self.used]
        weights = values[self.scoring][chosen]
        if self.scoring == "softmax of chosen":
            weights = np.exp(weights) / np.exp(weights).sum()
        weights = weights / (weights.sum() if self.renormalize else 1) * self.factor
        out = np.zeros(self.embedding)
        for expert, weight in zip(chosen, weights, strict=True):
            gate = linear("gate", expert, x)
            active = np.maximum(gate, 0) ** 2 if self.relu else gate / (1 + np.exp(-gate))
            out += weight * linear("down", expert, active * linear("up", expert, x))
        return out, min(ranks[chosen]) - ranks[order[self.used :]].max(initial=-np.inf)

    def reference(self, path: Path, tokens: list[int], seen: Seen | None = None) -> np.ndarray:
        """The logits after each token, float64 [len(tokens)][vocab]. seen: gets what went to each expert."""
        m, w = read_f32(path)
        head_dim, epsilon = m["attention.key_length"], m["attention.layer_norm_rms_epsilon"]
        turns = np.array([angles(m, position, 1.0)[0] for position in range(len(tokens))])
        x = w["token_embd.weight"][tokens]
        for layer in range(LAYERS):
            name = f"blk.{layer}."
            source = norm(x, w[name + "attn_norm.weight"], epsilon)
            q, k, v = ((source @ w[f"{name}attn_{part}.weight"].T).reshape(len(tokens), -1, head_dim)
                       for part in "qkv")
            x = x + attend(rotate(q, turns, False), rotate(k, turns, False), v) @ w[name + "attn_output.weight"].T
            rows, clear = zip(*(self.feed_forward(w, name, row, seen)
                                for row in norm(x, w[name + "ffn_norm.weight"], epsilon)), strict=True)
            assert min(clear) > 1e-5  # else float32 might choose others
            x = x + np.array(rows)
        return norm(x, w["output_norm.weight"], epsilon) @ w["output.weight"].T


MIXTURES = {
    "softmax": Mixture(),
    "renormalized": Mixture(renormalize=True, factor=1.7),
    "sigmoid with a selection bias": Mixture(scoring="sigmoid", selection_bias=True, renormalize=True, factor=2.5),
    "softmax of those chosen": Mixture(scoring="softmax of chosen", biases=True),
    "another activation": Mixture(relu=True),
    "fused": Mixture(fused=True, renormalize=True),
    "fused with biases": Mixture(fused=True, biases=True),
    "tensors of their own": Mixture(apart=True),
    "all experts": Mixture(count=3, used=3, selection_bias=True),
    "one expert": Mixture(count=1, used=1),
    "many experts": Mixture(count=100, used=9, renormalize=True),
    "rows that fill no panel": Mixture(embedding=45, width=71, biases=True),
}


@pytest.fixture
def write(write_llama: WriteLlama, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mixture], Path]:
    """write(mixture) -> path of a model which is then the only llama that the engine knows."""

    def make(mixture: Mixture) -> Path:
        monkeypatch.setitem(architectures.ARCHITECTURES, "llama", mixture.build)
        return write_llama(embedding=mixture.embedding, tensors=mixture.tensors(), context=512, **mixture.metadata)

    return make


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES.keys())
def test_logits(write: Callable[[Mixture], Path], mixture: Mixture) -> None:
    path = write(mixture)
    expected = mixture.reference(path, TOKENS[:60])
    assert expected.std() > 0.2
    with LLM.load(path, threads=2) as llm:
        assert np.abs(llm.logits(TOKENS[:60]) - expected).max() < 0.005


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "one more": ("softmax", {"used": 3}),
    "not renormalized": ("renormalized", {"renormalize": False}),
    "no factor": ("renormalized", {"factor": 1.0}),
    "another scoring": ("sigmoid with a selection bias", {"scoring": "softmax"}),
    "biases left out": ("fused with biases", {"biases": False}),
    "all weighed": ("softmax of those chosen", {"scoring": "softmax"}),
}


@pytest.mark.parametrize(("name", "changes"), CHANGES.values(), ids=CHANGES.keys())
def test_each_option_matters(write: Callable[[Mixture], Path], name: str, changes: dict[str, Any]) -> None:
    """Else the test above could not tell whether the engine heeds it."""
    path = write(MIXTURES[name])
    expected = MIXTURES[name].reference(path, TOKENS[:20])
    assert np.abs(replace(MIXTURES[name], **changes).reference(path, TOKENS[:20]) - expected).max() > 0.05


IDENTITIES = {
    "f32": Mixture(count=16, used=3, biases=True, scoring="softmax of chosen", embedding=45, width=71),
    "f16 and bf16": Mixture(count=5, used=2, embedding=44, width=72,
                            kinds={"gate": "f16", "up": "bf16", "down": "f16"}),
    "blocks": Mixture(count=16, used=4, width=96, kinds={"gate": "q4_0", "up": "q8_0", "down": "q4_0"}),
    "fused superblocks": Mixture(count=4, used=1, fused=True, embedding=256, width=256,
                                 kinds={"gate_up": "q6_k", "down": "q8_0"}),
    "levels": Mixture(count=8, used=3, embedding=128, width=64,
                      kinds={"gate": "mxfp4", "up": "iq4_nl", "down": "nvfp4"}),
    "ternary": Mixture(count=7, used=2, fused=True, embedding=128, width=128,
                       kinds={"gate_up": "i2_s", "down": "i2_s"}),
    "ternary in tensors of their own": Mixture(count=3, used=2, apart=True, embedding=128, width=128,
                                               kinds={"gate": "i2_s", "up": "q4_0", "down": "i2_s"}),
}


@pytest.fixture(params=IDENTITIES)
def model(request: pytest.FixtureRequest, write: Callable[[Mixture], Path]) -> Iterator[Callable[..., Model]]:
    """model(threads, ...) -> a Model, closed after the test."""
    path, made = write(IDENTITIES[request.param]), []

    def make(threads: int = 2, **options: Any) -> Model:
        made.append(Model(GGUFFile.open(path), 512, threads, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_same_bits_for_every_split_and_every_number_of_threads(model: Callable[..., Model]) -> None:
    whole = run(model(1), TOKENS, [400], range(4))
    assert np.isfinite(whole).all()
    assert np.ptp(whole) > 1
    for threads in (1, 2, 3):
        other = model(threads)
        for sizes in ([1] * 40, [2, 3, 5, 8, 17], [399, 1], [150, 250]):
            assert same(run(other, TOKENS, sizes, range(4)), whole[: sum(sizes)]), (threads, sizes)


def test_same_bits_beside_other_sequences(model: Callable[..., Model]) -> None:
    whole = run(model(), TOKENS, [20], range(4))
    together = model(cache_tokens=512)
    logits = together.step([Piece(TOKENS[50 + 30 * i : 80 + 30 * i], 0, [i]) for i in range(3)]
                           + [Piece(TOKENS[:20], 0, [3], 20)])
    assert same(logits, whole)


def test_only_the_chosen_experts_matter(write_llama: WriteLlama) -> None:
    """A token's logits are the same where the weights of all other experts are not numbers."""
    mixture = Mixture(count=16, used=3, renormalize=True)
    tensors = mixture.tensors()
    seen: Seen = {}
    path = write_llama(tensors=tensors, **mixture.metadata)
    mixture.reference(path, TOKENS[:1], seen)
    broken = dict(tensors)
    for name, tensor in tensors.items():
        if tensor and "_exps" in name:
            values = np.full(tensor.shape, np.nan, np.float32)
            chosen = [expert for part, expert in seen if name.startswith(f"{part}_exps")]
            assert len(chosen) == 3
            values[chosen] = np.asarray(tensor.data).view(np.float32).reshape(tensor.shape)[chosen]
            broken[name] = tensor_of(name, values, "f32")
    with LLM.load(path, threads=2) as llm, LLM.load(write_llama(tensors=broken, **mixture.metadata)) as other:
        assert same(llm.logits(TOKENS[:1]), other.logits(TOKENS[:1]))
        assert not np.isfinite(other.logits(TOKENS[:20])[-1]).all()


def test_fused_and_stacked_and_apart_are_the_same(write_llama: WriteLlama, write: Callable[[Mixture], Path]) -> None:
    """One model in three layouts, with experts of quantized blocks."""
    kinds = {"gate": "q8_0", "up": "q8_0", "down": "q8_0", "gate_up": "q8_0"}
    stacked = Mixture(kinds=kinds)
    arrays = {name: tensor for name, tensor in stacked.tensors().items() if tensor and "_exps" in name}
    values = {name: np.asarray(tensor.data).reshape(6, tensor.shape[1], -1) for name, tensor in arrays.items()}
    apart: dict[str, TensorToWrite | None] = dict.fromkeys(values)
    fused: dict[str, TensorToWrite | None] = {name: None for name in values if "down" not in name}
    for name, data in values.items():
        for expert in range(6):
            own = name.replace("_exps", f".{expert}")
            apart[own] = TensorToWrite(own, arrays[name].shape[1:], 8, data[expert])
    for layer in range(LAYERS):
        gate, up = (values[f"blk.{layer}.ffn_{part}_exps.weight"] for part in ("gate", "up"))
        name = f"blk.{layer}.ffn_gate_up_exps.weight"
        fused[name] = TensorToWrite(name, (6, 128, 32), 8, np.concatenate((gate, up), axis=1))
    results = []
    write(stacked)
    for changes in ({}, apart, fused):
        with LLM.load(write_llama(tensors=stacked.tensors() | changes, **stacked.metadata), threads=2) as llm:
            results.append(llm.logits(TOKENS[:40]))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("apart", [False, True])
def test_mixtral(write_llama: WriteLlama, apart: bool) -> None:
    mixture = Mixture(renormalize=True, apart=apart)
    path = write_llama(tensors=mixture.tensors(), **MIXTRAL)
    expected = mixture.reference(path, TOKENS[:60])
    with LLM.load(path, threads=2) as llm:
        assert np.abs(llm.logits(TOKENS[:60]) - expected).max() < 0.005


WRONG: dict[str, tuple[Mixture, dict[str, Any], str]] = {
    "a tensor is missing": (Mixture(), {"blk.1.ffn_up_exps.weight": None},
                            "tensor 'blk.1.ffn_up_exps.weight' is missing"),
    "too few experts": (Mixture(), {"blk.0.ffn_down_exps.weight": np.ones((5, 32, 64), np.float32)},
                        "'blk.0.ffn_down_exps.weight' has the shape 5 x 32 x 64, but the hyperparameters say "
                        "6 x 32 x 64"),
    "too few tensors": (Mixture(apart=True), {"blk.0.ffn_up.5.weight": None},
                        "tensor 'blk.0.ffn_up.5.weight' is missing"),
    "types differ": (Mixture(apart=True), {"blk.0.ffn_up.4.weight": TensorToWrite("blk.0.ffn_up.4.weight", (64, 32), 1,
                                                                                  np.ones((64, 32), np.float16))},
                     "'blk.0.ffn_up.4.weight' is F16, but 'blk.0.ffn_up.0.weight' is F32: all experts must have one "),
    "a scale": (Mixture(), {"blk.1.ffn_up_exps.scale": np.ones(6, np.float32)},
                "tensor 'blk.1.ffn_up_exps.scale' multiplies a matrix of type F32, which lcpu does not do"),
}


@pytest.mark.parametrize(("mixture", "changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_refused(write_llama: WriteLlama, mixture: Mixture, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LcpuError, match=message):
        LLM.load(write_llama(tensors=mixture.tensors() | changes, **MIXTRAL))
