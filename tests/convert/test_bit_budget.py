"""Types under a budget: the allocation against all that there are, and what is measured against the files."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from lcpu.convert.bit_budget import Option, _hull, allocate, choose
from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.imatrix import ImportanceMatrix
from lcpu.convert.quantize import quantize
from lcpu.convert.type_rules import TYPE_IDS, Overrides
from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.gguf_types import TENSOR_TYPES
from lcpu.kernels.errors import LcpuError

SHAPES = {"token_embd.weight": (40, 256), "blk.0.attn_norm.weight": (256,), "blk.0.attn_v.weight": (48, 256),
          "blk.0.ffn_up.weight": (300, 256), "blk.0.ffn_down.weight": (256, 288)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    tensors = [TensorToWrite(name, shape, 0, random.standard_normal(shape, dtype=np.float32))
               for name, shape in SHAPES.items()]
    write_gguf(tmp_path / "in.gguf", {"general.architecture": "llama", "llama.block_count": 1}, tensors)
    return tmp_path / "in.gguf"


def options(*pairs: tuple[int, float]) -> list[Option]:
    return [Option(index, nbytes, cost, cost) for index, (nbytes, cost) in enumerate(pairs)]


def test_hull():
    """An option that is larger and no better goes, and one that a mixture of two others beats."""
    kept = _hull(options((10, 9.0), (12, 9.5), (14, 8.0), (20, 1.0), (20, 2.0), (40, 0.5)))
    assert [(option.nbytes, option.cost) for option in kept] == [(10, 9.0), (20, 1.0), (40, 0.5)]


@pytest.mark.parametrize("seed", range(20))
def test_allocation_is_as_good_as_any_but_for_one_step(seed):
    """All combinations are tried. Costs exceed the least ones by no more than what one step saves."""
    random = np.random.default_rng(seed)
    each = {str(tensor): _hull(options(*((int(size) * (tensor + 1), float(cost)) for size, cost in zip(
        np.sort(random.choice(np.arange(3, 40), 5, replace=False)), -np.sort(-random.random(5)), strict=True))))
        for tensor in range(4)}
    least = sum(found[0].nbytes for found in each.values())
    most = sum(found[-1].nbytes for found in each.values())
    for budget in np.linspace(least, most, 7):
        chosen = allocate(each, float(budget))
        assert chosen is not None
        assert sum(option.nbytes for option in chosen.values()) <= budget
        best = min(sum(option.cost for option in combination) for combination in itertools.product(*each.values())
                   if sum(option.nbytes for option in combination) <= budget)
        steps = [small.cost - large.cost for found in each.values() for small, large in itertools.pairwise(found)]
        assert sum(option.cost for option in chosen.values()) <= best + max(steps, default=0.0) + 1e-12
    assert allocate(each, least - 1) is None
    assert allocate(each, most) == {name: found[-1] for name, found in each.items()}


def bits(path: Path) -> float:
    with GGUFFile.open(path) as file:
        infos = file.tensors.values()
        return 8 * sum(info.nbytes for info in infos) / sum(math.prod(info.shape) for info in infos)


@pytest.mark.parametrize("wanted", [4.9, 5.5, 7.0])
def test_a_file_fits_its_budget_and_has_the_measured_errors(model, tmp_path, wanted):
    out = tmp_path / "out.gguf"
    with GGUFFile.open(model) as file:
        budget = choose(file, wanted, Overrides(), threads=2)
        done = quantize(file, out, budget.types, budget.file_type, threads=2, check=True)
    assert wanted - 0.4 < bits(out) <= wanted
    for tensor in done:
        if tensor.name in budget.chosen:
            assert tensor.new_type == budget.chosen[tensor.name].type_id
            assert tensor.relative_error == pytest.approx(budget.chosen[tensor.name].error ** 0.5, rel=1e-3)
    assert set(budget.chosen) == {name for name in SHAPES if "norm" not in name}
    assert TENSOR_TYPES[budget.types["blk.0.ffn_down.weight"]].block_values <= 32, "its rows are not whole superblocks"


def test_what_the_user_names_stays(model):
    with GGUFFile.open(model) as file:
        budget = choose(file, 5.5, Overrides(embedding="Q8_0"), threads=1)
        assert budget.types["token_embd.weight"] == TYPE_IDS["Q8_0"]
        assert "token_embd.weight" not in budget.chosen
        with pytest.raises(LcpuError, match=r"takes at least 3\.\d\d bits per weight: take a larger --target-bpw"):
            choose(file, 2.0, Overrides(), threads=1)


def test_importance_moves_bits(model):
    """Where the columns that count can be kept by large blocks' scales, the error of products is smaller."""
    importance = np.full(256, 1e-4, np.float32)
    importance[::32] = 1
    matrix = ImportanceMatrix(Path("imatrix.gguf"), {"blk.0.ffn_up.weight": importance})
    with GGUFFile.open(model) as file:
        plain, weighed = (choose(file, 5.0, Overrides(), each, threads=1) for each in (None, matrix))
    up, down = "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"
    assert weighed.chosen[up].nbytes < plain.chosen[up].nbytes or weighed.chosen[up].error < plain.chosen[up].error
    assert weighed.chosen[down].nbytes >= plain.chosen[down].nbytes
