"""Columns that make up for the errors of those before them: the sweep of each format against plain NumPy."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from lcpu.convert.error_feedback import ROUNDS, feedback_of, quantize_rows, shrinkage
from lcpu.kernels.formats import Format
from lcpu.kernels.team import Team

from .running import UNDER_TEST
from .test_quantize_blocks import decode, encode
from .test_weighted_blocks import IQ4_LEVELS, encode_weighted

FORMATS = [format for format in UNDER_TEST if format.sweep]
LEVELS = {"q4_0": range(-8, 8), "q4_1": range(16), "q5_0": range(-16, 16), "q5_1": range(32), "q8_0": range(-127, 128),
          "iq4_nl": IQ4_LEVELS, "iq4_xs": IQ4_LEVELS, "q2_k": range(4), "q3_k": range(-4, 4), "q4_k": range(16),
          "q5_k": range(32), "q6_k": range(-32, 32)}


def scales_and_offsets(name: str, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each group of a block: value = scale * level - offset."""
    halves, zeros = block[: len(block) // 2 * 2].view(np.float16).astype(np.float32), np.zeros(16, np.float32)
    if name in ("q4_0", "q5_0", "q8_0", "iq4_nl"):
        return halves[:1], zeros[:1]
    if name in ("q4_1", "q5_1"):
        return halves[:1], -halves[1:2]
    if name in ("q4_k", "q5_k"):
        scales, offsets = gguf.quants.Q4_K.get_scale_min(block[None, 4:16])
        return halves[0] * scales[0].astype(np.float32), halves[1] * offsets[0].astype(np.float32)
    if name == "q2_k":
        return halves[40] * (block[:16] & 15).astype(np.float32), halves[41] * (block[:16] >> 4).astype(np.float32)
    if name == "q6_k":
        return halves[104] * block[192:208].view(np.int8).astype(np.float32), zeros
    if name == "q3_k":
        low = np.concatenate([block[96:104] & 15, block[96:104] >> 4])
        high = np.concatenate([block[104:108] >> shift & 3 for shift in (0, 2, 4, 6)])
        return halves[54] * ((low | high << 4).astype(np.float32) - 32), zeros
    low = np.stack([block[4:8] & 15, block[4:8] >> 4], 1).ravel().astype(np.int64)
    high = int(block[2:4].view(np.uint16)[0]) >> np.arange(0, 16, 2) & 3
    return halves[0] * ((low | high << 4) - 32).astype(np.float32), zeros


def rounded(format: Format, weights: np.ndarray, x: np.ndarray, first: int, fitted: np.ndarray, factors: np.ndarray,
            importance: np.ndarray) -> tuple[np.float32, np.ndarray, np.ndarray, np.ndarray]:
    """A block whose scales are best for `fitted`: weighted errors, its values, what they stand for, and the new x."""
    levels, own = np.array(sorted(LEVELS[format.name]), np.float32), slice(first, first + format.block)
    weigh = format.weighted_encoder
    block = encode_weighted(format, fitted, importance[own]) if weigh else encode(format, fitted)
    scales, offsets = scales_and_offsets(format.name, block)
    group, loss, values, seen = format.block // len(scales), np.float32(0), np.empty(0), np.empty(0)
    for k in range(own.start, own.stop):
        scale, offset = scales[(k - first) // group], offsets[(k - first) // group]
        code = (x[k] + offset) * (np.float32(1) / scale if scale else np.float32(0))
        value = scale * levels[np.abs(levels - code).argmin()] - offset
        values, seen = np.append(values, value), np.append(seen, x[k])
        loss += (x[k] - value) * (x[k] - value) * importance[k]
        x = (np.float64(weights[k] - value) * factors[k].astype(np.float64) + x.astype(np.float64)).astype(np.float32)
    return loss, values.astype(np.float32), seen.astype(np.float32), x


def swept(format: Format, weights: np.ndarray, factors: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """The values [k] that a row gets: column by column, with float32 sums in the kernel's order."""
    x, out = weights.copy(), []
    for first in range(0, len(x), format.block):
        tries, seen = [], x[first : first + format.block]
        for _ in range(ROUNDS + 1):
            tries.append(rounded(format, weights, x, first, seen, factors, importance))
            seen = tries[-1][2]
        least = min(loss for loss, *_ in tries)
        best = [each for each in tries if each[0] == least]
        _, values, _, x = best[-1] if tries[-1][0] == least else best[0]
        out.append(values)
    return np.concatenate(out)


def hessian(k: int, seed: int = 1) -> np.ndarray:
    random = np.random.RandomState(seed)
    x = random.standard_normal((3 * k, k)) @ (np.eye(k) + 0.3 * random.standard_normal((k, k)) / np.sqrt(k))
    x[:, 5] *= 6
    return (x.T @ x).astype(np.float32)


@pytest.fixture(scope="module")
def team():
    with Team(2) as team:
        yield team


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_sweep_is_numpy_s(format, team):
    weights = np.random.RandomState(2).standard_normal((3, 256)).astype(np.float32)
    weights[2, :64] = 0
    feedback = feedback_of(hessian(256))
    out = np.zeros((3, 256 // format.block * format.block_bytes), np.uint8)
    errors = weights.copy()
    quantize_rows(team, errors, feedback, format, out)
    values = decode(format, out.ravel()).reshape(3, 256)
    expected = np.stack([swept(format, row, feedback.factors, feedback.importance) for row in weights])
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(errors, weights - values)


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_products_are_closer_than_those_of_rounded_weights(format, team):
    weights = np.random.RandomState(3).standard_normal((16, 768)).astype(np.float32)
    h = hessian(768)
    out = np.zeros((16, 768 // format.block * format.block_bytes), np.uint8)
    quantize_rows(team, weights.copy(), feedback_of(h), format, out)

    def error(blocks: np.ndarray) -> float:
        differences = (decode(format, blocks).reshape(weights.shape) - weights).astype(np.float64)
        return float(np.einsum("ri,ij,rj->", differences, h, differences))

    assert error(out.ravel()) < 0.85 * error(encode(format, weights))


def test_feedback_is_that_of_the_inverse():
    """As GPTQ has it: from the Cholesky factor of the inverse."""
    h = hessian(64).astype(np.float64)
    feedback = feedback_of(h, damping=0.0)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    ends = np.diagonal(upper)
    factors = np.linalg.inv(upper / ends[:, None])  # U = D (I + S); errors of values are fed through its inverse
    np.testing.assert_allclose(feedback.factors, np.triu(factors, 1), atol=1e-5)
    np.testing.assert_allclose(feedback.importance, ends**-2 / np.mean(ends**-2), rtol=1e-5)


def test_products_of_different_columns_shrink():
    h = hessian(64)
    shrunk = 0.75 * h
    np.fill_diagonal(shrunk, np.diagonal(h))
    one, other = feedback_of(h, shrinkage=0.25), feedback_of(shrunk)
    np.testing.assert_allclose(one.factors, other.factors, atol=1e-6)
    np.testing.assert_allclose(one.importance, other.importance, rtol=1e-5)
    assert not feedback_of(h, shrinkage=1.0).factors.any()  # all columns on their own


def test_short_texts_shrink_more():
    """What a sample has that the next has not: with shrinkage, errors on new rows are smaller, the more so the fewer
    rows were measured."""
    random = np.random.RandomState(4)
    k, weights, mixing = 128, random.standard_normal((32, 128)), np.eye(128) + random.standard_normal((128, 128)) / 20
    format = next(format for format in FORMATS if format.name == "q4_0")

    def error(rows: int, shrink: float) -> float:
        x = np.random.RandomState(5).standard_normal((rows, k)) @ mixing
        new = np.random.RandomState(6).standard_normal((4096, k)) @ mixing
        out, errors = np.zeros((32, k // 32 * 18), np.uint8), weights.astype(np.float32)
        with Team(1) as team:
            quantize_rows(team, errors, feedback_of((x.T @ x).astype(np.float32), shrinkage=shrink), format, out)
        return float(np.square(new @ errors.T).sum())

    gains = [error(rows, shrinkage(rows, k)) / error(rows, 0.0) for rows in (256, 4096)]
    assert gains[0] < gains[1] < 1.01
    assert gains[0] < 0.95
    assert shrinkage(0, k) == 1
