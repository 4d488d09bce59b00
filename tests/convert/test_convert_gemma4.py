"""Checkpoints of Gemma 4: their metadata, what is left out, their tokenizer, and what engines do not compute."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from lcpu import LLM
from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.plan import plan
from lcpu.engine.options import GenerationOptions
from lcpu.kernels.errors import LcpuError

from .checkpoints import EMBED, FFN, TEXT, VOCAB, write_checkpoint
from .gemma4_checkpoints import EXPERT_FFN, EXPERTS, GLOBAL_HEAD, HEAD, PER_LAYER
from .golden_cases import LENGTH, case, text
from .packed import gptq, packed_model
from .reference import values_of

SMALL, DENSE, MIXTURE = "gemma4", "gemma4-31b", "gemma4-26b-a4b"


def keys_of(file):
    """Of the architecture, arrays as lists."""
    return {key.removeprefix("gemma4."): np.asarray(value).tolist() for key, value in file.metadata.items()
            if key.startswith("gemma4.")}


def converted(convert, name, **changes):
    tensors, how = case(name)
    return convert(tensors, "f32", **(how | changes))


def test_metadata_of_a_small_model(convert):
    with converted(convert, SMALL) as file:
        keys = keys_of(file)
        assert np.allclose(values_of(file, "rope_freqs.weight"), [1] * 4 + [1e30] * 12)
        assert file.tensors["per_layer_token_embd.weight"].shape == (VOCAB, 5 * PER_LAYER)
        assert "blk.3.attn_k.weight" not in file.tensors
    assert [keys[f"attention.{name}"] for name in (
        "key_length", "value_length", "key_length_swa", "value_length_swa", "shared_kv_layers", "sliding_window")] == [
        GLOBAL_HEAD, GLOBAL_HEAD, HEAD, HEAD, 2, 20]
    assert keys["attention.sliding_window_pattern"] == [True, True, False, True, False]
    assert keys["feed_forward_length"] == [FFN] * 3 + [2 * FFN] * 2
    assert keys["attention.head_count_kv"] == 2
    assert keys["embedding_length_per_layer_input"] == PER_LAYER
    assert (keys["rope.dimension_count"], keys["rope.dimension_count_swa"]) == (GLOBAL_HEAD, HEAD)
    assert (keys["rope.freq_base"], keys["rope.freq_base_swa"]) == (30000, 500)
    assert keys["final_logit_softcapping"] == 4


def test_metadata_of_a_mixture(convert):
    with converted(convert, MIXTURE) as file:
        keys = keys_of(file)
        assert file.tensors["blk.0.ffn_gate_up_exps.weight"].shape == (EXPERTS, 2 * EXPERT_FFN, EMBED)
        assert "blk.0.attn_v.weight" in file.tensors
        assert "blk.1.attn_v.weight" not in file.tensors
        router = values_of(file, "blk.1.ffn_gate_inp.scale"), values_of(file, "blk.1.ffn_down_exps.scale")
    assert [keys[f"expert_{name}"] for name in ("count", "used_count", "feed_forward_length")] == [
        EXPERTS, 2, EXPERT_FFN]
    assert keys["attention.head_count_kv"] == [2, 1]
    assert keys["embedding_length_per_layer_input"] == 0
    tensors, _ = case(MIXTURE)
    for found, name in zip(router, ("scale", "per_expert_scale"), strict=True):
        assert np.array_equal(found, tensors[f"model.layers.1.router.{name}"])


def test_the_newer_form_of_sizes(convert):
    """With what each layer has of its own, as transformers writes it."""
    with converted(convert, DENSE) as file:
        wanted = keys_of(file)
    own = {"2": {"head_dim": GLOBAL_HEAD, "num_key_value_heads": 1}}
    with converted(convert, DENSE, per_layer_config=own, global_head_dim=None,
                   num_global_key_value_heads=None) as file:
        assert keys_of(file) == wanted


def test_the_language_model_of_one_that_sees_and_hears(convert, tmp_path):
    """Real checkpoints have keys and values of layers that read those of others."""
    tensors, how = case(SMALL)
    with convert(tensors, "f32", **how) as file:
        wanted, keys = {name: values_of(file, name) for name in file.tensors}, keys_of(file)
    inner = {name: value for name, value in how.items() if name != "architectures"}
    seen = {name.replace("model.", "model.language_model.", 1): array for name, array in tensors.items()}
    seen |= {f"model.{name}.weight": np.ones((4, 4), np.float32) for name in (
        "vision_tower.encoder.x", "embed_vision.embedding_projection", "audio_tower.x", "embed_audio.x")}
    seen |= {f"model.language_model.layers.3.self_attn.{name}.weight": np.ones(shape, np.float32)
             for name, shape in (("k_proj", (2 * HEAD, EMBED)), ("v_proj", (2 * HEAD, EMBED)), ("k_norm", (HEAD,)))}
    whole = {"architectures": ["Gemma4ForConditionalGeneration"], "text_config": inner, "model_type": "gemma4"}
    with convert(seen, "f32", **whole) as file:
        assert file.tensors.keys() == wanted.keys()
        assert all(np.array_equal(values_of(file, name), array) for name, array in wanted.items())
        assert keys_of(file) == keys
    with open_checkpoint(write_checkpoint(tmp_path / "seen", seen, **whole)) as checkpoint:
        assert plan(checkpoint, "f32", "Tiny").notes == (
            "the model sees or hears besides: the file is the language model alone",)


@pytest.mark.parametrize(("name", "changes", "message"), [
    (SMALL, {"use_bidirectional_attention": "all"}, "is all: lcpu does not run models that read ahead"),
    (SMALL, {"vocab_size_per_layer_input": 300}, "vocab_size_per_layer_input is 300, and there are 384 tokens"),
    (SMALL, {"attention_bias": True}, "attention_bias is true: engines compute no biases with Gemma 4"),
    (SMALL, {"layer_types": ["full_attention"] * 4}, "layer_types is .*lcpu converts a list of 5 layers"),
    (DENSE, {"attention_k_eq_v": False}, "has the shape 32 x 64, but config.json says 64 x 64"),
    (MIXTURE, {"top_k_experts": None}, "top_k_experts is missing"),
    (DENSE, {"hidden_activation": "silu"}, "is 'silu'; lcpu converts gemma4 models with 'gelu_pytorch_tanh'"),
])
def test_what_engines_do_not_compute_is_refused(convert, name, changes, message):
    with pytest.raises(LcpuError, match=message):
        converted(convert, name, **changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"attention.shared_kv_layers": 4}, "shared_kv_layers' leaves no keys and values for one kind of layers: damaged"),
    ({"attention.value_length_swa": 8}, "value_length_swa' is not 16, the size of keys: not supported"),
    ({"attention.key_length_swa": 514}, "heads have 514 values; lcpu supports even numbers from 8 to 512"),
    ({"rope.dimension_count_swa": 18}, "dimension_count_swa' is 18, not an even number of at most 16: damaged"),
    ({"attention.head_count_kv": np.array([2, 2, 3, 2, 2], np.int32)}, "is 3, which does not divide the 4 heads"),
    ({"attention.head_count_kv": np.array([2, 2], np.int32)}, "has 2 values .* for 5 layers: damaged"),
    ({"feed_forward_length": np.array([96, 0, 96, 192, 192], np.int32)}, "feed_forward_length' is 0, not 1 to"),
    ({"embedding_length_per_layer_input": 12}, "embeddings of layers have 12 values; lcpu supports multiples of 16"),
])
def test_files_that_contradict_themselves(convert, tmp_path, changes, message):
    with converted(convert, SMALL) as file:
        metadata = dict(file.metadata.items()) | {f"gemma4.{key}": value for key, value in changes.items()}
        write_gguf(tmp_path / "b.gguf", metadata, [TensorToWrite(name, info.shape, info.type_id, bytes(file.data(name)))
                                                   for name, info in file.tensors.items()])
    with pytest.raises(LcpuError, match=message):
        LLM.load(tmp_path / "b.gguf")


@pytest.mark.parametrize("name", [SMALL, DENSE, MIXTURE])
def test_inputs_of_all_matrices_are_measured(convert, tmp_path, name):
    with converted(convert, name) as file:
        matrices = {key for key, info in file.tensors.items() if key.startswith("blk.") and len(info.shape) > 1}
    with LLM.load(tmp_path / "a.gguf", threads=1, context=LENGTH, input_squares=True) as llm:
        assert matrices <= set(llm.measure_imatrix([text()]))


def test_scattered_columns_change_places_where_blocks_differ(convert):
    """GPTQ's desc_act: columns of ffn_down, and with them the rows of gate and up."""
    tensors, how = case(DENSE)
    packed, floats = packed_model(tensors, gptq(scattered="all"))
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": True}
    names = [f"blk.0.ffn_{part}.weight" for part in ("gate", "up", "down")]
    with convert(floats, "f32", **how) as file:
        gate, up, down = (values_of(file, name) for name in names)
    with convert(packed, "f32", **how, quantization_config=settings) as file:
        moved = [values_of(file, name) for name in names]
    assert not np.allclose(moved[2], down, atol=1e-3)
    np.testing.assert_allclose(moved[2] @ moved[0], down @ gate, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved[2] @ moved[1], down @ up, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [SMALL, DENSE])
def test_a_kept_prompt_gives_the_same(convert, tmp_path, name):
    """Layers differ in the sizes of what a page has of them."""
    converted(convert, name).close()
    prompt, greedy = (text() * 3)[:150], GenerationOptions(max_tokens=8, temperature=0)
    with LLM.load(tmp_path / "a.gguf", threads=1, context=256) as llm:
        wanted = "".join(llm.stream(prompt, greedy))
        llm.save_prompt(tmp_path / "kept", prompt[:140])
    with LLM.load(tmp_path / "a.gguf", threads=1, context=256) as llm:
        assert llm.restore_prompt(tmp_path / "kept") == prompt[:140]
        assert "".join(llm.stream(prompt, greedy)) == wanted


def test_the_tokenizer(convert, tmp_path):
    """Its ids are compared while it is converted."""
    tensors, how = case(DENSE)
    folder = write_checkpoint(tmp_path / "gemma", tensors, **how)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<bos>", "eos_token": "<eos>"}')
    with LLM.load(folder, threads=1) as llm:
        keys = {key.removeprefix("tokenizer.ggml."): value for key, value in llm.metadata.items()}
        assert (keys["model"], keys["add_space_prefix"]) == ("gemma4", False)
        types = dict(zip(keys["tokens"], keys["token_type"], strict=True))
        assert [types[token] for token in ("<|turn>", "<|channel>", "<unk>", "<0x0A>", "▁")] == [3, 4, 2, 6, 1]
        reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for shown in ("It's  two\n\n\nlines 日<turn|>", "<|channel>thought\n<channel|>a"):
            assert llm.tokenize(shown, parse_special=True) == [2, *reference.encode(shown).ids]


def tokenizer():
    """A tokenizer.json as Gemma's: merges go over words."""
    made = Tokenizer(BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_response>"]
    made.train_from_iterator([line for line in TEXT.split("\n") * 3 if line] + ["\n\n\n", "\n\n"] * 5,
                             trainers.BpeTrainer(vocab_size=VOCAB - 256, special_tokens=special, show_progress=False,
                                                 max_token_length=8))
    content = json.loads(made.to_str())
    vocabulary = content["model"]["vocab"]
    first = len(vocabulary)
    vocabulary |= {f"<0x{byte:02X}>": first + byte for byte in range(256)}
    return content
