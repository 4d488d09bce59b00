"""Vector functions, written with SIMD operations."""

from numba import float32, int32

from .jit import device
from .simd import bits_as_f32, fma, maximum, minimum, rint, splat_f32, splat_i32, to_i32


@device
def exp(x):
    """e ** x for a float32 vector, within 2 units in the last place from -87.3 to 88.3; exactly 1 at 0.

    Below that range the result is 0, where float32 would be subnormal; above it, the result is infinite.

    x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e ** r - 1, and n put into the exponent's bits. The constants
    are those of Arm's optimized routines (expf of AdvSIMD).
    """
    x = minimum(maximum(x, splat_f32(float32(-88.0))), splat_f32(float32(89.0)))
    n = rint(x * splat_f32(float32(1.4426950216293335)))
    r = fma(n, splat_f32(float32(-0.693145751953125)), x)
    r = fma(n, splat_f32(float32(-1.428606765330187e-06)), r)
    square = r * r
    high = fma(splat_f32(float32(0.008247390389442444)), r, splat_f32(float32(0.04189976677298546)))
    low = fma(splat_f32(float32(0.16668395698070526)), r, splat_f32(float32(0.4999912679195404)))
    p = fma(fma(high, square, low), square, splat_f32(float32(0.9999994039535522)) * r)
    power = bits_as_f32((to_i32(n) + splat_i32(int32(127))) << splat_i32(int32(23)))
    return (p + splat_f32(float32(1.0))) * power  # not fma(power, p, power): an infinite power times p may be negative


@device
def tanh(x):
    """The hyperbolic tangent of a float32 vector: 1 - 2 / (e ** 2x + 1), exactly 0 at 0, within 1e-7 of it."""
    one = splat_f32(float32(1.0))
    return one - splat_f32(float32(2.0)) / (exp(x + x) + one)
