"""Files that are sound GGUF but no sound model: one clear line each, before any kernel is compiled or runs."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.formats import FORMATS
from lcpu.kernels.jit import Kernel
from lcpu.kernels.team import Team

WriteLlama = Callable[..., Path]

MATRICES = {
    "token_embd.weight": (286, 32), "output.weight": (286, 32),
    "blk.1.attn_q.weight": (32, 32), "blk.1.attn_k.weight": (16, 32), "blk.1.attn_v.weight": (16, 32),
    "blk.1.attn_output.weight": (32, 32), "blk.1.ffn_gate.weight": (64, 32), "blk.1.ffn_up.weight": (64, 32),
    "blk.1.ffn_down.weight": (32, 64),
}
NORMS = ["blk.0.attn_norm.weight", "blk.1.ffn_norm.weight", "output_norm.weight"]
BIASES = {f"blk.1.attn_{name}.bias": width for name, width in {"q": 32, "k": 16, "v": 16, "output": 32}.items()}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """refused(path, message, ...): loading ends in this line, and no kernel is touched."""

    def touched(*args: Any) -> None:
        raise AssertionError("a kernel was touched")

    monkeypatch.setattr(Kernel, "compiled", property(touched))
    monkeypatch.setattr(Team, "run", touched)
    threads = threading.active_count()

    def check(path: Path, message: str, **options: Any) -> None:
        with pytest.raises(LcpuError, match=message) as caught:
            LLM.load(path, **{"threads": 2, **options})
        assert "\n" not in str(caught.value)
        assert threading.active_count() == threads

    return check


def test_a_sound_model_does_touch_kernels(tiny_gguf: Path, refused: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="a kernel was touched"):
        LLM.load(tiny_gguf, threads=1)


# Without output.weight, the embedding serves.
@pytest.mark.parametrize("name", [name for name in [*MATRICES, *NORMS] if name != "output.weight"])
def test_missing_tensor(write_llama: WriteLlama, refused: Callable[..., None], name: str) -> None:
    refused(write_llama(tensors={name: None}), f"llama.gguf: tensor '{name}' is missing")


@pytest.mark.parametrize(("name", "shape"), MATRICES.items())
def test_shape_of_a_matrix(write_llama: WriteLlama, refused: Callable[..., None], name: str,
                           shape: tuple[int, int]) -> None:
    rows, k = shape
    for wrong in [(rows + 1, k), (rows - 1, k), (rows, k + 1), (rows, k // 2), (k, rows + 1), (rows,), (rows * k,),
                  (2, rows, k), (rows, k, 1)]:
        shown = " x ".join(map(str, wrong))
        refused(write_llama(tensors={name: np.zeros(wrong, np.float32)}),
                f"tensor '{name}' has the shape {shown}, but the hyperparameters say {rows} x {k}: "
                "damaged; download the file again$")


@pytest.mark.parametrize(("name", "width"), [*((name, 32) for name in NORMS), *BIASES.items()])
def test_shape_of_a_vector(write_llama: WriteLlama, refused: Callable[..., None], name: str, width: int) -> None:
    for wrong in [(width + 1,), (width - 1,), (1,), (width, 1), (2, width), (2 * width,)]:
        shown = " x ".join(map(str, wrong))
        refused(write_llama(tensors={name: np.zeros(wrong, np.float32)}),
                f"tensor '{name}' has the shape {shown}, but the hyperparameters say {width}: damaged; "
                "download the file again$")


def blank(name: str, shape: tuple[int, ...], type_id: int) -> TensorToWrite:
    tensor = TensorToWrite(name, shape, type_id, b"")
    return TensorToWrite(name, shape, type_id, bytes(tensor.nbytes))


@pytest.mark.parametrize("type_id", [t for t in TENSOR_TYPES if t not in FORMATS], ids=lambda t: TENSOR_TYPES[t].name)
def test_types_that_lcpu_does_not_compute_on(write_llama: WriteLlama, refused: Callable[..., None],
                                             type_id: int) -> None:
    shapes = {"token_embd.weight": (286, 256), "blk.0.attn_q.weight": (32, 256), "blk.1.ffn_up.weight": (64, 256),
              "output.weight": (286, 256)}
    for name, shape in shapes.items():
        path = write_llama(embedding=256, tensors={name: blank(name, shape, type_id)})
        successor = TENSOR_TYPES[type_id].successor
        cause = "which lcpu cannot compute on; it knows F32, "
        if successor:
            cause = f"a type that llama.cpp has dropped: get a {successor} file of this model instead$"
        refused(path, f"tensor '{name}' is {TENSOR_TYPES[type_id].name}, {cause}")


@pytest.mark.parametrize("name", [*NORMS, "blk.1.attn_q.bias"])
def test_types_of_vectors(write_llama: WriteLlama, refused: Callable[..., None], name: str) -> None:
    for type_id in (8, 2, 20):
        refused(write_llama(tensors={name: blank(name, (32,), type_id)}),
                f"tensor '{name}' is {TENSOR_TYPES[type_id].name}")


def test_norms_may_be_f16(write_llama: WriteLlama) -> None:
    ones = np.full(32, 0.5, np.float32)
    halves = {name: TensorToWrite(name, (32,), 1, ones.astype(np.float16)) for name in NORMS}
    with LLM.load(write_llama(tensors=halves), threads=1) as a, \
            LLM.load(write_llama(tensors=dict.fromkeys(NORMS, ones)), threads=1) as b:
        assert np.array_equal(a.logits([1, 2]), b.logits([1, 2]))


HYPERPARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "no heads": ({"llama.attention.head_count": 0}, "key 'llama.attention.head_count' is 0, not 1 to"),
    "no KV heads": ({"llama.attention.head_count_kv": 0}, "head_count_kv' is 0, not 1 to"),
    "uneven KV heads": ({"llama.attention.head_count_kv": 3}, "is 3, which does not divide the 4 heads"),
    "no layers": ({"llama.block_count": 0}, "block_count' is 0, not 1 to"),
    "one layer less": ({"llama.block_count": 1}, "block_count' is 1, but there are tensors of 2 blocks: badly conv"),
    "one layer more": ({"llama.block_count": 3}, "tensor 'blk.2.attn_norm.weight' is missing"),
    "a million layers": ({"llama.block_count": 10**6}, "block_count' is 1000000, not 1 to"),
    "4096 layers": ({"llama.block_count": 4096}, "tensor 'blk.2.attn_norm.weight' is missing"),
    "no embedding": ({"llama.embedding_length": 0}, "embedding_length' is 0, not 1 to"),
    "huge heads": ({"llama.attention.head_count": 4096, "llama.attention.head_count_kv": 4096,
                    "llama.attention.key_length": 256, "llama.context_length": 2**27},
                   "'blk.0.attn_q.weight' has the shape 32 x 32, but the hyperparameters say 1048576 x 32"),
    "vocabulary longer than the embedding": ({"llama.vocab_size": None, "tokenizer.ggml.token_type": [3] * 300,
                                              "tokenizer.ggml.scores": [0.0] * 300,
                                              "tokenizer.ggml.tokens": [f"<{i}>" for i in range(300)]},
                                             "the vocabulary has 300 tokens, but the model only 286"),
    "no vocabulary": ({"tokenizer.ggml.tokens": None}, r"tokenizer\.ggml\.tokens"),
    "no tokenizer": ({"tokenizer.ggml.model": None}, r"tokenizer\.ggml\.model"),
    "unknown tokenizer": ({"tokenizer.ggml.model": "rwkv"}, r"tokenizer\.ggml\.model = 'rwkv' is not supported"),
    "unknown architecture": ({"general.architecture": "mamba"},
                             "llama.gguf: architecture 'mamba' is not supported; lcpu runs .*llama"),
    "no architecture": ({"general.architecture": None}, "architecture"),
    "architecture of many lines": ({"general.architecture": "a\nb"}, "architecture"),
    "no context": ({"llama.context_length": 0}, "context_length' is 0, not 1 to"),
    "NaN epsilon": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "rms_epsilon' is nan"),
    "rotary dimensions": ({"llama.rope.dimension_count": 10}, "dimension_count' is 10, not an even number"),
    "odd heads": ({"llama.attention.key_length": 9}, "heads have 9 values"),
    "experts": ({"general.architecture": "qwen3", "qwen3.expert_count": 8},
                "'qwen3.expert_count' is 8: mixture-of-experts models of this architecture are not supported"),
    "experts that no token has": ({"llama.expert_count": 8}, "key 'llama.expert_used_count' is missing"),
    "more experts than there are": ({"llama.expert_count": 2, "llama.expert_used_count": 3},
                                    "key 'llama.expert_used_count' is 3, but there are 2 experts: damaged"),
    "no experts": ({"llama.expert_count": 2, "llama.expert_used_count": 1},
                   "tensor 'blk.0.ffn_gate_inp.weight' is missing"),
}


@pytest.mark.parametrize(("changes", "message"), HYPERPARAMETERS.values(), ids=HYPERPARAMETERS.keys())
def test_hyperparameters(write_llama: WriteLlama, refused: Callable[..., None], changes: dict[str, Any],
                         message: str) -> None:
    refused(write_llama(**changes), message)


OTHER_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "LoRA adapter": ({"general.type": "adapter", "adapter.type": "lora"}, "is a LoRA adapter, not .*: merge it into"),
    "older LoRA adapter": ({"adapter.type": "lora"}, "is a LoRA adapter, not a whole model: merge it into"),
    "projector": ({"general.type": "mmproj", "general.architecture": "clip"}, "is a projector for images or sound"),
    "older projector": ({"general.architecture": "clip"}, "is a projector .*: give the file of the language model"),
    "imatrix": ({"general.type": "imatrix", "general.architecture": None}, "is an importance matrix .*give the model"),
    "control vector": ({"general.architecture": "controlvector"}, "is a control vector, not a model: give the file"),
}


@pytest.mark.parametrize("tokenizer", ["llama", None])
@pytest.mark.parametrize(("changes", "message"), OTHER_FILES.values(), ids=OTHER_FILES.keys())
def test_files_that_are_no_models(write_llama: WriteLlama, refused: Callable[..., None], changes: dict[str, Any],
                                  message: str, tokenizer: str | None) -> None:
    refused(write_llama(**changes, **{"tokenizer.ggml.model": tokenizer}), f"llama.gguf: {message}")


VOCABULARY = "is only a vocabulary, without the weights of a model: give the model file$"


def test_only_a_vocabulary(write_llama: WriteLlama, refused: Callable[..., None]) -> None:
    with GGUFFile.open(write_llama()) as file:
        names = list(file.tensors)
    refused(write_llama(tensors=dict.fromkeys(names)), VOCABULARY)


def test_real_vocabularies(shared: Path, refused: Callable[..., None]) -> None:
    refused(shared / "vocabs/ggml-vocab-llama-spm.gguf", VOCABULARY)
    refused(shared / "vocabs/ggml-vocab-starcoder.gguf", VOCABULARY)


@pytest.mark.parametrize(("factors", "message"), [
    (np.ones(3), "has the shape 3, but the hyperparameters say 4"),
    (np.ones(8), "has the shape 8, but the hyperparameters say 4"),
    (np.array([1, 0, 1, 1]), "has a factor that is not 1e-06 to 1e\\+06"),
    (np.array([1, -1, 1, 1]), "has a factor that is not"),
    (np.array([1, np.nan, 1, 1]), "has a factor that is not"),
    (np.array([1, np.inf, 1, 1]), "has a factor that is not"),
    (np.array([1, 1e-40, 1, 1]), "has a factor that is not"),
])
def test_rope_factors(write_llama: WriteLlama, refused: Callable[..., None], factors: np.ndarray,
                      message: str) -> None:
    refused(write_llama(tensors={"rope_freqs.weight": factors.astype(np.float32)}),
            f"tensor 'rope_freqs.weight' {message}")


@contextmanager
def only(nbytes: int) -> Iterator[None]:
    """Within, this process may reserve so much memory more than it has."""
    resource = pytest.importorskip("resource")
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        pytest.skip("this system does not tell how much memory is reserved")
    reserved = int(statistics.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (reserved + nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_claims_take_no_memory(write_llama: WriteLlama, refused: Callable[..., None]) -> None:
    """Whatever a small file claims, validation comes before memory is even reserved."""
    shapes = {"blk.0.ffn_up.weight": (63, 32), "output.weight": (285, 32), "blk.0.ffn_norm.weight": (31,)}
    one_wrong = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}  # so that the tensors do not tell
    claims = [{"llama.embedding_length": 2**18}, {"llama.feed_forward_length": 2**22}, {"llama.vocab_size": 2**24}]
    files = [write_llama(**changes, tensors=one_wrong) for changes in claims]
    files.append(write_llama(**HYPERPARAMETERS["huge heads"][0]))
    with only(256 << 20):
        for path in files:
            refused(path, "has the shape")


def test_a_context_larger_than_memory(write_llama: WriteLlama, refused: Callable[..., None]) -> None:
    path = write_llama(heads=32, kv_heads=32, head_dim=256)
    with only(4 << 30):
        refused(path, r"^the system does not give [\d.]+ GiB of memory in one piece: take a shorter", context=2**24)


@pytest.mark.parametrize("name", [*MATRICES, *NORMS])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(write_llama: WriteLlama, name: str, value: float) -> None:
    shape = MATRICES.get(name, (32,))
    with LLM.load(write_llama(tensors={name: np.full(shape, value, np.float32)}), threads=2) as llm:
        for temperature in (0.0, 0.8):
            with pytest.raises(LcpuError, match="the model computed values that are not numbers"):
                list(llm.generate("abc", temperature=temperature, max_tokens=4))
        assert not np.isfinite(llm.logits([1, 2])[-1]).all()


@pytest.mark.parametrize("embedding", [32, 44])
def test_a_bad_row_does_not_reach_later_texts(write_llama: WriteLlama, embedding: int) -> None:
    table = np.random.default_rng(0).standard_normal((286, embedding)).astype(np.float32)
    table[5] = np.nan
    path = write_llama(embedding=embedding, tensors={"token_embd.weight": table})
    with LLM.load(path, threads=2) as llm:
        expected = llm.logits([7, 8])
        assert np.isfinite(expected).all()
        assert np.isnan(llm.logits([5] * 20)).all()
        assert np.array_equal(llm.logits([7, 8]), expected)


FUZZ = """
import faulthandler, os, sys
from lcpu.engine.llm import LLM
from lcpu.kernels.errors import LcpuError

faulthandler.enable()
outcomes = {"ran": 0, "refused": 0}
for line in sys.stdin:
    path, context = line.split()
    try:
        with LLM.load(path, threads=1, context=int(context)) as llm:
            llm.logits([1, 2, 3])
            "".join(llm.generate("abc", max_tokens=2, temperature=0.0))
        outcomes["ran"] += 1
    except LcpuError as error:
        assert "\\n" not in str(error), error
        outcomes["refused"] += 1
    os.unlink(path)
print(outcomes["ran"], outcomes["refused"])
"""


def test_any_damage_to_the_header_is_an_error_or_harmless(write_llama: WriteLlama, tmp_path: Path) -> None:
    """In a process of its own, so that a crash in a kernel would be seen."""
    path = write_llama({"attn_k.weight": "q8_0", "ffn_up.weight": "f16", "ffn_down.weight": "q4_0", "": "f32"},
                       layers=1, biases=True)
    data = path.read_bytes()
    with GGUFFile.open(path) as file:
        header = min(tensor.offset for tensor in file.tensors.values())
    vocabulary = data.index(b"tokenizer.ggml.tokens"), data.index(b"tokenizer.ggml.bos")
    interesting = [at for at in range(header) if not vocabulary[0] <= at < vocabulary[1] or at % 16 == 0]
    choose = random.Random(4)
    files = []
    for number in range(600):
        damaged = bytearray(data)
        for _ in range(choose.choice((1, 1, 1, 2, 4))):
            at = choose.choice(interesting)
            damaged[at] = choose.choice((0, 1, 2, 8, 16, 64, 127, 128, 255, damaged[at] ^ 1 << choose.randrange(8)))
        files.append(tmp_path / f"{number}.gguf")
        files[-1].write_bytes(damaged)
    done = subprocess.run([sys.executable, "-c", FUZZ], input="".join(f"{file} 8\n" for file in files),
                          capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    ran, refused = map(int, done.stdout.split())
    assert ran + refused == len(files)
    assert min(ran, refused) > 50
