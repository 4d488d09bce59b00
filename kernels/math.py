"""Vector functions, written with SIMD operations."""

from numba import float32, int32

from .jit import device
from .simd import bits_as_f32, fma, maximum, minimum, rint, splat_f32, splat_i32, to_i32


@device
def exp(x):
    """e ** x for a float32 vector, within 2 units in the last place from -87.3 to 88.3; exactly 1 at 0.

    Below, results that float32 holds only as subnormals are 0; above, the last ones that it holds are infinite.

    Cephes' expf: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e ** r, and n put into the exponent's bits.
    """
    x = minimum(maximum(x, splat_f32(float32(-88.0))), splat_f32(float32(89.0)))
    n = rint(x * splat_f32(float32(1.44269504)))
    r = fma(n, splat_f32(float32(-0.693359375)), x)
    r = fma(n, splat_f32(float32(2.12194440e-4)), r)
    p = splat_f32(float32(1.9875691500e-4))
    p = fma(p, r, splat_f32(float32(1.3981999507e-3)))
    p = fma(p, r, splat_f32(float32(8.3334519073e-3)))
    p = fma(p, r, splat_f32(float32(4.1665795894e-2)))
    p = fma(p, r, splat_f32(float32(1.6666665459e-1)))
    p = fma(p, r, splat_f32(float32(5.0000001201e-1)))
    p = fma(p, r * r, r + splat_f32(float32(1.0)))
    return p * bits_as_f32((to_i32(n) + splat_i32(int32(127))) << splat_i32(int32(23)))
