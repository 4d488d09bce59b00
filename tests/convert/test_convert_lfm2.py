"""Checkpoints of LFM 2: metadata, texts with states, and what engines do not compute."""

from __future__ import annotations

import numpy as np
import pytest

from lcpu import LLM
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.options import GenerationOptions
from lcpu.kernels.errors import LcpuError

from .checkpoints import EMBED, FFN, KV_HEADS
from .golden_cases import LENGTH, case, text
from .lfm2_checkpoints import DENSE_LAYERS, EXPERT_FFN, EXPERTS, TAPS
from .reference import values_of

DENSE, MIXTURE = "lfm2", "lfm2_moe"
BOTH = pytest.mark.parametrize("name", [DENSE, MIXTURE])


def converted(convert, name, type="f32", **changes):
    tensors, how = case(name)
    return convert(tensors, type, **(how | changes))


def keys_of(file):
    """Of the architecture, arrays as lists."""
    prefix = f"{file.metadata['general.architecture']}."
    return {key.removeprefix(prefix): np.asarray(value).tolist() for key, value in file.metadata.items()
            if key.startswith(prefix)}


def test_metadata(convert):
    tensors, _ = case(DENSE)
    with converted(convert, DENSE, "bf16") as file:
        keys = keys_of(file)
        assert keys["attention.head_count_kv"] == [0, 0, KV_HEADS, 0]
        assert (keys["shortconv.l_cache"], keys["feed_forward_length"]) == (TAPS, FFN)
        assert keys["attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
        assert file.tensors["blk.1.shortconv.conv.weight"].type_name == "F32"
        assert np.array_equal(values_of(file, "blk.1.shortconv.conv.weight"),
                              tensors["model.layers.1.conv.conv.weight"][:, 0])
        assert "token_embd_norm.weight" in file.tensors
    with converted(convert, DENSE, block_auto_adjust_ff_dim=False, intermediate_size=None, block_ff_dim=FFN,
                   layer_types=None, full_attn_idxs=[2]) as file:
        assert keys_of(file) == keys


def test_metadata_of_a_mixture(convert):
    with converted(convert, MIXTURE) as file:
        keys = keys_of(file)
        assert "blk.0.ffn_up.weight" in file.tensors
        assert file.tensors["blk.1.exp_probs_b.bias"].shape == (EXPERTS,)
    assert [keys[name] for name in ("expert_count", "expert_used_count", "expert_feed_forward_length",
                                    "leading_dense_block_count", "expert_gating_func")] == [
        EXPERTS, 2, EXPERT_FFN, DENSE_LAYERS, 2]


def test_the_language_model_of_one_that_sees(convert):
    tensors, how = case(DENSE)
    inner = {name: value for name, value in how.items() if name not in ("architectures", "model_type")}
    seen = {name.replace("model.", "model.language_model.", 1): array for name, array in tensors.items()}
    seen |= {f"model.{name}.weight": np.ones((4, 4), np.float32)
             for name in ("vision_tower.x", "multi_modal_projector.x")}
    with convert(tensors, "f32", **how) as file:
        wanted, keys = {name: values_of(file, name) for name in file.tensors}, keys_of(file)
    with convert(seen, "f32", architectures=["Lfm2VlForConditionalGeneration"], text_config=inner) as file:
        assert file.tensors.keys() == wanted.keys()
        assert all(np.array_equal(values_of(file, name), array) for name, array in wanted.items())
        assert keys_of(file) == keys


@BOTH
def test_inputs_of_all_matrices_are_measured(convert, tmp_path, name):
    with converted(convert, name) as file:
        matrices = {key for key, info in file.tensors.items()
                    if key.startswith("blk.") and len(info.shape) > 1 and ".conv." not in key}
    with LLM.load(tmp_path / "a.gguf", threads=1, context=LENGTH, input_squares=True) as llm:
        assert matrices <= set(llm.measure_imatrix([text()]))


@BOTH
def test_texts_together_and_with_drafts_are_those_alone(convert, tmp_path, name):
    converted(convert, name).close()
    prompts, greedy = [text()[:40], text()[7:50], text()[:40]], GenerationOptions(max_tokens=12, temperature=0)
    with LLM.load(tmp_path / "a.gguf", threads=1, context=128) as llm:
        alone = [list(llm.stream(prompt, greedy, draft=None)) for prompt in prompts]
    with LLM.load(tmp_path / "a.gguf", threads=2, context=128, cache_tokens=384) as llm:
        running, found = [iter(llm.stream(prompt, greedy)) for prompt in prompts], [[] for _ in prompts]
        for _ in range(13):
            for texts, generation in zip(found, running, strict=True):
                texts += [piece for piece in [next(generation, None)] if piece is not None]
    assert ["".join(texts) for texts in found] == ["".join(texts) for texts in alone]


@pytest.mark.parametrize(("name", "changes", "message"), [
    (DENSE, {"conv_bias": True}, "conv_bias is true: engines compute no biases with LFM 2"),
    (DENSE, {"layer_types": ["conv"] * 3}, "layer_types is .*lcpu converts a list of 4 layers"),
    (MIXTURE, {"use_expert_bias": False}, "use_expert_bias is false: engines take a bias"),
    (MIXTURE, {"routed_scaling_factor": 2.5}, "routed_scaling_factor is not 1, which engines take it to be"),
    (MIXTURE, {"norm_topk_prob": False}, "norm_topk_prob is false, which engines do not compute"),
])
def test_what_engines_do_not_compute_is_refused(convert, name, changes, message):
    with pytest.raises(LcpuError, match=message):
        converted(convert, name, **changes)


@pytest.mark.parametrize(("name", "changes", "message"), [
    (DENSE, {"attention.head_count_kv": np.zeros(4, np.int32)}, "head_count_kv' is 0, not 1 to"),
    (DENSE, {"shortconv.l_cache": 4}, f"conv.weight' has the shape {EMBED} x 3, but the hyperparameters say {EMBED} x"),
    (DENSE, {"attention.head_count_kv": 2}, "tensor 'blk.0.attn_q.weight' is missing"),
    (MIXTURE, {"expert_gating_func": 1}, "expert_gating_func' is 1: lcpu supports 2, the sigmoid"),
])
def test_files_that_contradict_themselves(convert, tmp_path, name, changes, message):
    with converted(convert, name) as file:
        prefix = file.metadata["general.architecture"]
        metadata = dict(file.metadata.items()) | {f"{prefix}.{key}": value for key, value in changes.items()}
        write_gguf(tmp_path / "b.gguf", metadata, [TensorToWrite(name, info.shape, info.type_id, bytes(file.data(name)))
                                                   for name, info in file.tensors.items()])
    with pytest.raises(LcpuError, match=message):
        LLM.load(tmp_path / "b.gguf")
