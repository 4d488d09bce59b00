"""What the engine makes of a converted model, and how much memory conversion takes."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.quantize import quantize
from lcpu.convert.type_rules import MIXTURES, Overrides, choose_types
from lcpu.convert.write import write_plan
from lcpu.engine.gguf_file import GGUFFile

from .checkpoints import QKV_BIASES, VOCAB, llama_tensors, write_checkpoint
from .reference import LLAMA3, llama3_factor, reference_logits


@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
@pytest.mark.parametrize(
    ("changes", "config", "factor"),
    [
        ({}, {}, lambda frequency: 1),
        (QKV_BIASES, {}, lambda frequency: 1),
        ({"lm_head__weight": None}, {"tie_word_embeddings": True, "rope_scaling": LLAMA3}, llama3_factor),
        ({}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, lambda frequency: 2),
    ],
)
def test_the_engine_computes_what_the_model_means(convert, tmp_path, tokenizer, changes, config, factor):
    tensors = llama_tensors(**changes)
    convert(tensors, tokenizer=tokenizer, **config).close()
    tokens = [1, 5, 77, 123, 42, 250, 7, 9, 280, 33] * 6
    with LLM.load(tmp_path / "a.gguf", threads=1) as llm:
        logits = llm.logits(tokens)
        assert "".join(llm.generate("Once", max_tokens=4, temperature=0)) is not None
    wanted = reference_logits(tensors, tokens, factor)
    assert np.abs(logits - wanted).max() < 2e-3 * np.abs(wanted).max()
    assert np.array_equal(logits.argmax(-1), wanted.argmax(-1))


@pytest.mark.parametrize("type", ["q8_0", "q4_k_m", "q4_0", "bf16"])
def test_one_step_is_as_good_as_two(tmp_path, type):
    """To a type at once, or to F32 and from there with `lcpu quantize`."""
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny")) as checkpoint:
        write_plan(plan(checkpoint, type, "Tiny"), tmp_path / "at-once.gguf")
        write_plan(plan(checkpoint, "f32", "Tiny"), tmp_path / "f32.gguf")
    with GGUFFile.open(tmp_path / "f32.gguf") as file:
        types, _ = choose_types(file.tensors.values(), file.metadata, MIXTURES[type], Overrides())
        quantize(file, tmp_path / "in-two.gguf", types, MIXTURES[type].file_type)
    assert (tmp_path / "at-once.gguf").read_bytes() == (tmp_path / "in-two.gguf").read_bytes()


def test_holds_one_tensor_at_a_time(tmp_path):
    shapes = {"model.embed_tokens.weight": (VOCAB, 2048), "model.norm.weight": (2048,), "lm_head.weight": (VOCAB, 2048)}
    for block in range(4):
        name = f"model.layers.{block}."
        shapes |= {f"{name}self_attn.{part}_proj.weight": (2048, 2048) for part in "qkvo"}
        shapes |= {f"{name}mlp.{part}_proj.weight": (2048, 2048) for part in ("gate", "up", "down")}
        shapes |= {f"{name}{norm}.weight": (2048,) for norm in ("input_layernorm", "post_attention_layernorm")}
    tensors = {name: np.zeros(shape, np.uint16) for name, shape in shapes.items()}
    folder = write_checkpoint(tmp_path / "wide", tensors, hidden_size=2048, intermediate_size=2048,
                              num_attention_heads=8, num_key_value_heads=8, num_hidden_layers=4)
    largest = 4 * 2048 * 2048
    with open_checkpoint(folder) as checkpoint:
        planned = plan(checkpoint, "f32", "wide")
        tracemalloc.start()
        try:
            write_plan(planned, tmp_path / "a.gguf")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert planned.nbytes > 20 * largest
    assert peak < 4 * largest


def test_progress_counts_bytes(tmp_path):
    with open_checkpoint(write_checkpoint(tmp_path / "Tiny")) as checkpoint:
        planned = plan(checkpoint, "auto", "Tiny")
        calls: list[tuple[str, int, int]] = []
        write_plan(planned, tmp_path / "a.gguf", progress=lambda *call: calls.append(call))
    calls = [call for call in calls if call[0] != "compiling"]
    assert {(stage, total) for stage, _, total in calls} == {("converting", planned.nbytes)}
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert done[-1] == planned.nbytes


def test_a_checkpoint_that_is_only_described(tmp_path):
    """As for a dry run against the hub: the plan is the same, without the weights."""
    folder = write_checkpoint(tmp_path / "Tiny")
    with open_checkpoint(folder) as checkpoint:
        whole = plan(checkpoint, "auto", "Tiny")
        described = {name: type(tensor)(name, tensor.shape, tensor.dtype, None, 0)
                     for name, tensor in checkpoint.tensors.items()}
    (folder / "model.safetensors").unlink()
    with open_checkpoint(folder, described) as checkpoint:
        planned = plan(checkpoint, "auto", "Tiny")
    assert [(each.name, each.values.shape, each.type_id) for each in planned.tensors] == [
        (each.name, each.values.shape, each.type_id) for each in whole.tensors
    ]
    assert json.dumps(dict(planned.metadata), default=np.ndarray.tolist) == json.dumps(
        dict(whole.metadata), default=np.ndarray.tolist
    )
