"""Importance matrices: both forms of files, what is wrong with others, and files that are quantized with them."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from lcpu.convert.gguf_writer import TensorToWrite, write_gguf
from lcpu.convert.imatrix import ImportanceMatrix, check_demands, read_imatrix, without_weights
from lcpu.convert.quantize import quantize
from lcpu.convert.type_rules import MIXTURES, TYPE_IDS, Overrides, choose_types
from lcpu.convert.types import tensor_types
from lcpu.convert.values import Values
from lcpu.engine.gguf_file import GGUFFile, TensorInfo
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.formats import FORMATS
from lcpu.kernels.jit import address_of

from ..kernels.reference import error_weights

DENSE, EXPERTS = "blk.0.ffn_up.weight", "blk.0.ffn_down_exps.weight"
KEYS = {"general.type": "imatrix", "imatrix.datasets": ["wiki.txt", "more.txt"], "imatrix.chunk_count": 7,
        "imatrix.chunk_size": 512}


def write(path: Path, tensors: dict[str, np.ndarray], keys: dict[str, object] = KEYS) -> Path:
    floats = {name: np.asarray(x, np.float32) for name, x in tensors.items()}
    write_gguf(path, keys, [TensorToWrite(name, x.shape, 0, x) for name, x in floats.items()])
    return path


def squares(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, np.float32) + np.float32(0.1)


def legacy(entries: dict[str, tuple[int, np.ndarray]], end: bytes = b"") -> bytes:
    parts = [struct.pack("<i", len(entries))]
    for name, (calls, values) in entries.items():
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", calls, values.size),
                  values.astype("<f4").tobytes()]
    return b"".join(parts) + end


def info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, shape, 0, 0, 0, 0)


# ---- files ----


def test_gguf(tmp_path):
    dense, experts = squares(1, 64), squares(3, 32)
    counts = np.array([[4], [0], [2]])
    matrix = read_imatrix(write(tmp_path / "imatrix.gguf", {
        DENSE + ".in_sum2": dense * 8, DENSE + ".counts": np.full((1, 1), 8),
        EXPERTS + ".in_sum2": experts * counts, EXPERTS + ".counts": counts}))
    assert list(matrix.squares) == [DENSE, EXPERTS]
    np.testing.assert_allclose(matrix.squares[DENSE], dense[0], rtol=1e-6)
    wanted = experts.copy()
    wanted[1] = 1  # no token went there
    np.testing.assert_allclose(matrix.squares[EXPERTS], wanted.ravel(), rtol=1e-6)
    assert (matrix.datasets, matrix.chunks) == (("wiki.txt", "more.txt"), 7)


@pytest.mark.parametrize("end", [b"", struct.pack("<i", 5), struct.pack("<ii", 5, 8) + b"wiki.txt"])
def test_the_older_form(tmp_path, end):
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy({DENSE: (4, squares(64) * 4), "b.weight": (0, squares(32))}, end))
    matrix = read_imatrix(path)
    np.testing.assert_allclose(matrix.squares[DENSE], squares(64), rtol=1e-6)
    np.testing.assert_array_equal(matrix.squares["b.weight"], squares(32))
    assert (matrix.datasets, matrix.chunks) == (("wiki.txt",) if len(end) > 4 else (), 5 if end else 0)


def test_weights_of_tensors(tmp_path):
    zeros = np.zeros(32, np.float32)
    matrix = ImportanceMatrix(tmp_path / "m", {DENSE: squares(64), EXPERTS: squares(96), "zero": zeros,
                                               "token_embd.weight": squares(16)})
    weights = matrix.of(info(EXPERTS, 3, 10, 32))
    assert weights.shape == (3, 32)
    np.testing.assert_allclose(weights.mean(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights[1] / weights[1, 0], squares(96)[32:64] / squares(96)[32], rtol=1e-5)
    assert matrix.of(info(DENSE, 10, 64)).shape == (1, 64)
    assert (matrix.of(info("zero", 2, 32)) == 1).all()
    assert matrix.of(info("absent", 2, 32)) is None
    assert matrix.of(info("token_embd.weight", 100, 32)) is None
    with pytest.raises(LcpuError, match=r"m: has 64 values for tensor 'blk\.0\.ffn_up\.weight', which needs 32: take"):
        matrix.of(info(DENSE, 10, 32))


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"general.type": "model"}, {"a.in_sum2": (1, 4)}, "is not an importance matrix but a GGUF file of type 'mo"),
        ({}, {"a.in_sum2": (1, 4)}, "is not an importance matrix but another GGUF file"),
        (KEYS, {"a.weight": (1, 4)}, "has no importance of any tensor"),
        (KEYS, {"a.in_sum2": (1, 4)}, r"tensor 'a\.counts' is missing"),
        (KEYS, {"a.in_sum2": (1, 4), "a.counts": (3, 1)}, "has 4 sums and 3 counts of tensor 'a'"),
    ],
)
def test_gguf_files_that_are_none(tmp_path, keys, tensors, message):
    path = write(tmp_path / "x.gguf", {name: np.ones(shape) for name, shape in tensors.items()}, keys)
    with pytest.raises(LcpuError, match=message):
        read_imatrix(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_squares(tmp_path, value):
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy({"a": (1, np.array([1, value]))}))
    with pytest.raises(LcpuError, match="tensor 'a' has values that are no mean squares"):
        read_imatrix(path)


def test_older_files_that_are_none(tmp_path):
    path = tmp_path / "imatrix.dat"
    whole = legacy({DENSE: (4, squares(64))}, struct.pack("<ii", 5, 8) + b"wiki.txt")
    end = len(legacy({DENSE: (4, squares(64))}))
    negative = legacy({DENSE: (4, squares(64))})[:4] + struct.pack("<i", -5) + whole
    for data in (*(whole[:cut] for cut in range(len(whole)) if cut not in (end, end + 4)), negative, b"text\n" * 99):
        path.write_bytes(data)
        with pytest.raises(LcpuError, match="is not an importance matrix, or not a whole one"):
            read_imatrix(path)


def test_no_file(tmp_path):
    with pytest.raises(LcpuError, match="absent: cannot be read: No such file"):
        read_imatrix(tmp_path / "absent")


# ---- what types demand one ----


def test_types_that_demand_one(tmp_path):
    tensors = {name: info(name, 4, 256) for name in ("token_embd.weight", DENSE)}
    types = dict.fromkeys(tensors, TYPE_IDS["IQ2_S"])
    with pytest.raises(LcpuError, match=r"tensor 'blk\.0\.ffn_up\.weight' would be IQ2_S, which needs an import"):
        check_demands(types, tensors, MIXTURES["iq2_m"], None)
    with pytest.raises(LcpuError, match=r"m: has nothing for tensor 'blk\.0\.ffn_up\.weight', which would be IQ2_S: "):
        check_demands(types, tensors, MIXTURES["iq2_m"], ImportanceMatrix(tmp_path / "m", {"a": squares(256)}))
    check_demands(types, tensors, MIXTURES["iq2_m"], ImportanceMatrix(tmp_path / "m", {DENSE: squares(256)}))
    check_demands(dict.fromkeys(tensors, TYPE_IDS["IQ3_S"]), tensors, MIXTURES["iq3_s"], None)


def test_a_checkpoint_has_none():
    values = {DENSE: Values((4, 256), lambda start, stop: np.zeros((stop - start, 256), np.float32), "F32")}
    with pytest.raises(LcpuError, match="would be IQ2_S, which needs an importance matrix: convert to bf16 and give"):
        tensor_types(values, {"general.architecture": "llama"}, "iq2_m", Overrides())


def test_tensors_without_weights(tmp_path):
    tensors = {name: info(name, 4, 256) for name in ("token_embd.weight", DENSE, "b.weight", "c.weight")}
    types = dict(zip(tensors, (TYPE_IDS[kind] for kind in ("Q4_K", "Q4_K", "Q4_K", "F16")), strict=True))
    matrix = ImportanceMatrix(tmp_path / "m", {DENSE: squares(256)})
    assert without_weights(types, tensors, matrix) == ["b.weight"]


# ---- quantizing ----


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": (20, 256), "output.weight": (20, 256), DENSE: (70, 256), EXPERTS: (3, 40, 256),
              "blk.0.attn_q.weight": (30, 288)}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def weighted(x: np.ndarray, type_name: str, importance: np.ndarray) -> np.ndarray:
    """Blocks, uint8 [blocks, bytes]."""
    format = FORMATS[TYPE_IDS[type_name]]
    weights = error_weights(x, importance, format.block)
    out = np.zeros(x.size // format.block * format.block_bytes, np.uint8)
    assert format.weighted_encoder
    format.weighted_encoder.call(address_of(x), address_of(weights), address_of(out), x.size // format.block)
    return out.reshape(-1, format.block_bytes)


@pytest.mark.parametrize("mixture", ["q4_k_s", "iq3_s", "q8_0"])
def test_each_matrix_is_weighed_by_its_row(tmp_path, values, mixture):
    source, out = tmp_path / "model.gguf", tmp_path / "out.gguf"
    write(source, values, {"general.architecture": "llama", "llama.block_count": 9, "llama.expert_count": 3})
    sums = {DENSE: squares(1, 256), EXPERTS: squares(3, 256), "blk.0.attn_q.weight": squares(1, 288)}
    parts = {name + ".in_sum2": x * 2 for name, x in sums.items()} | {
        name + ".counts": np.full((len(x), 1), 2) for name, x in sums.items()}
    matrix = read_imatrix(write(tmp_path / "imatrix.gguf", parts))
    with GGUFFile.open(source) as file:
        types, _ = choose_types(file.tensors.values(), file.metadata, MIXTURES[mixture], Overrides(), imatrix=True)
        quantize(file, out, types, MIXTURES[mixture].file_type, threads=2, imatrix=matrix)
    with GGUFFile.open(out) as file:
        for name in sums:
            kind, x = file.tensors[name].type_name, values[name]
            weights = matrix.of(file.tensors[name])[:, None, :] if x.ndim > 2 else matrix.of(file.tensors[name])
            if kind != "Q8_0":
                same = weighted(x, kind, weights) == file.data(name).reshape(-1, FORMATS[TYPE_IDS[kind]].block_bytes)
                assert same.all(axis=1).mean() > 0.95, "but for near ties"
    fields = gguf.GGUFReader(out).fields
    assert {key: field.contents() for key, field in fields.items() if "imatrix" in key} == {
        "quantize.imatrix.file": str(matrix.path)[:127], "quantize.imatrix.dataset": "wiki.txt",
        "quantize.imatrix.entries_count": 3, "quantize.imatrix.chunks_count": 7}
    assert fields["quantize.imatrix.entries_count"].types == [gguf.GGUFValueType.UINT32]
