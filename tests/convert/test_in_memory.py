"""Checkpoints that run without a file: what the engine sees of them is the file that `lcpu convert` would write."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from lcpu import LLM, LcpuError, open_model
from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.in_memory import open_converted
from lcpu.convert.plan import plan
from lcpu.convert.write import write_plan
from lcpu.engine.gguf_file import GGUFFile

from .checkpoints import VOCAB, llama_tensors, write_checkpoint, write_safetensors

TIED = {"lm_head__weight": None}


@pytest.mark.parametrize("type", ["auto", "q8_0", "q4_k_m", "Q4_K", "f16"])
def test_it_is_the_file_that_convert_writes(tmp_path, type):
    folder = write_checkpoint(tmp_path / "Tiny")
    with open_checkpoint(folder) as checkpoint:
        write_plan(plan(checkpoint, type.lower(), "Tiny"), tmp_path / "a.gguf")
    with GGUFFile.open(tmp_path / "a.gguf") as file, open_converted(folder, type, threads=1) as converted:
        assert list(converted.metadata) == list(file.metadata)
        for key, value in file.metadata.items():
            assert np.array_equal(converted.metadata[key], value)
            assert type_of(converted, key) == type_of(file, key)
        assert list(converted.tensors) == list(file.tensors)
        for name, info in file.tensors.items():
            found = converted.tensors[name]
            assert (found.shape, found.type_id, found.nbytes) == (info.shape, info.type_id, info.nbytes)
            assert np.array_equal(converted.data(name), file.data(name))


def type_of(file: GGUFFile, key: str) -> str:
    return file.metadata.fields[key].type_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("tied", [False, True])
def test_the_engine_computes_the_same(tmp_path, tied):
    """With a tied embedding, the tensor that is packed as the output layer is still read as the embedding."""
    tensors = llama_tensors(**(TIED if tied else {}))
    folder = write_checkpoint(tmp_path / "Tiny", tensors, tie_word_embeddings=tied)
    with open_checkpoint(folder) as checkpoint:
        write_plan(plan(checkpoint, "q4_0", "Tiny"), tmp_path / "a.gguf")
    tokens = [1, 5, 77, 123, 42, 250]
    with LLM.load(tmp_path / "a.gguf", threads=1) as llm:
        wanted = llm.logits(tokens)
    with LLM.load(folder, type="q4_0", threads=1) as llm:
        assert llm.description.endswith("Q4_0")
        gc.collect()
        assert np.array_equal(llm.logits(tokens), wanted)


def test_its_own_type_is_the_default(tmp_path):
    with LLM.load(str(write_checkpoint(tmp_path / "Tiny")), threads=1) as llm:
        assert llm.description == "llama 111K F32"


def test_a_draft_model(tmp_path):
    folder = write_checkpoint(tmp_path / "Tiny")
    with LLM.load(folder, threads=2) as llm, LLM.load(folder, type="q8_0", beside=llm) as small:
        text = "".join(llm.generate("Once", max_tokens=5, temperature=0))
        assert "".join(llm.generate("Once", max_tokens=5, temperature=0, draft=small)) == text


def test_tensors_are_not_kept(tmp_path):
    shapes = {f"{name}__weight": (VOCAB, 2048) for name in ("model__embed_tokens", "lm_head")}
    shapes |= {"model__norm__weight": (2048,)}
    for block in range(2):
        name = f"model__layers__{block}__"
        shapes |= {f"{name}self_attn__{part}_proj__weight": (2048, 2048) for part in "qkvo"}
        shapes |= {f"{name}mlp__{part}_proj__weight": shape
                   for part, shape in (("gate", (96, 2048)), ("up", (96, 2048)), ("down", (2048, 96)))}
        shapes |= {f"{name}{norm}__weight": (2048,) for norm in ("input_layernorm", "post_attention_layernorm")}
    folder = write_checkpoint(tmp_path / "Wide", llama_tensors(**shapes), hidden_size=2048, num_attention_heads=16,
                              num_key_value_heads=16)
    with open_converted(folder, "f16", threads=1) as converted:
        converted.data("output.weight")  # compiles
        tracemalloc.start()
        for name in converted.tensors:
            held = converted.data(name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(converted.tensors) == 21
        assert peak < 3 * 2 * 2048 * 2048, "two tensors, and pieces of them"
        assert converted.data(name) is held, "what is in use is not made again"


def test_prompt_caches_know_the_model(tmp_path):
    cache = tmp_path / "prompt.cache"
    folder = write_checkpoint(tmp_path / "Tiny")
    ids = [1, *range(5, 40)]
    with LLM.load(folder, type="q8_0", threads=1) as llm:
        llm.logits(ids)
        assert llm.save_prompt(cache, ids) == len(ids)
    with LLM.load(folder, type="q8_0", threads=1) as llm:
        assert llm.restore_prompt(cache) == ids
    with LLM.load(folder, type="q4_0", threads=1) as llm, pytest.raises(LcpuError, match="of another model"):
        llm.restore_prompt(cache)
    tensors = llama_tensors()
    tensors["model.layers.1.mlp.down_proj.weight"][0, 3] += 1
    write_safetensors(folder / "model.safetensors", tensors)
    with LLM.load(folder, type="q8_0", threads=1) as llm, pytest.raises(LcpuError, match="of another model"):
        llm.restore_prompt(cache)


def test_what_is_refused(tmp_path, tiny_gguf):
    folder = write_checkpoint(tmp_path / "Tiny")
    with pytest.raises(LcpuError, match="no type 'q9': choose one of auto, f32, f16, bf16, q8_0"):
        LLM.load(folder, type="q9")
    with pytest.raises(LcpuError, match=r"tiny\.gguf: is a GGUF file, whose types are settled, and type 'q4_0' is for"):
        LLM.load(tiny_gguf, type="q4_0")
    (folder / "a.gguf").write_bytes(b"GGUF")
    open_model(folder).close()
    (folder / "model.safetensors").rename(folder / "weights")
    with pytest.raises(LcpuError, match="Tiny: is a folder: name the GGUF file in it"):
        open_model(folder)
    (folder / "a.gguf").unlink()
    with pytest.raises(LcpuError, match="Tiny: has no weights"):
        open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(LcpuError, match="Tiny: is a folder: name the GGUF file in it"):
        open_model(folder)
