"""Shared by all tests: a tiny llama model, made on the spot."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.engine.speculation import Proposal, Speculator

EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, LAYERS, CONTEXT = 32, 64, 4, 2, 8, 2, 64
OTHER_PATHS = "tests/test_every_isa.py"


# ---- processes that share the tests: `make test` ----


def pytest_configure(config: pytest.Config) -> None:
    """Lets tests interrupt the processes that they start, also where the shell runs all this in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives a process one unit after the other, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest come first; what comes after the tests of kernels finds those compiled."""
    if hasattr(config, "workerinput"):  # pytest-xdist sets it in such processes
        items.sort(key=lambda item: (unit_of(item.nodeid) != "kernels", not item.nodeid.startswith(OTHER_PATHS)))


def unit_of(nodeid: str) -> str:
    """What one process does alone, so that no two compile the same: all tests of kernels, another path, or a file."""
    if nodeid.startswith(OTHER_PATHS):
        return nodeid
    return "kernels" if nodeid.startswith("tests/kernels/") else nodeid.partition("::")[0]


# ---- a model ----


def tiny_metadata() -> dict[str, object]:
    """A llama with a SentencePiece vocabulary of 3 control tokens, the 256 bytes, and a few letters."""
    letters = list("▁abcdefghijklmnopqrstuvwxyz")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": EMBEDDING,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": HEAD_DIM,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [float(-index) for index in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(letters),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def tiny_shapes(vocab_size: int) -> dict[str, tuple[int, ...]]:
    kv = KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab_size, EMBEDDING)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (EMBEDDING,),
            f"blk.{layer}.attn_q.weight": (EMBEDDING, EMBEDDING),
            f"blk.{layer}.attn_k.weight": (kv, EMBEDDING),
            f"blk.{layer}.attn_v.weight": (kv, EMBEDDING),
            f"blk.{layer}.attn_output.weight": (EMBEDDING, EMBEDDING),
            f"blk.{layer}.ffn_norm.weight": (EMBEDDING,),
            f"blk.{layer}.ffn_gate.weight": (FEED_FORWARD, EMBEDDING),
            f"blk.{layer}.ffn_up.weight": (FEED_FORWARD, EMBEDDING),
            f"blk.{layer}.ffn_down.weight": (EMBEDDING, FEED_FORWARD),
        }
    return shapes | {"output_norm.weight": (EMBEDDING,), "output.weight": (vocab_size, EMBEDDING)}


@pytest.fixture(scope="session")
def write_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write_tiny(**changes) -> path of a new tiny F32 llama, its weights random but always the same.

    `changes` replace metadata: write_tiny(**{"llama.block_count": 1, "general.name": None}); None removes the key.
    """

    def write(**changes: object) -> Path:
        metadata = {key: value for key, value in (tiny_metadata() | changes).items() if value is not None}
        random = np.random.default_rng(0)
        shapes = tiny_shapes(len(tiny_metadata()["tokenizer.ggml.tokens"]))  # type: ignore[arg-type]
        tensors = [
            TensorToWrite(name, shape, 0, random.standard_normal(shape, dtype=np.float32) / shape[-1] ** 0.5)
            for name, shape in shapes.items()
        ]
        path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
        write_gguf(path, metadata, tensors)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_gguf(write_tiny: Callable[..., Path]) -> Path:
    """A tiny llama model to read; do not change it."""
    return write_tiny()


@pytest.fixture
def always_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts of five tokens wherever something can be guessed, whether they pay or not."""

    def length(self: Speculator, proposal: Proposal, room: int, budget: float, proposing: float,
               others: int) -> tuple[int, float]:
        count = min(room, proposal.max_tokens, 5)
        return (count, 2.0) if count > 0 else (0, 1.0)

    monkeypatch.setattr(Speculator, "_best_length", length)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The optional folder of real models and vocabularies beside the checkout."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    return path
