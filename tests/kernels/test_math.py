"""The exponential function, over all of float32's range, and the hyperbolic tangent."""

from __future__ import annotations

import numpy as np

from lcpu.kernels.jit import Kernel, hole, template
from lcpu.kernels.math import exp, tanh
from lcpu.kernels.simd import LANES, load_f32, store_f32

from .running import operation_kernel, run

operation = hole()


@template
def _map(work, thread, threads, x, out, vectors):
    for i in range(vectors):
        store_f32(out + 4 * LANES * i, operation(load_f32(x + 4 * LANES * i)))


exp_kernel = operation_kernel(_map, "exp_kernel", exp)


tanh_kernel = operation_kernel(_map, "tanh_kernel", tanh)


def mapped(kernel: Kernel, x: np.ndarray) -> np.ndarray:
    x = np.resize(x.astype(np.float32), -(-len(x) // LANES) * LANES)
    out = np.zeros_like(x)
    run(kernel, x=x, out=out, vectors=len(x) // LANES)
    return out


def kernel_exp(x: np.ndarray) -> np.ndarray:
    return mapped(exp_kernel, x)


def test_within_two_units_in_the_last_place():
    random = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-87.3, 88.3, 400_000), random.uniform(-1, 1, 100_000), 10.0 ** -np.arange(0, 40)])
    x = np.resize(x.astype(np.float32), -(-len(x) // LANES) * LANES)
    wanted = np.exp(x.astype(np.float64))
    unit = np.spacing(wanted.astype(np.float32))
    assert (abs(kernel_exp(x) - wanted) <= 2 * unit).all()


def test_exact_values():
    x = np.array([0.0, -0.0, -88.0, -88.1, -1e30, np.finfo(np.float32).min, -np.inf], np.float32)
    assert kernel_exp(x)[:7].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_large_values_become_infinite_and_nan_stays():
    out = kernel_exp(np.array([89, 1e30, np.inf, np.nan], np.float32))
    assert np.isposinf(out[:3]).all()
    assert np.isnan(out[3])


def test_never_negative_and_falling_by_rounding_only():
    out = kernel_exp(np.linspace(-89, 89, 1 << 16)).astype(np.float64)
    assert (out >= 0).all()
    finite = out[out < np.inf]
    assert (finite[1:] >= finite[:-1] * (1 - 2**-21)).all()


def test_tanh():
    x = np.concatenate([np.linspace(-20, 20, 100_000), 10.0 ** -np.arange(0, 40), [np.inf, -np.inf, 100, -100, 0]])
    out = mapped(tanh_kernel, x)[: len(x)]
    assert abs(out - np.tanh(x.astype(np.float32).astype(np.float64))).max() < 2e-7
    assert out[-5:].tolist() == [1, -1, 1, -1, 0]
    assert np.isnan(mapped(tanh_kernel, np.array([np.nan]))[0])
