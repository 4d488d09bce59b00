"""Hyperparameters: what the keys mean, llama.cpp's defaults, and every refusal."""

from pathlib import Path

import numpy as np
import pytest

from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_metadata import Value
from lcpu.engine.hyperparameters import Hyperparameters, RopeScaling, read
from lcpu.kernels.errors import LcpuError

GOOD: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.context_length": 2048,
    "llama.embedding_length": 2048,
    "llama.block_count": 22,
    "llama.feed_forward_length": 5632,
    "llama.attention.head_count": 32,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["a"] * 100,
}


def read_with(**changes: Value | None) -> Hyperparameters:
    """The good metadata with `changes`, whose names have no prefix and `__` for a dot; None removes a key."""
    metadata = dict(GOOD)
    for name, value in changes.items():
        key = "llama." + name.replace("__", ".")
        metadata.pop(key, None)
        if value is not None:
            metadata[key] = value
    return read(metadata, "m.gguf")


def test_defaults() -> None:
    assert read_with() == Hyperparameters(
        architecture="llama",
        context_length=2048,
        embedding_length=2048,
        block_count=22,
        feed_forward_length=5632,
        head_count=32,
        head_count_kv=32,
        head_dim=64,
        rope_dimension_count=64,
        rope_freq_base=10000.0,
        rope_scaling=RopeScaling("none", 1.0, 2048, 1.0, 1.0, 32.0, 1.0),
        norm_epsilon=1e-5,
        vocab_size=100,
    )


def test_all_keys() -> None:
    shape = read_with(
        attention__head_count_kv=4,
        attention__key_length=128,
        attention__value_length=128,
        rope__dimension_count=32,
        rope__freq_base=5e5,
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=512,
        rope__scaling__attn_factor=0.5,
        rope__scaling__yarn_ext_factor=0.25,
        rope__scaling__yarn_beta_fast=16.0,
        rope__scaling__yarn_beta_slow=2.0,
        vocab_size=32000,
        expert_count=0,
    )
    assert (shape.head_count_kv, shape.head_dim, shape.rope_dimension_count) == (4, 128, 32)
    assert (shape.rope_freq_base, shape.vocab_size) == (5e5, 32000)
    assert shape.rope_scaling == RopeScaling("yarn", 4.0, 512, 0.5, 0.25, 16.0, 2.0)


def test_keys_have_the_prefix_of_the_architecture() -> None:
    metadata = {key.replace("llama.", "qwen2."): value for key, value in GOOD.items()} | {
        "general.architecture": "qwen2"
    }
    assert read(metadata).architecture == "qwen2"
    with pytest.raises(LcpuError, match=r"^model: key 'qwen2.context_length' is missing"):
        read({**GOOD, "general.architecture": "qwen2"})


def of(architecture: str, **changes: object) -> Hyperparameters:
    return read({key.replace("llama.", f"{architecture}."): value for key, value in GOOD.items()}
                | {"general.architecture": architecture}
                | {f"{architecture}.{key.replace('__', '.')}": value for key, value in changes.items()})


def test_experts() -> None:
    shape = read_with(expert_count=8, expert_used_count=2, feed_forward_length=96)
    assert (shape.expert_count, shape.expert_used_count, shape.expert_feed_forward_length) == (8, 2, 96)
    with pytest.raises(LcpuError, match=r"qwen3\.expert_count' is 8: mixture-of-experts models of this architecture"):
        of("qwen3", expert_count=8, expert_used_count=2)
    with pytest.raises(LcpuError, match=r"qwen3moe\.expert_count' is missing"):
        of("qwen3moe")


def test_widths_of_experts() -> None:
    counts = {"expert_count": 8, "expert_used_count": 2, "feed_forward_length": 96}
    for architecture, width in (("olmoe", 96), ("qwen2moe", 48), ("qwen3moe", 48)):
        shape = of(architecture, **counts)
        assert (shape.expert_feed_forward_length, shape.expert_shared_feed_forward_length) == (width, 96)
    shape = of("qwen2moe", **counts, expert_feed_forward_length=40, expert_shared_feed_forward_length=56)
    assert (shape.expert_feed_forward_length, shape.expert_shared_feed_forward_length) == (40, 56)
    alone = {key: value for key, value in GOOD.items() if key != "llama.feed_forward_length"}
    metadata = {**alone, "llama.expert_count": 4, "llama.expert_used_count": 1, "llama.expert_feed_forward_length": 40}
    assert read(metadata).feed_forward_length == 40


def test_where_yarn_begins_and_ends() -> None:
    """At whole pairs, but not with gpt-oss; a key of lcpu's own says otherwise."""
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__factor": 32.0}
    experts = {"expert_count": 8, "expert_used_count": 2}
    assert of("llama", **yarn).rope_scaling.yarn_truncate
    assert not of("llama", **yarn, rope__scaling__yarn_truncate=False).rope_scaling.yarn_truncate
    assert not of("gpt-oss", **yarn, **experts).rope_scaling.yarn_truncate
    assert of("gpt-oss", **yarn, **experts, rope__scaling__yarn_truncate=True).rope_scaling.yarn_truncate
    with pytest.raises(LcpuError, match=r"yarn_truncate' is 1, not true or false: damaged"):
        of("llama", **yarn, rope__scaling__yarn_truncate=1)


def test_one_value_per_layer() -> None:
    shape = read_with(attention__head_count_kv=np.full(22, 8, np.int32), feed_forward_length=np.full(22, 64, np.uint32))
    assert (shape.head_count_kv, shape.feed_forward_length) == (8, 64)


@pytest.mark.parametrize(
    ("changes", "kind", "factor"),
    [
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 2.0}, "linear", 2.0),
        ({"rope__scaling__factor": 2.0}, "linear", 2.0),
        ({"rope__scale_linear": 4.0}, "linear", 4.0),
        ({"rope__scale_linear": 4.0, "rope__scaling__factor": 2.0}, "linear", 2.0),
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 1.0}, "none", 1.0),
        ({"rope__scaling__factor": 0.0}, "none", 1.0),
        ({"rope__scaling__type": "none", "rope__scaling__factor": 2.0}, "none", 1.0),
        ({"rope__scaling__type": "yarn", "rope__scaling__factor": 8}, "yarn", 8.0),
    ],
)
def test_rope_scaling(changes: dict[str, Value], kind: str, factor: float) -> None:
    scaling = read_with(**changes).rope_scaling
    assert (scaling.type, scaling.factor) == (kind, factor)


REQUIRED = sorted(key for key in GOOD if key.startswith("llama."))


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key(key: str) -> None:
    with pytest.raises(LcpuError, match=f"^m.gguf: key '{key}' is missing"):
        read({name: value for name, value in GOOD.items() if name != key}, "m.gguf")


@pytest.mark.parametrize("architecture", [None, 7, "", "a\nb", "x" * 1000])
def test_no_architecture(architecture: Value | None) -> None:
    metadata = {**GOOD, "general.architecture": architecture}
    with pytest.raises(LcpuError, match=r"key 'general\.architecture' is missing or not a name"):
        read({key: value for key, value in metadata.items() if value is not None})


COUNTS = ["context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"]
COUNTS += ["attention.head_count", "attention.head_count_kv", "attention.key_length", "rope.dimension_count"]
REALS = ["attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor", "rope.scale_linear"]
REALS += ["rope.scaling.attn_factor"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    "value", ["8", 8.0, True, ["8"], np.array([8.0]), np.zeros(0, np.int32), 0, -8, 2**40, 2**64 - 1]
)
def test_bad_count(name: str, value: Value) -> None:
    with pytest.raises(LcpuError, match=f"^m.gguf: key 'llama.{name}' is ") as caught:
        read_with(**{name.replace(".", "__"): value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REALS)
@pytest.mark.parametrize("value", ["1", True, np.ones(1), -1.0, float("nan"), float("inf"), 1e30])
def test_bad_real(name: str, value: Value) -> None:
    with pytest.raises(LcpuError, match=f"^m.gguf: key 'llama.{name}' is ") as caught:
        read_with(**{name.replace(".", "__"): value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention__head_count_kv": np.array([8] * 21 + [4])}, "head_count_kv' differs between layers"),
        ({"attention__head_count_kv": 5}, "head_count_kv' is 5, which does not divide the 32 heads"),
        ({"attention__head_count_kv": 64}, "head_count_kv' is 64, which does not divide the 32 heads"),
        ({"attention__head_count": 30}, "head_count' is 30, which does not divide the embedding length 2048"),
        ({"attention__key_length": 64, "attention__value_length": 32}, "value_length' is 32 but keys have 64"),
        ({"attention__value_length": 32}, "value_length' is 32 but keys have 64"),
        ({"attention__key_length": 6}, "heads have 6 values; lcpu supports even numbers from 8 to 512"),
        ({"attention__key_length": 514}, "heads have 514 values"),
        ({"attention__key_length": 63}, "heads have 63 values"),
        ({"embedding_length": 32}, "heads have 1 values"),
        ({"embedding_length": 16}, "head_count' is 32, which does not divide the embedding length 16"),
        ({"rope__dimension_count": 63}, "rope.dimension_count' is 63, not an even number of at most the head size 64"),
        ({"rope__dimension_count": 66}, "rope.dimension_count' is 66, not an even number of at most the head size 64"),
        ({"rope__freq_base": 0.0}, "rope.freq_base' is 0.0, not 2 to"),
        ({"rope__scaling__factor": 1e-30}, "rope.scaling.factor' is 1e-30, not 0 or 0.001 to"),
        (
            {"rope__scaling__type": "ntk"},
            "rope.scaling.type' is str 'ntk': lcpu supports none, linear, yarn and longrope",
        ),
        ({"rope__scaling__type": 1}, "rope.scaling.type' is 1: lcpu supports"),
        ({"rope__scaling__yarn_beta_fast": 0.0}, "yarn_beta_fast' is 0.0, not"),
        ({"rope__scaling__yarn_beta_slow": -1.0}, "yarn_beta_slow' is -1.0, not"),
        ({"rope__scaling__yarn_ext_factor": 2.0}, "yarn_ext_factor' is 2.0, not"),
        ({"rope__scaling__original_context_length": 0}, "original_context_length' is 0, not"),
        ({"expert_count": 8}, "expert_used_count' is missing"),
        ({"expert_count": 8, "expert_used_count": 9}, "expert_used_count' is 9, but there are 8 experts: damaged"),
        ({"expert_count": -8, "expert_used_count": 2}, "expert_count' is -8, not 1 to 4096: damaged"),
        ({"expert_count": np.array([8, 7]), "expert_used_count": 2}, "expert_count' differs between layers"),
    ],
)
def test_unsound(changes: dict[str, Value], message: str) -> None:
    with pytest.raises(LcpuError, match=message) as caught:
        read_with(**changes)
    assert str(caught.value).startswith("m.gguf: ")
    assert "\n" not in str(caught.value)


def test_no_vocabulary() -> None:
    metadata = {key: value for key, value in GOOD.items() if key != "tokenizer.ggml.tokens"}
    with pytest.raises(LcpuError, match="vocab_size' is missing and so are the tokens"):
        read(metadata)
    assert read({**metadata, "llama.vocab_size": 50}).vocab_size == 50


def test_from_a_file(tiny_gguf: Path) -> None:
    with GGUFFile.open(tiny_gguf) as file:
        shape = read(file.metadata, tiny_gguf)
        assert shape.vocab_size == len(file.metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
    assert (shape.embedding_length, shape.head_count, shape.head_count_kv, shape.head_dim) == (32, 4, 2, 8)


def test_real_models(shared: Path) -> None:
    with GGUFFile.open(shared / "models/bitnet-tiny-i2_s.gguf") as file:
        shape = read(file.metadata)
    assert (shape.architecture, shape.block_count, shape.embedding_length) == ("bitnet-b1.58", 3, 256)
    assert (shape.head_count, shape.head_count_kv, shape.head_dim, shape.vocab_size) == (4, 2, 64, 32002)
