"""What the checkpoints of some families have of their own: metadata, refusals, rows that change places."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from lcpu import LLM
from lcpu.kernels.errors import LcpuError

from .checkpoints import EMBED, HEAD, HEADS, KV_HEADS, TEXT, write_checkpoint
from .golden_cases import CASES, LENGTH, case, text
from .reference import values_of

FAMILIES = ("phi3", "granite", "granitemoeshared", "smollm3", "olmo2", "olmo3", "ministral3", "starcoder2", "stablelm",
            "stablelm-12b", "falcon", "falcon-40b")


def converted(convert, name, **changes):
    tensors, how = case(name)
    return convert(tensors, "f32", **(how | changes))


def metadata(convert, name, **changes):
    """Of the architecture, without its name."""
    with converted(convert, name, **changes) as file:
        prefix = f"{file.metadata['general.architecture']}."
        return {key.removeprefix(prefix): file.metadata[key] for key in file.metadata if key.startswith(prefix)}


@pytest.mark.parametrize("name", FAMILIES)
def test_inputs_of_all_matrices_are_measured(convert, tmp_path, name):
    with converted(convert, name) as file:
        matrices = {key for key, info in file.tensors.items()
                    if key.startswith("blk.") and len(info.shape) > 1 and "norm" not in key}
        matrices.add("output.weight" if "output.weight" in file.tensors else "token_embd.weight")
    with LLM.load(tmp_path / "a.gguf", threads=1, context=LENGTH, input_squares=True) as llm:
        assert set(llm.measure_imatrix([text()])) == matrices


def test_longrope(convert):
    keys = metadata(convert, "phi3")
    assert keys["rope.scaling.type"] == "longrope"
    assert keys["rope.scaling.original_context_length"] == 32
    assert keys["rope.scaling.attn_factor"] == pytest.approx(math.sqrt(1 + math.log(4) / math.log(32)))
    scaling = CASES["phi3"][2]["rope_scaling"]
    assert metadata(convert, "phi3", rope_scaling=scaling | {"type": "su", "attention_factor": 1.5})[
        "rope.scaling.attn_factor"] == 1.5
    with converted(convert, "phi3-short") as file:
        assert file.metadata["phi3.rope.dimension_count"] == 12
        assert values_of(file, "rope_factors_long.weight").tolist() == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("context", [32, 33])
def test_the_context_chooses_factors(convert, tmp_path, context):
    """Those for long contexts are used in a context of more than the 32 positions of training, for short texts too."""
    converted(convert, "phi3").close()
    with LLM.load(tmp_path / "a.gguf", threads=1, context=context) as llm:
        found = llm.logits(text()[:20])
    scaling = CASES["phi3"][2]["rope_scaling"]
    used = scaling["short_factor" if context == 32 else "long_factor"]
    converted(convert, "phi3", rope_scaling=scaling | {"short_factor": used, "long_factor": used}).close()
    with LLM.load(tmp_path / "a.gguf", threads=1, context=64) as llm:
        assert np.array_equal(llm.logits(text()[:20]), found)
    converted(convert, "phi3", rope_scaling=scaling | {"long_factor": scaling["short_factor"]}).close()
    with LLM.load(tmp_path / "a.gguf", threads=1, context=64) as llm:
        assert np.array_equal(llm.logits(text()[:20]), found) == (context == 32)


def test_factors_of_granite(convert):
    keys = metadata(convert, "granite")
    names = ("embedding_scale", "residual_scale", "attention.scale", "logit_scale")
    assert [keys[name] for name in names] == pytest.approx([12, 0.22, 0.125, 0.3])


def test_ministral(convert):
    keys = metadata(convert, "ministral3")
    assert keys["attention.temperature_scale"] == pytest.approx(0.3)
    assert keys["rope.scaling.attn_factor"] == pytest.approx(1 / (1 + 0.1 * math.log(4)))  # takes YaRN's own away


def test_the_language_model_of_one_that_sees(convert):
    tensors, how = case("ministral3")
    inner = {name: value for name, value in how.items() if name not in ("architectures", "model_type")}
    seen = {f"language_model.{name}": array for name, array in tensors.items()} | {
        "vision_tower.patch_conv.weight": np.ones((4, 4), np.float32)}
    with convert(tensors, "f32", **how) as file:
        wanted = {name: values_of(file, name) for name in file.tensors}
        keys = {key: file.metadata[key] for key in file.metadata if key.startswith("mistral3.")}
    with convert(seen, "f32", architectures=["Mistral3ForConditionalGeneration"], text_config=inner) as file:
        assert file.tensors.keys() == wanted.keys()
        assert all(np.array_equal(values_of(file, name), array) for name, array in wanted.items())
        assert {key: file.metadata[key] for key in file.metadata if key.startswith("mistral3.")} == keys


def test_rows_of_falcon(convert):
    tensors, how = case("falcon-40b")
    rows = tensors["transformer.h.1.self_attention.query_key_value.weight"].reshape(KV_HEADS, -1, HEAD, EMBED)
    with convert(tensors, "f32", **how) as file:
        found = values_of(file, "blk.1.attn_qkv.weight").reshape(HEADS + 2 * KV_HEADS, HEAD, EMBED)
        assert file.metadata["falcon.attention.head_count_kv"] == KV_HEADS
    assert np.array_equal(found[:2], rows[0, :2])
    assert np.array_equal(found[2:4], rows[1, :2])
    assert np.array_equal(found[4:6], rows[:, 2])
    assert np.array_equal(found[6:], rows[:, 3])


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("llama", {"rope_scaling": CASES["phi3"][2]["rope_scaling"]}, "is of the type 'longrope'; lcpu converts default"),
    ("llama", {"rope_scaling": CASES["ministral3"][2]["rope_parameters"]}, "has 'llama_4_scaling_beta', which lcpu"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1] * 8, "long_factor": [1] * 7}},
     "long_factor is not a list of 8 numbers from 1e-06 to 1e\\+06"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [0] * 8, "long_factor": [1] * 8}}, "short_factor"),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1, 0]}, "no_rope_layers is .*, and engines rotate all layers but every"),
    ("smollm3", {"use_sliding_window": True, "sliding_window": 20}, "use_sliding_window is true, which engines do"),
    ("falcon", {"alibi": True}, "alibi is true: engines do not compute such Falcon models"),
    ("falcon", {"bias": True}, "bias is true: engines do not"),
    ("falcon", {"parallel_attn": False}, "parallel_attn is false: engines do not"),
    ("granite", {"residual_multiplier": "x"}, "residual_multiplier is 'x', not a positive number"),
    ("granitemoe", {"intermediate_size": 30}, "is not 6 x 60 x 64 floats, as config.json says"),
    ("starcoder2", {"hidden_act": "relu"}, "is 'relu'; lcpu converts starcoder2 models with 'gelu_pytorch_tanh'"),
])
def test_what_engines_do_not_compute_is_refused(convert, name, changes, message):
    with pytest.raises(LcpuError, match=message):
        converted(convert, name, **changes)


@pytest.mark.parametrize("digits", [[], [pre_tokenizers.Digits()]])
def test_the_tokenizer_of_falcon(convert, tmp_path, digits):
    """Its ids are compared while it is converted."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), *digits,
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
        special_tokens=["<|endoftext|>"]))
    tensors, how = case("falcon")
    folder = write_checkpoint(tmp_path / "falcon", tensors, **how)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    with LLM.load(folder, threads=1) as llm:
        assert llm.metadata["tokenizer.ggml.pre"] == "falcon"
        shown = "It's 12 or 3456789, said ``she''; x = ½ <=> ò²"
        assert llm.tokenize(shown) == tokenizer.encode(shown).ids
