"""Float32 to blocks with weights for the errors: as close as llama.cpp with its importance matrix, or closer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest

from lcpu.kernels.formats import Format
from lcpu.kernels.jit import address_of
from lcpu.kernels.quantizing import PIECE, SCRATCH_BYTES, convert_weighted

from .reference import error_weights
from .running import UNDER_TEST, run
from .test_quantize_blocks import BY_NAME, decode, encode, error_of, matrices

IMPORTANCE = np.exp(np.random.RandomState(3).standard_normal(1024)).astype(np.float32)
WEIGHTED = [format.name for format in UNDER_TEST if format.weighted_encoder]

# Roots of mean square errors, weighted by IMPORTANCE, of llama.cpp with that (ggml_quantize_chunk of libggml-base
# 0.25.3) on the matrices of `matrices`, in their order.
LLAMA_CPP_ERRORS = {
    "q4_0": (0.00153982, 0.003927, 0.00220693, 0.00224562), "q4_1": (0.00126461, 0.00271947, 0.00126776, 0.00183568),
    "q5_0": (0.000761959, 0.00197116, 0.00111156, 0.00111362),
    "q5_1": (0.000613362, 0.00131356, 0.000616023, 0.000889804),
    "iq4_nl": (0.00139658, 0.00305777, 0.00224407, 0.0020316),
    "iq4_xs": (0.00141183, 0.00311579, 0.00227034, 0.00208614),
    "q4_k": (0.00128424, 0.00280091, 0.00128133, 0.00187437),
    "q5_k": (0.000655508, 0.00142992, 0.000643114, 0.000949342),
    "q6_k": (0.000319499, 0.000775077, 0.000479947, 0.000473201),
    "iq3_s": (0.00237562, 0.00524626, 0.00399672, 0.00361478),
    "iq3_xxs": (0.00303536, 0.00624466, 0.00502711, 0.00473104),
    "iq2_s": (0.00444079, 0.0102967, 0.00746272, 0.00674399), "iq2_xs": (0.00512343, 0.0110646, 0.0085998, 0.00779306),
    "iq2_xxs": (0.00584849, 0.0132321, 0.00999574, 0.00881452), "iq1_s": (0.00879577, 0.0178463, 0.0136897, 0.0130075),
    "iq1_m": (0.00775806, 0.0145659, 0.0126622, 0.0118218),
}
# Without weights, of types that llama.cpp makes without them too.
LLAMA_CPP_PLAIN_ERRORS = {
    "iq3_s": (0.00329949, 0.00685236, 0.00528669, 0.0048723),
    "iq3_xxs": (0.00423298, 0.00914252, 0.00664507, 0.00639244),
    "iq2_s": (0.00524713, 0.0124374, 0.0087239, 0.00800939),
}
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """Those of the formats that are under test."""
    formats = [BY_NAME[name] for name in names if BY_NAME[name] in UNDER_TEST]
    return pytest.mark.parametrize("format", formats, ids=lambda format: format.name)


def encode_weighted(format: Format, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float32 [...] as blocks, uint8 [bytes]."""
    x = np.ascontiguousarray(x, np.float32)
    weights = np.ascontiguousarray(np.broadcast_to(weights, x.shape), np.float32)
    out = np.full(x.size // format.block * format.block_bytes + 1, 0xA5, np.uint8)
    assert format.weighted_encoder
    format.weighted_encoder.call(address_of(x), address_of(weights), address_of(out), x.size // format.block)
    assert out[-1] == 0xA5
    return out[:-1]


def weighted_error(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    squares = (x - y.reshape(x.shape)).astype(np.float64) ** 2
    return float(np.sqrt((weights * squares).sum() / np.broadcast_to(weights, x.shape).sum(dtype=np.float64)))


@each(LLAMA_CPP_ERRORS)
def test_error_is_below_llama_cpp_s(format):
    for (_, x), theirs in zip(matrices().items(), LLAMA_CPP_ERRORS[format.name], strict=True):
        y = decode(format, encode_weighted(format, x, IMPORTANCE))
        assert weighted_error(x, y, IMPORTANCE) < theirs


@each(LLAMA_CPP_PLAIN_ERRORS)
def test_plain_error_of_grid_types_is_below_llama_cpp_s(format):
    for (_, x), theirs in zip(matrices().items(), LLAMA_CPP_PLAIN_ERRORS[format.name], strict=True):
        assert error_of(x, decode(format, encode(format, x))) < theirs


@each([name for name in WEIGHTED if name not in LLAMA_CPP_ERRORS])
def test_weights_lower_the_weighted_error(format):
    x = matrices()["normal"]
    weighted, plain = (decode(format, raw) for raw in (encode_weighted(format, x, IMPORTANCE), encode(format, x)))
    assert weighted_error(x, weighted, IMPORTANCE) < weighted_error(x, plain, IMPORTANCE)


def best_error(x: np.ndarray, weights: np.ndarray, levels: Sequence[int]) -> float:
    """The least weighted sum of squared errors of scale * level, by trying a scale between all changes of a level."""
    levels = np.array(sorted(levels), np.float64)
    middles = (levels[:-1] + levels[1:]) / 2
    changes = np.unique([middle / value for middle in middles for value in x if value])
    inverses = np.concatenate([(changes[:-1] + changes[1:]) / 2, [changes[0] - 1, changes[-1] + 1]])
    codes = levels[np.searchsorted(middles, inverses[:, None] * x)]
    sum_cx, sum_cc = (codes * x * weights).sum(axis=1), (codes * codes * weights).sum(axis=1)
    return float((x * x * weights).sum() - np.max(sum_cx**2 / np.maximum(sum_cc, 1e-30)))


@pytest.mark.parametrize(("name", "levels"), [("q4_0", range(-8, 8)), ("q5_0", range(-16, 16)), ("iq4_nl", IQ4_LEVELS)])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_no_scale_is_better(name, levels, spread):
    """But for the rounding of the scale to float16, which the scale of the values makes the same for all."""
    random = np.random.default_rng(9)
    x = (random.standard_t(3, (60, 32)) * 100).astype(np.float32)
    weights = np.exp(spread * random.standard_normal(x.shape)).astype(np.float32)
    y = decode(BY_NAME[name], encode_weighted(BY_NAME[name], x, weights)).reshape(x.shape)
    ours = (weights * (x - y).astype(np.float64) ** 2).sum(axis=1)
    best = [best_error(row, weight, levels) for row, weight in zip(x.astype(np.float64), weights, strict=True)]
    slack = 2.0**-20 * (weights * x.astype(np.float64) ** 2).sum(axis=1)  # of a scale that is 2 ** -11 off, squared / 4
    assert (ours <= 1.01 * np.array(best) + slack).all()


@each(WEIGHTED)
def test_degenerate_blocks(format):
    zeros = np.zeros(256, np.float32)
    outlier = zeros.copy()
    outlier[7] = 1
    constants = (1, -1, 1e-20, -1e-30, 1e-42, 6e4)
    rows = np.array([zeros, -zeros, *(zeros + constant for constant in constants), outlier], np.float32)
    for weights in (np.ones(256), np.geomspace(1e-6, 1e4, 256)):
        y = decode(format, encode_weighted(format, rows, weights.astype(np.float32))).reshape(rows.shape)
        assert np.isfinite(y).all()
        assert (y[[0, 1]] == 0).all()
        assert (abs(y).max(axis=1) <= 2 * abs(rows).max(axis=1) + 1e-6).all()


@each(["iq3_s", "iq3_xxs", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_s", "iq1_m"])
def test_what_grid_blocks_hold_is_nearly_kept(format):
    """Where a group has the largest scale and the largest level, as what comes from a file has."""
    x = np.random.default_rng(2).standard_normal((30, 256)).astype(np.float32)
    kept = decode(format, encode(format, x)).reshape(x.shape)
    again = decode(format, encode_weighted(format, kept, np.ones(256, np.float32)))
    assert error_of(kept, again) < 0.35 * error_of(x, kept)


def nearest_by_brute_force(x: np.ndarray, points: np.ndarray, scale: float, weights: np.ndarray) -> float:
    """The least weighted error of points times a scale, for values without a sign."""
    errors = (weights[:, None] * (x[:, None] - scale * points) ** 2).sum(axis=2)
    return float(errors.min(axis=1).sum())


def test_points_are_nearly_the_best():
    """With the scales that were chosen, no choice among all points is much better."""
    from lcpu.kernels.formats.grids import grid_codes

    format, x = BY_NAME["iq3_s"], matrices()["normal"][:4, :256]
    weights = np.broadcast_to(IMPORTANCE[:256], x.shape)
    raw = encode_weighted(format, x, weights).reshape(len(x), -1)
    y = decode(format, raw.ravel()).reshape(x.shape)
    points = 2.0 * grid_codes("IQ3_S") + 1
    ours = best = 0.0
    for row, weight, block, kept in zip(x, weights, raw, y, strict=True):
        for group in range(8):
            values = slice(32 * group, 32 * group + 32)
            code = block[106 + group // 2] >> 4 * (group % 2) & 15
            scale = float(block[:2].view(np.float16)[0]) * (2 * int(code) + 1)
            by_four: Callable[[np.ndarray], np.ndarray] = lambda part: part[values].reshape(-1, 4)  # noqa: B023, E731
            best += nearest_by_brute_force(abs(by_four(row)), points, scale, by_four(weight))
            ours += float((weight[values] * (row[values] - kept[values]) ** 2).sum())
    assert best * 0.999 <= ours <= 1.02 * best


def test_values_that_are_cut_off_count_more():
    """The same importance for all: a block gets another scale than for its squared errors alone, and larger values."""
    x = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
    alone, weighed = (decode(BY_NAME["q4_0"], encode_weighted(BY_NAME["q4_0"], x, weights)).reshape(x.shape)
                      for weights in (np.ones(32), error_weights(x, np.ones(32), 32)))
    assert weighted_error(x, alone, np.ones(32)) < weighted_error(x, weighed, np.ones(32))
    along = [float((x * y).sum() / (x * x).sum()) for y in (alone, weighed)]
    assert along[0] < along[1] < 1.005


@pytest.mark.parametrize("columns", [64, 288, 1024, PIECE + 256])
def test_every_row_has_the_same_weights(columns):
    """Rows begin anywhere in a piece of work."""
    random = np.random.default_rng(columns)
    x = random.standard_normal((18 * 1024 // columns + 3, columns), np.float32)
    weights = random.random(columns).astype(np.float32)
    format, values = BY_NAME["q4_0"], x.size
    out, refused = np.zeros(values // 32 * 18, np.uint8), np.zeros(1, np.int64)
    first = columns * (values // columns // 2)  # in two steps, as `lcpu quantize` does it slice by slice
    for start, stop in ((0, first), (first, values)):
        run(convert_weighted, threads=2, values=stop - start, source=x.ravel()[start:], source_bytes=4 * PIECE,
            source_block=1, source_scale=1.0, decode=BY_NAME["f32"].decode.address, target=out[start // 32 * 18 :],
            target_bytes=PIECE // 32 * 18, target_block=32, encode=format.weighted_encoder.address,
            importance=weights, first=start, columns=columns, limit=65519.0, refused=refused,
            scratch=np.zeros(2 * SCRATCH_BYTES, np.uint8))
    by_block = out.reshape(-1, 18) == encode_weighted(format, x, error_weights(x, weights, 32)).reshape(-1, 18)
    assert by_block.all(axis=1).mean() > 0.99, "but for near ties of two scales"
    assert refused[0] == 0
