"""Which steps a benchmark takes, and what it makes of their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lcpu.engine import benchmark
from lcpu.engine.attention import Attended
from lcpu.engine.batch import Piece
from lcpu.engine.benchmark import STEPS, WARM_UP_STEPS, Benchmark, Case, Result, batch_cost, spread, with_shares
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.model import BATCH, Model
from lcpu.engine.work import attention_bytes, attention_operations
from lcpu.kernels.activations import Float32, Int8Blocks
from lcpu.kernels.probe import Peaks
from lcpu.kernels.simd import LANES

VOCAB = 100
PEAKS = Peaks(threads=1, bandwidth=1e9, int8=4e9, float32=1e9, bf16=2e9)


def matrix(activation: Float32 | Int8Blocks, rows: int, k: int, row_bytes: int, experts: int = 1) -> SimpleNamespace:
    """With panels that have some more rows, which nobody needs to read."""
    return SimpleNamespace(format=SimpleNamespace(activation=activation), rows=rows, k=k, parts=(None,) * experts,
                           panels=np.zeros((rows // LANES + 4, row_bytes * LANES), np.uint8))


LAYER = 2 * 2 * 2 * 16  # bytes of keys and values of a layer and a position


@dataclass
class Recorder:
    """A model that remembers its steps: tokens, positions and outputs. Each takes what `seconds` says of its size."""

    seconds: Callable[[int], float] = lambda size: 0.0
    steps: list[tuple[list[int], list[int], list[int]]] = field(default_factory=list)
    now: float = 0.0

    h = SimpleNamespace(vocab_size=VOCAB, block_count=3, head_count=8, head_count_kv=2, head_dim=16,
                        expert_used_count=3)
    pool = SimpleNamespace(most=64)
    attended: Sequence[Attended] = (Attended(0, 8 * 16, LAYER),) * 3
    matrices = {  # noqa: RUF012
        "blk.0.attn_q.weight": matrix(Int8Blocks(8), 1000, 500, 300),
        "blk.0.ffn_up.weight": matrix(Float32(), 200, 500, 1000),
        "output.weight": matrix(Int8Blocks(32, 16), 100, 500, 500),
    }

    def step(self, pieces: Sequence[Piece]) -> None:
        (piece,) = pieces
        count = len(piece.tokens)
        self.steps.append((list(piece.tokens), list(range(piece.start, piece.start + count)),
                           list(range(count - piece.outputs, count))))
        self.now += self.seconds(count)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First position and number of tokens of every step."""
        for tokens, positions, _ in self.steps:
            assert positions == list(range(positions[0], positions[0] + len(tokens)))
        return [(positions[0], len(positions)) for _, positions, _ in self.steps]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorder]:
    """recorder(seconds) -> a Recorder by whose clock the benchmark goes."""

    def make(seconds: Callable[[int], float] = lambda size: 0.001) -> Recorder:
        model = Recorder(seconds)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: round(1e9 * model.now))
        return model

    return make


def test_names_are_llama_bench_s():
    assert Case(prompt=512).name == "pp512"
    assert Case(generated=128).name == "tg128"
    assert Case(512, 128).name == "pp512+tg128"
    assert Case(prompt=512, depth=4096).name == "pp512 @ d4096"
    assert Case(512, 128, depth=1).name == "pp512+tg128 @ d1"
    assert batch_cost(4).name == "tgB4"
    assert batch_cost(1, depth=64).name == "tgB1 @ d64"


def test_the_context_holds_all_of_a_case():
    assert Case(512, 128, depth=1000).context == 1640
    assert batch_cost(4, depth=10).context == 10 + 4 * STEPS


def test_a_prompt_goes_in_batches_and_wants_its_last_logits(recorder):
    model = recorder()
    Benchmark(model).run(Case(prompt=1100), 2, warm_up=False)
    assert model.ranges == [(0, 512), (512, 512), (1024, 76)] * 2
    assert [outputs for _, _, outputs in model.steps] == [[], [], [75]] * 2
    assert {token for tokens, _, _ in model.steps for token in tokens} == set(range(VOCAB))


def test_smaller_batches(recorder):
    model = recorder()
    Benchmark(model).run(Case(prompt=100, batch=32), 1, warm_up=False)
    assert model.ranges == [(0, 32), (32, 32), (64, 32), (96, 4)]


def test_generation_is_one_token_after_another(recorder):
    model = recorder()
    Benchmark(model).run(Case(generated=20), 3, warm_up=False)
    assert model.ranges == [(i, 1) for i in range(20)] * 3
    assert all(outputs == [0] for _, _, outputs in model.steps)


def test_a_prompt_and_then_generation(recorder):
    model = recorder()
    Benchmark(model).run(Case(10, 3, depth=5), 1, warm_up=False)
    assert model.ranges == [(0, 5), (5, 10), (15, 1), (16, 1), (17, 1)]


def test_warm_up(recorder):
    model = recorder()
    Benchmark(model).run(Case(600, 50), 1)
    assert model.ranges[: 2 + WARM_UP_STEPS] == [(0, 512), (512, 88), *((i, 1) for i in range(WARM_UP_STEPS))]
    assert model.ranges[2 + WARM_UP_STEPS :] == [(0, 512), (512, 88), *((600 + i, 1) for i in range(50))]


def test_the_cache_is_filled_once(recorder):
    model = recorder()
    runner = Benchmark(model)
    runner.run(Case(generated=3), 1, warm_up=False)
    model.steps.clear()
    runner.run(Case(generated=2, depth=700), 2, warm_up=False)
    assert model.ranges == [(3, 512), (515, 185), *[(700, 1), (701, 1)] * 2]
    model.steps.clear()
    runner.run(Case(prompt=8, depth=700), 2, warm_up=False)
    assert model.ranges == [(700, 8)] * 2


def test_batch_cost_compares_steps_in_turn(recorder):
    model = recorder(lambda size: 0.001 + 0.0005 * size)
    result = Benchmark(model).run(batch_cost(4, depth=6), 2, warm_up=False)
    pairs = [part for i in range(STEPS) for part in ((6 + 4 * i, 1), (6 + 4 * i, 4))]
    assert model.ranges == [(0, 6), *pairs * 2]
    assert model.steps[-1][2] == [0, 1, 2, 3]  # a step that checks drafted tokens needs the logits of all
    assert result.step_cost == pytest.approx(0.003 / 0.0015)
    assert result.samples_ns == pytest.approx([STEPS * 3_000_000] * 2)
    assert result.avg_ts == pytest.approx(4 / 0.003)


def test_progress_tells_every_run(recorder):
    said: list[str] = []
    Benchmark(recorder()).run(Case(prompt=4, depth=9), 2, progress=said.append)
    assert said == ["filling the cache up to 9 tokens", "warm-up", "run 1/2", "run 2/2"]


def test_times_are_averaged_as_llama_bench_does():
    result = Result(Case(prompt=100), (1_000_000, 2_000_000, 6_000_000), None, None, None)
    assert result.samples_ts == pytest.approx([100_000, 50_000, 100 / 0.006])
    assert (result.avg_ns, result.stddev_ns) == pytest.approx((3e6, np.std([1e6, 2e6, 6e6], ddof=1)))
    assert (result.avg_ts, result.stddev_ts) == pytest.approx((np.mean(result.samples_ts),
                                                               np.std(result.samples_ts, ddof=1)))
    once = Result(Case(prompt=100), (1_000_000,), None, None, None)
    assert (once.stddev_ns, once.stddev_ts) == (0, 0)


def test_the_share_of_the_bandwidth(recorder):
    """Steps that take the time in which memory gives twice the bytes: all weights, and the keys and values so far."""
    h = Recorder.h
    kv = 2 * 2 * h.block_count * h.head_count_kv * h.head_dim
    read = 3 * 550_000 + kv * (101 + 102 + 103)
    assert benchmark.bytes_read(Recorder(), Case(generated=3, depth=100)) == read
    model = recorder(lambda size: 2 * read / 3 / PEAKS.bandwidth)
    result = with_shares(Benchmark(model).run(Case(generated=3, depth=100), 2), model, PEAKS)
    assert result.bandwidth_share == pytest.approx(0.5)
    assert result.peak_share is None
    assert benchmark.bytes_read(Recorder(), batch_cost(4)) == STEPS * 550_000 + kv * sum(range(4, 4 * STEPS + 1, 4))


def test_layers_with_a_window_read_no_more_than_it() -> None:
    """Two of three layers see 6 positions, or with four tokens at once, 9."""
    model = Recorder(attended=[Attended(window, 8 * 16, LAYER) for window in (6, 0, 6)])
    layer = LAYER
    weights = benchmark.bytes_read(model, Case(generated=1)) - 3 * layer
    assert benchmark.bytes_read(model, Case(generated=3, depth=100)) == 3 * weights + layer * (101 + 102 + 103 + 6 * 6)
    assert attention_bytes(model, [4, 8, 12, 16], 4) == layer * (40 + 2 * (4 + 8 + 9 + 9))
    operations = attention_operations(Recorder(), [1]) // 3  # of a layer and a position
    assert attention_operations(model, range(5, 9)) == operations * (5 + 6 + 7 + 8 + 2 * (5 + 6 + 6 + 6))


def test_of_experts_only_those_used_count(monkeypatch):
    """Eight matrices of 200 bytes a row, of which a token has three; four tokens may have all."""
    monkeypatch.setattr(Recorder, "matrices", {"blk.0.ffn_up_exps.weight": matrix(Int8Blocks(8), 100, 300, 200, 8)})
    kv, size = 3 * LAYER, 100 * 200
    assert benchmark.bytes_read(Recorder(), Case(generated=2)) == 2 * 3 * size + kv * (1 + 2)
    assert benchmark.bytes_read(Recorder(), batch_cost(4)) == STEPS * 8 * size + kv * sum(range(4, 4 * STEPS + 1, 4))
    seconds = benchmark.least_prefill_seconds(Recorder(), Case(prompt=10), PEAKS)
    h = Recorder.h
    attention = 4 * h.block_count * h.head_count * h.head_dim * sum(range(1, 11)) / PEAKS.float32
    assert seconds - attention == pytest.approx(2 * 10 * 3 * 100 * 300 / PEAKS.int8)


def test_the_share_of_the_peak(recorder):
    """Integer and float operations, each at its own peak, and the output layer for one token."""
    h, tokens, depth = Recorder.h, 60, 10
    integers = 2 * (tokens * 1000 * 500 + 100 * 500)
    seen = sum(depth + i + 1 for i in range(tokens))
    floats = 2 * tokens * 200 * 500 + 2 * 2 * h.block_count * h.head_count * h.head_dim * seen
    least = integers / PEAKS.int8 + floats / PEAKS.float32
    model = recorder(lambda size: 4 * least)
    result = with_shares(Benchmark(model).run(Case(prompt=tokens, depth=depth), 2), model, PEAKS)
    assert result.peak_share == pytest.approx(0.25)
    assert result.bandwidth_share is None


def test_many_sequences_and_drafts_have_no_share(recorder):
    for case in (Case(8, sequences=2), Case(generated=8, acceptance=0.5)):
        result = Result(case, (1000,))
        assert with_shares(result, recorder(), PEAKS) == result


def test_without_a_bandwidth_there_is_no_share_of_it(recorder):
    result = Result(Case(generated=3), (1000,))
    assert with_shares(result, recorder(), replace(PEAKS, bandwidth=0.0)) == result


def test_the_spread_of_runs():
    assert spread((100, 110, 90)) == pytest.approx(0.2)
    assert spread((100, 100)) == 0
    assert spread((100,)) is None


def test_a_prompt_with_generation_has_no_share(recorder):
    model = recorder()
    result = with_shares(Benchmark(model).run(Case(8, 4), 1), model, PEAKS)
    assert (result.bandwidth_share, result.peak_share) == (None, None)


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[Model]:
    with GGUFFile.open(tiny_gguf) as file:
        model = Model(file, 1000, 2)
        yield model
        model.close()


@pytest.mark.parametrize("case", [Case(prompt=BATCH + 9), Case(generated=5), Case(9, 5), batch_cost(3, depth=600)],
                         ids=lambda case: case.name)
def test_a_real_model(model: Model, case: Case) -> None:
    """Beyond the context that it was trained for, too."""
    assert case.context <= model.context
    result = Benchmark(model).run(case, 3)
    assert len(result.samples_ns) == 3
    assert min(result.samples_ns) > 0
    assert result.avg_ts > 0
    assert (result.step_cost is not None) == (case.step is not None)


def test_a_real_model_s_bytes_and_operations(model: Model, tiny_gguf: Path) -> None:
    """Of an F32 model: the weights, without the embedding, of which a step reads a row."""
    with GGUFFile.open(tiny_gguf) as file:
        sizes = {name: info.nbytes for name, info in file.tensors.items()
                 if len(info.shape) == 2 and name != "token_embd.weight"}
    kv = 2 * 2 * model.h.block_count * model.h.head_count_kv * model.h.head_dim
    assert benchmark.bytes_read(model, Case(generated=1)) == sum(sizes.values()) + kv
    floats = sum(size / 4 * 2 for name, size in sizes.items() if name != "output.weight") * 7
    seconds = benchmark.least_prefill_seconds(model, Case(prompt=7), PEAKS)
    assert floats < seconds * PEAKS.float32 < 1.3 * floats


def test_the_processor_has_a_name():
    assert benchmark.processor_name()
