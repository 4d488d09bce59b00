"""Random models: shapes of real ones, blocks of sane values, in no more memory than they need."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.engine import random_model
from lcpu.engine.batch import Piece
from lcpu.engine.description import describe
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.engine.memory import Room
from lcpu.engine.model import Model
from lcpu.engine.random_model import SCALES, SHAPES, RandomModel, Shape, random_blocks
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.formats import FORMATS

SMALL = Shape(layers=2, embedding=512, feed_forward=768, heads=8, kv_heads=2, vocab=1000, context=64, rope_base=1e4)
PARAMETERS = {  # in millions, as the models' own papers and cards say
    "smollm2-135m": 134.5, "tinyllama-1.1b": 1100, "llama3.2-1b": 1236, "llama3.2-3b": 3213, "llama2-7b": 6738,
    "llama3-8b": 8030, "llama3-70b": 70554,
    "gemma3-1b": 999.9, "gemma3-4b": 3880, "phi4-mini": 3836,
    # Counted from the shapes themselves, without what sees: no card says it.
    "qwen35-0.8b": 752.4, "qwen35-4b": 4205.8,
    # All of the embedding and of the output layer, and an eighth of the rest.
    "qwen3-30b-a3b-eighth": (30532 - 622) / 8 + 622, "gpt-oss-20b-eighth": (20915 - 1158) / 8 + 1158,
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "small", SMALL)
    monkeypatch.setitem(SHAPES, "small-tied", Shape(**{**vars(SMALL), "tied": True}))
    monkeypatch.setitem(SHAPES, "small-phi3", Shape(**{**vars(SMALL), "architecture": "phi3",
                                                       "keys": (("rope.dimension_count", 48),)}))


def test_every_shape_has_the_parameters_of_its_model():
    assert set(PARAMETERS) == set(SHAPES)
    for name, millions in PARAMETERS.items():
        tensors = random_model._tensors(SHAPES[name], "q4_0").values()
        assert sum(math.prod(info.shape) for info in tensors) / 1e6 == pytest.approx(millions, rel=2e-3), name


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.architecture != "llama"])
def test_other_architectures_load(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With fewer and smaller layers."""
    few = {"layers": 2, "embedding": 256, "feed_forward": 256, "vocab": 500}
    if not SHAPES[name].head_dim:
        few["heads"] = few["kv_heads"] = 256 // (SHAPES[name].embedding // SHAPES[name].heads)
    monkeypatch.setitem(SHAPES, "few", replace(SHAPES[name], **few))
    with RandomModel("few", "mxfp4") as file:
        model = Model(file, 64, 1)
        logits = model.step([Piece([5, 400, 7], 0, [0], outputs=3)])
        assert np.isfinite(logits).all()
        assert (logits.std(axis=1) > 0.1).all()
        model.close()


def test_experts_alone_are_mxfp4():
    types = {name: info.type_name for name, info in RandomModel("gpt-oss-20b-eighth", "mxfp4").tensors.items()}
    assert {name.split(".", 2)[-1] for name, kind in types.items() if kind == "MXFP4"} == {
        "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"}
    assert {types[name] for name in ("token_embd.weight", "output.weight", "blk.0.attn_q.weight")} == {"Q8_0"}
    assert types["blk.2.ffn_gate_inp.weight"] == types["blk.0.ffn_up_exps.bias"] == "F32"


def test_every_format_can_be_random():
    assert set(random_model.type_names()) == {format.name for format in FORMATS.values()}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("type_name", random_model.type_names())
@pytest.mark.parametrize("shape", ["small", "small-tied", "small-phi3"])
def test_logits_are_finite(shape: str, type_name: str) -> None:
    with RandomModel(shape, type_name) as file:
        model = Model(file, 64, 2)
        logits = model.step([Piece([5, 900, 7], 0, [0], outputs=3)])
        assert np.isfinite(logits).all()
        assert (logits.std(axis=1) > 0.1).all()
        assert (logits.std(axis=1) < 10).all()
        assert (logits[1:] != logits[:-1]).any(axis=1).all()
        model.close()


@pytest.mark.parametrize("name", [name for name in SCALES if name not in ("i2_s", "q1_0", "q2_0")])  # gguf cannot
def test_blocks_are_about_as_large_as_weights(name):
    """By the dequantizers of the gguf package: also of types that the engine may not have yet."""
    type_id = next(id for id, known in TENSOR_TYPES.items() if known.name.lower() == name)
    scale = 1 / (SCALES[name].spread * math.sqrt(4096))
    blocks = random_blocks(name, 2000, scale, np.random.default_rng(1))
    values = gguf.quants.dequantize(blocks.reshape(-1), gguf.GGMLQuantizationType(type_id))
    assert 0.7 < values.std() * math.sqrt(4096) < 1.3
    assert abs(values.mean()) < 0.5 / math.sqrt(4096)


def test_a_ternary_tensor_has_one_scale_at_its_end():
    shape = (8, 128)
    info = random_model.TensorInfo("x.weight", shape, 36, TENSOR_TYPES[36].nbytes(shape), 0, 0)
    model = RandomModel("smollm2-135m", "f32")
    model.tensors = {info.name: info}
    data = model.data(info.name)
    assert data.size == 8 * 128 // 4 + 32
    assert data[-32:-28].copy().view(np.float32)[0] == pytest.approx(1 / (1.1 * math.sqrt(128)), rel=1e-6)
    assert not data[-28:].any()


@pytest.mark.usefixtures("small")
def test_the_output_layer_is_as_llama_cpp_would_choose():
    def types(shape: str, type_name: str) -> dict[str, str]:
        return {name: info.type_name for name, info in RandomModel(shape, type_name).tensors.items()}

    plain = types("small", "q4_0")
    assert plain["token_embd.weight"] == plain["blk.1.ffn_down.weight"] == "Q4_0"
    assert plain["output.weight"] == "Q6_K"
    assert plain["blk.0.attn_norm.weight"] == plain["output_norm.weight"] == "F32"
    assert types("small", "q8_0")["output.weight"] == "Q8_0"
    assert types("small", "f16")["output.weight"] == "F16"
    tied = types("small-tied", "q4_0")
    assert tied["token_embd.weight"] == "Q6_K"
    assert "output.weight" not in tied
    narrow = types("smollm2-135m", "q6_k")  # rows of 576 values are no blocks of 256
    assert {narrow["blk.0.attn_q.weight"], narrow["token_embd.weight"]} == {"Q8_0"}
    assert narrow["blk.0.ffn_down.weight"] == "Q6_K"


@pytest.mark.usefixtures("small")
def test_tensors_are_made_when_asked_for():
    file = RandomModel("small", "q4_0")
    name = "blk.0.ffn_gate.weight"
    one, other = file.data(name), file.data(name)
    assert one.size == file.tensors[name].nbytes == 512 * 768 // 32 * 18
    assert not np.shares_memory(one, other)  # nobody keeps them
    assert np.array_equal(one, other)
    assert not np.array_equal(one, file.data("blk.0.ffn_up.weight"))
    rows = one.reshape(768, -1)
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert (file.data("output_norm.weight").view(np.float32) == 1).all()


@pytest.mark.usefixtures("small")
def test_described_like_a_file():
    file = RandomModel("small", "q4_0")
    assert file.path == Path("random-small-q4_0")
    assert describe(file) == "llama 4.7M Q4_0"
    assert describe(RandomModel("gemma3-1b", "q4_0")) == "gemma3 1B Q4_0"  # of 999.9 million


@pytest.mark.parametrize(("shape", "type_name", "message"), [
    ("llama9", "q4_0", r"no shape is named 'llama9': choose one of smollm2-135m, .*llama3-8b"),
    ("llama3-8b", "q4", r"no type is named 'q4': choose one of f32, .*q4_0"),
])
def test_unknown_names_list_the_known(shape, type_name, message):
    with pytest.raises(LcpuError, match=message):
        RandomModel(shape, type_name)


def test_a_model_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(random_model, "room", lambda: Room(3 << 30, grouped=True))
    RandomModel("tinyllama-1.1b", "q8_0")
    with pytest.raises(LcpuError) as caught:
        RandomModel("llama3-8b", "q4_0")
    assert str(caught.value) == (
        "random-llama3-8b-q4_0: needs 4.3 GiB of memory for its weights alone, but only 3.0 GiB are available (limit "
        "of the container or cgroup): take a smaller shape or type; --no-memory-check loads it anyway")
    RandomModel("llama3-8b", "q4_0", check_memory=False)
    monkeypatch.setattr(random_model, "room", lambda: None)  # a system that does not say
    RandomModel("llama3-70b", "f32")
