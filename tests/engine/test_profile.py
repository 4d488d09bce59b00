"""A profile has all operations of a step, their times add up to the step's, and the step computes the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest

from lcpu import models
from lcpu.engine import benchmark, profile
from lcpu.engine.batch import Piece
from lcpu.engine.benchmark import Benchmark, Case, batch_cost
from lcpu.engine.benchmark_parallel import ParallelBenchmark, cache_tokens
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.model import Model
from lcpu.engine.profile import Operation, Profile, Profiler
from lcpu.engine.work import attention_operations, weight_operations
from lcpu.kernels.profile import clock_rate, timed

from .test_experts import MIXTRAL, Mixture

LLAMA = {"embed", "attn_norm", "attn_q, attn_k, attn_v", "rope, store", "attention", "attn_output", "ffn_norm",
         "ffn_gate, ffn_up", "ffn_down", "outputs", "output_norm"}  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2], ids=["1 thread", "2 threads"])
def model(request: pytest.FixtureRequest, tiny_gguf: Path) -> Iterator[Model]:
    with GGUFFile.open(tiny_gguf) as file:
        model = Model(file, 1000, request.param, cache_tokens=4096)
        yield model
        model.close()


@pytest.fixture(scope="module")
def embedded() -> Iterator[Model]:
    with GGUFFile.open(models.path()) as file:
        model = Model(file, 512, 1)
        yield model
        model.close()


def measured(model: Model, case: Case, repetitions: int = 2) -> list[Profile]:
    return profile.profile(Benchmark(model), model, case, repetitions, warm_up=False)


def test_the_logits_have_the_same_bits(model: Model) -> None:
    copy = timed(model.program, model.team.threads).program
    tokens = np.random.default_rng(2).integers(3, model.h.vocab_size, 200).tolist()
    found = []
    for program in (None, copy):
        prompt = model.step([Piece(tokens, 0, range(2), 200)], program).copy()
        found.append([prompt, model.step([Piece([5], 200, range(2), 1)], program).copy()])
    assert [each.tobytes() for each in found[0]] == [each.tobytes() for each in found[1]]
    assert np.isfinite(found[0][0]).all()


def test_every_instruction_is_in_it(model: Model) -> None:
    prompt, generation = measured(model, Case(prompt=20, generated=3))
    program = model.program.instructions
    for each in (prompt, generation):
        assert {operation.name for operation in each.operations} == LLAMA | {"output"}
        assert sum(operation.instructions for operation in each.operations) == len(program)
    barriers = sum(instruction.barrier for instruction in program)
    met = [sum(operation.barriers for operation in each.operations) for each in (prompt, generation)]
    if model.team.threads == 1:
        assert met == [barriers, barriers]
    else:  # operations on a single row have none: of the token, or of the only one that wants logits
        rows = [operation[0].row_count for operation in timed(model.program, 2).operations[1:]]
        outputs = model.batch.counts.ctypes.data + 8
        assert met == [barriers - rows.count(outputs), rows.count(0) + 1]
        assert [operation.seconds for operation in each.operations] == sorted(
            (operation.seconds for operation in each.operations), reverse=True)  # fmt: skip
        projections = next(each for each in prompt.operations if each.name.startswith("attn_q"))
        assert (projections.instructions, projections.barriers) == (3 * model.h.block_count, model.h.block_count)
        assert len(projections.work) == model.team.threads
    assert (prompt.phase, prompt.tokens, prompt.steps, len(prompt.samples_ns)) == ("prompt", 20, 2, 2)
    assert (generation.phase, generation.tokens, generation.steps) == ("generation", 3, 6)


def test_the_parts_are_the_whole(embedded: Model) -> None:
    """With the launch, they add up to the time of an ordinary step: timing them costs next to nothing.

    The fastest of many short runs are compared, which other processes have not disturbed; of more runs, if they have.
    """
    steps = 8
    runner, case = Benchmark(embedded), Case(generated=steps)
    runner.run(case, 5)
    samples, profiles = [], []
    for _ in range(8):
        samples += runner.run(case, 50, warm_up=False).samples_ns
        profiles += [profile.profile(runner, embedded, case, 1, warm_up=False)[0] for _ in range(50)]
        ordinary = min(samples) / steps / 1e9
        found = min(profiles, key=lambda each: each.step_seconds)
        if found.step_seconds == pytest.approx(ordinary, rel=0.1):
            break
    operations = sum(operation.seconds for operation in found.operations)
    assert operations + found.launch_seconds == pytest.approx(found.step_seconds)
    assert 0 < found.launch_seconds < 0.4 * found.step_seconds  # a step takes less than a tenth of a millisecond
    assert found.step_seconds == pytest.approx(ordinary, rel=0.1)


def test_the_parts_of_a_long_step_are_nearly_all_of_it(embedded: Model) -> None:
    found = [measured(embedded, Case(prompt=256), 1)[0] for _ in range(7)]
    shares = [sum(operation.seconds for operation in each.operations) / each.step_seconds for each in found]
    assert 0.95 < median(shares) < 1
    assert found[0].tokens_per_second == pytest.approx(256 / found[0].step_seconds)


def test_times_of_an_operation_in_all_layers_and_steps(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """From made-up times: operation i takes 100 + i ticks, of which thread t works i + t."""
    real, threads = timed(model.program, model.team.threads), model.team.threads
    numbers = np.arange(len(real.operations))
    fake = SimpleNamespace(program=None, operations=real.operations, elapsed=100 + numbers,
                           work=numbers + np.arange(threads)[:, None], clear=lambda: None,
                           times=np.ones((threads, len(numbers), 2)))
    monkeypatch.setattr(profile, "timed", lambda program, threads: fake)
    monkeypatch.setattr(profile, "clock_rate", lambda: 1000.0)
    profiler = Profiler(model)
    for start in (0, 7):
        profiler.run([[Piece([1] * 7, start, range(1), 1)], [Piece([1] * 7, start, range(1), 1)]])
    found = {operation.name: operation for operation in profiler.operations()}["ffn_down"]
    own = [i for i in numbers if real.operations[i][0].name == "ffn_down"]
    assert len(own) == model.h.block_count
    assert found.seconds == pytest.approx(sum(100 + i for i in own) / 1000)
    assert found.work == pytest.approx([sum(i + thread for i in own) / 1000 for thread in range(threads)])
    assert found.waiting == pytest.approx(found.seconds - np.mean(found.work))
    assert len(profiler.samples_ns) == 2
    assert profiler.steps == 4


def total(operations: tuple[Operation, ...], name: str) -> float:
    return sum(getattr(operation, name) or 0 for operation in operations)


def test_bytes_are_those_that_steps_must_read(model: Model) -> None:
    case = Case(generated=5, depth=100)
    (found,) = measured(model, case)
    assert total(found.operations, "bytes") * 5 == pytest.approx(benchmark.bytes_read(model, case))
    (steps,) = measured(model, batch_cost(4))
    assert steps.tokens == batch_cost(4).generated
    bytes_read = benchmark.bytes_read(model, batch_cost(4))
    assert total(steps.operations, "bytes") * steps.steps / 2 == pytest.approx(bytes_read)


def test_operations_are_those_that_tokens_need(model: Model) -> None:
    """The output layer multiplies the last token of a prompt alone, here in the second of two steps."""
    (found,) = measured(model, Case(prompt=30, depth=100, batch=20))
    expected = attention_operations(model, range(101, 131))
    for name, matrix in model.matrices.items():
        expected += weight_operations(model, matrix, 1 if name == "output.weight" else 30)
    assert total(found.operations, "arithmetic") * 2 == pytest.approx(expected)
    unknown = {each.name for each in found.operations if each.bytes is None}
    assert {each.name for each in found.operations if each.arithmetic is None} == unknown
    assert unknown == {"embed", "attn_norm", "rope, store", "ffn_norm", "outputs", "output_norm"}


def test_experts(write_llama: Callable[..., Path]) -> None:
    """Of the matrices of all experts, a step reads as many as its tokens have."""
    with GGUFFile.open(write_llama(tensors=Mixture().tensors(), **MIXTRAL)) as file:
        model = Model(file, 64, 2)
        case = Case(generated=3)
        (found,) = measured(model, case, 1)
        model.close()
    assert total(found.operations, "bytes") * 3 == pytest.approx(benchmark.bytes_read(model, case))
    names = {operation.name for operation in found.operations}
    assert names > {"ffn_gate_inp", "route", "ffn_gate_exps, ffn_up_exps", "ffn_down_exps", "add_weighted"}


def test_many_sequences(model: Model) -> None:
    case = Case(150, 4, sequences=3, shared_prompt=True)
    assert cache_tokens(case) <= 4096
    said: list[str] = []
    prompt, generation = profile.profile(ParallelBenchmark(model), model, case, 1, progress=said.append)
    assert (prompt.tokens, prompt.steps, generation.tokens, generation.steps) == (150, 1, 12, 4)
    assert said == ["warm-up", "prompt, run 1/1", "generation, run 1/1"]
    layers, contexts = model.h.block_count, 3 * list(range(151, 155))
    attention = next(each for each in generation.operations if each.name == "attention")
    assert attention.arithmetic == pytest.approx(attention_operations(model, contexts) / 4)
    assert attention.instructions == layers


def test_ticks_are_of_the_clock(embedded: Model) -> None:
    """A step takes as many as Python's clock says."""
    copy = timed(embedded.program, 1)
    tokens = [3] * 256
    ratios = []
    for _ in range(7):
        started = time.perf_counter()
        embedded.step([Piece(tokens, 0, range(4), 1)], copy.program)
        ratios.append(copy.elapsed.sum() / clock_rate() / (time.perf_counter() - started))
    assert 0.9 < median(ratios) < 1
