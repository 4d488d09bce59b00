"""Float32 to blocks and back: bit for bit what the gguf package does; of searched scales, as close as llama.cpp."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcpu.kernels.formats import FORMATS, Format
from lcpu.kernels.jit import address_of
from lcpu.kernels.quantizing import PIECE, SCRATCH_BYTES, compare, convert, survey

from . import reference
from .running import SCALES_AT, UNDER_TEST, few, run, same_bits

BY_NAME = {format.name: format for format in FORMATS.values()}
EXACT = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "tq1_0", "tq2_0"]
SEARCHED = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"]
# Errors of single values, relative to the spread of a row.
FARTHEST = {"q2_k": 0.5, "q3_k": 0.25, "iq4_nl": 0.16, "iq4_xs": 0.16, "mxfp4": 0.25}
LARGEST_FLOAT = float(np.finfo(np.float32).max)

# Root mean square errors of llama.cpp (ggml_quantize_chunk of libggml-base 0.25.3, as in llama-cpp-python 0.3.36) on
# the matrices of `matrices`.
LLAMA_CPP_ERRORS = {
    "q2_k": {"normal": 0.00588855, "heavy tails": 0.011784, "shifted": 0.00588748, "groups": 0.00867935},
    "q3_k": {"normal": 0.00300305, "heavy tails": 0.006354, "shifted": 0.00445026, "groups": 0.00437086},
    "q4_k": {"normal": 0.00142152, "heavy tails": 0.00304126, "shifted": 0.00141413, "groups": 0.00204311},
    "q5_k": {"normal": 0.000719444, "heavy tails": 0.00153337, "shifted": 0.000711434, "groups": 0.0010339},
    "q6_k": {"normal": 0.000352691, "heavy tails": 0.000820548, "shifted": 0.000535692, "groups": 0.000524986},
    "iq4_nl": {"normal": 0.00151219, "heavy tails": 0.00328289, "shifted": 0.00242578, "groups": 0.00218267},
    "mxfp4": {"normal": 0.00227356, "heavy tails": 0.0045701, "shifted": 0.00394443, "groups": 0.00334508},
    "nvfp4": {"normal": 0.00204974, "heavy tails": 0.00310895, "shifted": 0.00358801, "groups": 0.00295226},
    "q1_0": {"normal": 0.0119251, "heavy tails": 0.0245492, "shifted": 0.0179188, "groups": 0.023933},
    "q2_0": {"normal": 0.0143256, "heavy tails": 0.023219, "shifted": 0.0245601, "groups": 0.019278},
    "iq4_xs": {"normal": 0.00152428, "heavy tails": 0.00332013, "shifted": 0.00244723, "groups": 0.00222188},
}


def encode(format: Format, x: np.ndarray) -> np.ndarray:
    """float32 [...] as blocks, uint8 [bytes]."""
    x = np.ascontiguousarray(x, np.float32)
    out = np.full(x.size // format.block * format.block_bytes + 1, 0xA5, np.uint8)
    format.encode.call(address_of(x), address_of(out), x.size // format.block)
    assert out[-1] == 0xA5  # nothing after the last block is written
    return out[:-1]


def decode(format: Format, raw: np.ndarray) -> np.ndarray:
    """Blocks as float32 [values]."""
    count = raw.size // format.block_bytes
    out = np.full(count * format.block + 1, np.nan, np.float32)
    format.decode.call(address_of(raw), address_of(out), count)
    assert np.isnan(out[-1])
    return out[:-1]


def by_gguf(format: Format, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.quantize(x, gguf.GGMLQuantizationType(format.type_id)).view(np.uint8).ravel()


def back_by_gguf(format: Format, raw: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return reference.dequantize(format, raw.reshape(1, -1)).ravel()


def exact(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("format", [BY_NAME[name] for name in names], ids=names)


# ---- to blocks ----


@exact(EXACT)
@few
@given(seed=st.integers(0, 2**32 - 1), magnitude=st.floats(-30, 3), blocks=st.integers(1, 5))
def test_as_gguf_does(format, seed, magnitude, blocks):
    random = np.random.default_rng(seed)
    x = random.standard_normal((3, 256 * blocks), dtype=np.float32) * np.float32(10**magnitude)
    assert same_bits(encode(format, x), by_gguf(format, x))


@exact(EXACT)
@few
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([1.0, 0.5, 2.0**-20]))
def test_ties(format, seed, step):
    """Values on a grid: extremes that occur twice, with both signs, and quotients that lie between two codes."""
    random = np.random.default_rng(seed)
    x = (random.integers(-8, 9, (40, 256)) * step).astype(np.float32)
    assert same_bits(encode(format, x), by_gguf(format, x))


@exact(EXACT)
def test_special_blocks(format):
    zeros, ones = np.zeros(256), np.ones(256)
    sparse = zeros.copy()
    sparse[[31, 100, 255]] = 3, -7, 1e-30
    tiny = np.full(256, 1e-40)  # subnormal beside larger ones
    tiny[::32] = 1e-30
    rows = [zeros, -zeros, ones, -ones, sparse, -sparse, tiny, 1e9 * sparse, 65504 * ones, np.linspace(-1, 1, 256),
            np.linspace(0, 1, 256), -np.linspace(0, 1, 256), np.linspace(5, 6, 256)]
    x = np.array(rows, np.float32)
    assert same_bits(encode(format, x), by_gguf(format, x))


@exact(["q8_0", "q4_0", "q5_0", "tq1_0", "tq2_0"])
def test_the_first_zero_gives_the_sign(format):
    x = np.zeros((4, 256), np.float32)
    x[1, ::32], x[2, 1::2], x[3] = -0.0, -0.0, -0.0
    assert same_bits(encode(format, x), by_gguf(format, x))


def test_every_bfloat16_and_what_lies_between():
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    for rest in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = (bits | np.uint32(rest)).view(np.float32)
        assert same_bits(encode(BY_NAME["bf16"], x), by_gguf(BY_NAME["bf16"], x))


def test_every_half_and_what_lies_between():
    with np.errstate(all="ignore"):
        halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
        x = np.concatenate([halves, np.nextafter(halves, np.float32(np.inf)), (halves[:-1] + halves[1:]) / 2])
    x = x[~np.isnan(x)]
    assert same_bits(encode(BY_NAME["f16"], x), by_gguf(BY_NAME["f16"], x))
    nan = encode(BY_NAME["f16"], np.array([np.nan, -np.nan], np.float32)).view(np.float16)
    assert np.isnan(nan).all()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 172])
@exact(["f32", "f16", "bf16"])
def test_any_number_of_floats(format, count):
    x = np.random.default_rng(count).standard_normal(count, dtype=np.float32)
    raw = encode(format, x)
    assert same_bits(raw, by_gguf(format, x))
    assert same_bits(decode(format, raw), back_by_gguf(format, raw))


# ---- a search, with no single right answer ----


def matrices() -> dict[str, np.ndarray]:
    """From a generator that NumPy keeps frozen."""
    random = np.random.RandomState(7)
    normal = random.standard_normal((64, 1024)) * 0.02
    heavy = random.standard_t(3, (64, 1024)) * 0.02
    groups = random.standard_normal((64, 32, 32)) * np.exp(random.standard_normal((64, 32, 1))) * 0.01
    cases = {"normal": normal, "heavy tails": heavy, "shifted": normal + 0.03, "groups": groups.reshape(64, 1024)}
    return {name: x.astype(np.float32) for name, x in cases.items()}


def error_of(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean((x.ravel() - y.ravel()).astype(np.float64) ** 2)))


@pytest.mark.parametrize("case", matrices())
@exact(list(LLAMA_CPP_ERRORS))
def test_error_is_not_above_llama_cpp_s(format, case):
    x = matrices()[case]
    error = error_of(x, decode(format, encode(format, x)))
    assert error / LLAMA_CPP_ERRORS[format.name][case] < 1.02


@exact(SEARCHED)
@few
@given(seed=st.integers(0, 2**32 - 1), magnitude=st.floats(-2, 4), shift=st.sampled_from([-3, -1, 0, 1, 3]),
       kind=st.sampled_from(["normal", "constant groups", "outlier", "few values", "mostly zero"]))
def test_no_value_is_far_off(format, seed, magnitude, shift, kind):
    random = np.random.default_rng(seed)
    x = random.standard_normal((20, 256))
    if kind == "constant groups":
        x = np.repeat(x[:, :8], 32, axis=1)
    elif kind == "outlier":
        x[:, random.integers(256)] *= 100
    elif kind == "few values":
        x = np.round(x)
    elif kind == "mostly zero":
        x *= random.random(x.shape) < 0.02
    x = np.clip((x + shift) * 10**magnitude, -6e4, 6e4).astype(np.float32)  # larger values are refused before
    y = decode(format, encode(format, x)).reshape(x.shape)
    spread = np.maximum(x.max(axis=1), 0) - np.minimum(x.min(axis=1), 0)
    resolution = 2e-4  # of float16 scales, times the largest codes
    assert (abs(x - y).max(axis=1) <= FARTHEST.get(format.name, 0.1) * spread + resolution).all()


@exact(SEARCHED)
def test_degenerate_blocks(format):
    zeros = np.zeros(256, np.float32)
    rows = np.array([zeros, -zeros, zeros + 1, zeros - 1, zeros + 1e-20, zeros - 1e-30, zeros + 1e-42, zeros + 6e4])
    y = decode(format, encode(format, rows)).reshape(rows.shape)
    assert np.isfinite(y).all()
    error = 0.25 if format.name == "mxfp4" else 0.02  # its scales are powers of two
    assert (abs(rows - y) <= error * abs(rows) + 1e-7).all()


@pytest.mark.parametrize(("name", "levels"), [("q2_0", [-1, 0, 1, 2]), ("q2_0", [-1, 0, 1]), ("q1_0", [-1, 1]),
                                              ("mxfp4", [-6, -1.5, 0, 0.5, 4]), ("nvfp4", [-6, -1.5, 0, 0.5, 4])])
def test_what_blocks_hold_is_kept(name, levels):
    format = BY_NAME[name]
    x = np.random.default_rng(4).choice(np.array(levels, np.float32), 40 * format.block) * np.float32(0.125)
    assert (decode(format, encode(format, x)) == x).all()


@exact(["nvfp4", "q1_0", "q2_0"])
def test_zeros(format):
    x = np.zeros(256, np.float32)
    assert (decode(format, encode(format, x)) == 0).all()


def test_nvfp4_ends_at_its_largest_number():
    x = np.array([3000, -1e30, 2688, 0.0] * 16, np.float32)
    assert (decode(BY_NAME["nvfp4"], encode(BY_NAME["nvfp4"], x)) == np.clip(x, -2688, 2688)).all()


# ---- back to float32 ----


@pytest.mark.parametrize("format", [f for f in UNDER_TEST if f.name != "i2_s"], ids=lambda f: f.name)
@few
@given(seed=st.integers(0, 2**32 - 1), blocks=st.integers(1, 40))
def test_back_as_gguf_does(format, seed, blocks):
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, (blocks, format.block_bytes), dtype=np.uint8)
    for at in SCALES_AT.get(format.name, []):
        scales = random.integers(0, 1 << 16, blocks).astype(np.uint16)
        scales[scales & 0x7C00 == 0x7C00] = 0x3C00  # finite
        raw[:, at : at + 2] = scales[:, None].view(np.uint8)
    ours, theirs = decode(format, raw.ravel()), back_by_gguf(format, raw.ravel())
    nan = np.isnan(theirs)
    assert (np.isnan(ours) == nan).all()
    assert same_bits(ours[~nan], theirs[~nan])


# ---- I2_S ----


def i2_s_codes(x: np.ndarray) -> np.ndarray:
    """The bytes of float32 values: group by group, value j of 128 in byte j % 32 at bit 6 - 2 * (j // 32)."""
    codes = np.where(abs(x.astype(np.float64)) < 1e-6, 1, np.where(x > 0, 2, 0)).reshape(-1, 128)
    out = np.zeros((len(codes), 32), np.uint8)
    for j in range(128):
        out[:, j % 32] |= (codes[:, j] << (6 - 2 * (j // 32))).astype(np.uint8)
    return out.ravel()


def test_i2_s_is_by_sign():
    random = np.random.default_rng(3)
    edge = np.float32(1e-6)  # a little less than 1e-6
    pool = np.array([0.0, -0.0, 1.5, -1.5, edge, -edge, np.nextafter(edge, np.float32(1)), 9e-7, -2e-6, 1e30, 1e-44])
    x = random.choice(pool, (6, 384)).astype(np.float32)
    assert same_bits(encode(BY_NAME["i2_s"], x), i2_s_codes(x))


def test_i2_s_back():
    raw = np.arange(256, dtype=np.uint8)  # every byte, in eight groups
    codes = (raw.reshape(8, 1, 32) >> np.array([6, 4, 2, 0], np.uint8)[:, None]) & 3
    wanted = np.array([-1, 0, 1, 0], np.float32)[codes].ravel()
    assert (decode(BY_NAME["i2_s"], raw) == wanted).all()


# ---- tensors, on all threads ----


def scratch(threads: int) -> np.ndarray:
    return np.full(threads * SCRATCH_BYTES, 0xFF, np.uint8)


def source(format: Format, raw: np.ndarray, values: int, threads: int, scale: float = 1.0) -> dict[str, object]:
    return {"values": values, "source": raw, "source_bytes": PIECE // format.block * format.block_bytes,
            "source_block": format.block, "source_scale": scale, "decode": format.decode.address,
            "scratch": scratch(threads)}


def converted(old: Format, new: Format, raw: np.ndarray, values: int, *, threads: int = 1, unit: float = 0.0,
              limit: float = LARGEST_FLOAT, scale: float = 1.0) -> tuple[np.ndarray, int]:
    out, refused = np.zeros(values // new.block * new.block_bytes, np.uint8), np.zeros(1, np.int64)
    run(convert, threads=threads, **source(old, raw, values, threads, scale), target=out,
        target_bytes=PIECE // new.block * new.block_bytes, target_block=new.block, encode=new.encode.address,
        unit=unit, limit=limit, refused=refused)
    return out, int(refused[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("values", [256, PIECE - 256, PIECE, 3 * PIECE + 512])
def test_pieces_of_a_tensor(values, threads):
    x = np.random.default_rng(values).standard_normal(values, dtype=np.float32)
    f16, q4_0, q6_k = BY_NAME["f16"], BY_NAME["q4_0"], BY_NAME["q6_k"]
    halves = encode(f16, x)
    for new in (q4_0, q6_k):
        out, refused = converted(f16, new, halves, values, threads=threads)
        assert same_bits(out, encode(new, decode(f16, halves)))
        assert refused == 0


def test_a_piece_that_is_no_whole_vector():
    x = np.random.default_rng(0).standard_normal(PIECE + 7, dtype=np.float32)
    out, refused = converted(BY_NAME["f32"], BY_NAME["f16"], x, len(x))
    assert same_bits(out, x.astype(np.float16).view(np.uint8))
    assert refused == 0  # what was in the memory of threads before does not count


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 70000.0])
@pytest.mark.parametrize("at", [0, 4321, PIECE + 2])
def test_values_that_are_refused(value, at):
    x = np.zeros(2 * PIECE, np.float32)
    x[at] = value
    assert converted(BY_NAME["f32"], BY_NAME["f16"], x, len(x), limit=65519.0)[1] == 1
    assert converted(BY_NAME["f32"], BY_NAME["bf16"], x, len(x))[1] == (value != 70000)
    x[at] = 65504
    assert converted(BY_NAME["f32"], BY_NAME["f16"], x, len(x), limit=65519.0)[1] == 0


def test_scale_and_unit():
    values = PIECE + 128
    raw = np.random.default_rng(5).integers(0, 256, values // 4, dtype=np.uint8)
    out, _ = converted(BY_NAME["i2_s"], BY_NAME["f32"], raw, values, scale=0.75)
    assert same_bits(out.view(np.float32), decode(BY_NAME["i2_s"], raw) * np.float32(0.75))
    x = np.linspace(-1, 1, values, dtype=np.float32)
    out, _ = converted(BY_NAME["f32"], BY_NAME["f32"], x, values, unit=0.3)
    wanted = np.clip(np.rint(x / np.float32(0.3)), -1, 1) * np.float32(0.3)
    assert (out.view(np.float32) == wanted).all()


def test_survey():
    x = np.random.default_rng(6).standard_normal(2 * PIECE + 5, dtype=np.float32)
    x[:100] = 1e-7
    highest, lowest, sums = np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros((3, 2), np.float32)
    run(survey, threads=2, **source(BY_NAME["f32"], x, len(x), 2), zero=1e-6, highest=highest, lowest=lowest, sums=sums)
    pieces = np.split(abs(x), [PIECE, 2 * PIECE])
    assert (highest == [piece.max() for piece in pieces]).all()
    assert (lowest == [piece[piece >= 1e-6].min() for piece in pieces]).all()
    exact_sums = [piece.sum(dtype=np.float64) for piece in pieces]
    np.testing.assert_allclose(sums.sum(axis=1, dtype=np.float64), exact_sums, rtol=1e-13)


def test_compare():
    x = np.random.default_rng(8).standard_normal(2 * PIECE + 3, dtype=np.float32)
    halves = encode(BY_NAME["f16"], x)
    errors, squares = np.zeros(3, np.float32), np.zeros(3, np.float32)
    run(compare, threads=2, **source(BY_NAME["f32"], x, len(x), 2), target=halves, target_bytes=2 * PIECE,
        target_block=1, target_scale=3.0, decode_target=BY_NAME["f16"].decode.address, errors=errors, squares=squares)
    wanted = (x.astype(np.float64) - 3 * halves.view(np.float16).astype(np.float32)) ** 2
    np.testing.assert_allclose(errors, [piece.sum() for piece in np.split(wanted, [PIECE, 2 * PIECE])], rtol=1e-4)
    np.testing.assert_allclose(squares.sum(), (x.astype(np.float64) ** 2).sum(), rtol=1e-4)
