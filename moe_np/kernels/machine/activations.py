"""ReLU, GELU and SwiGLU on blocks of rows, and the exp and the normal distribution function that
they need.

The equations are in `moe_np.layers.experts`. Rows run from lo to hi; those of h and of gradients, a
thread's own, from 0. The backward passes of GELU and SwiGLU give h once more: that is faster than
to write it to memory and read it again.

Numba's own exp and erf are calls, one number at a time; these are short polynomials, which the
compiler turns into vector instructions, in float32 and in float64 to the last few bits. The
activations only contract a·b + c ("contract"): infinities and NaN keep their meaning.
"""

import numpy as np
from numba import njit

# erfcx(x)/t as a polynomial in 2t − 1, t = 2/(2 + x), x >= 0: interpolated at Chebyshev's points,
# errors 1e-8 and 5e-15
ERFC32 = tuple(
    np.float32(c)
    for c in (
        *(
            0.510791353,
            0.343580313,
            0.139735946,
            0.0182217491,
            -0.0107533109,
            -0.00324373307,
            0.00153384704,
        ),
        *(0.000431040022, -0.000304719086, -3.67643616e-05, 4.42884147e-05),
    )
)
ERFC64 = (
    *(
        0.5107913526210115,
        0.34358034220690653,
        0.13973604627802544,
        0.018221115753306545,
        -0.010755330944543401,
    ),
    *(
        -0.0032395925298231458,
        0.0015453060235237157,
        0.00041864797455347011,
        -0.00033153666721072965,
    ),
    *(
        -1.7185277049606434e-05,
        7.2234701530060388e-05,
        -1.7076546276097942e-05,
        -1.0844830478580392e-05,
    ),
    *(
        8.0668689493588401e-06,
        -5.732747033044426e-07,
        -1.8346763716451885e-06,
        1.0236717594975732e-06,
    ),
    *(
        1.5275601530786366e-08,
        -3.1904880762943956e-07,
        1.5002373169874056e-07,
        3.1237899528464268e-08,
    ),
    *(
        -5.157901542661585e-08,
        8.3313983029885356e-09,
        6.6185477376167176e-09,
        -2.2124653785049848e-09,
    ),
)
EXP32 = tuple(np.float32(1 / f) for f in (1, 1, 2, 6, 24, 120, 720))
EXP64 = tuple(
    1 / f for f in (1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600)
)

CONTRACT = {"contract"}


@njit(
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath=CONTRACT,
)
def _horner(coefficients, x):
    """Σ c_i xⁱ."""
    total = coefficients[-1]
    for i in range(len(coefficients) - 2, -1, -1):
        total = total * x + coefficients[i]
    return total


@njit(
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath=CONTRACT,
)
def _exp32(x):
    x = min(max(x, np.float32(-87)), np.float32(88))
    shifted = x * np.float32(1.44269504) + np.float32(
        12582912
    )  # 1.5 · 2²³: leaves the nearest whole number
    n = shifted - np.float32(12582912)
    r = (x - n * np.float32(0.693145752)) - n * np.float32(1.42860677e-06)
    return _horner(EXP32, r) * np.int32(
        (np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)
    ).view(np.float32)


@njit(
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath=CONTRACT,
)
def _exp64(x):
    x = min(max(x, -708.0), 709.0)
    shifted = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 · 2⁵²
    n = shifted - 6755399441055744.0
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    return _horner(EXP64, r) * np.int64((np.float64(shifted).view(np.int64) + 1023) << 52).view(
        np.float64
    )


@njit(
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath=CONTRACT,
)
def exp(x):
    """eˣ = 2ⁿ eʳ, |r| <= ½ ln 2, in the precision of x. Beyond the range of numbers it stays at the
    end of it.
    """
    if isinstance(x, np.float32):
        return _exp32(x)
    return _exp64(x)


@njit(
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath=CONTRACT,
)
def _tail(x, density):
    """½ erfc(|x|/√2) for density = exp(−x²/2)."""
    if isinstance(x, np.float32):
        t = np.float32(2) / (np.float32(2) + abs(x) * np.float32(0.70710678))
        return np.float32(0.5) * t * density * _horner(ERFC32, t + t - np.float32(1))
    t = 2.0 / (2.0 + abs(x) * 0.7071067811865476)
    u = t + t - 1.0
    return 0.5 * t * density * (_horner(ERFC64[::2], u * u) + u * _horner(ERFC64[1::2], u * u))


@njit(cache=True, error_model="numpy", fastmath=CONTRACT)
def relu_forward(lo, hi, z, b):
    """z becomes h = max(z + b, 0): the backward pass needs no more of z."""
    zero = z.dtype.type(0)
    for i in range(lo, hi):
        for j in range(z.shape[1]):
            v = z[i, j] + b[j]
            z[i, j] = zero if v < zero else v


@njit(cache=True, error_model="numpy", fastmath=CONTRACT)
def relu_backward(lo, hi, dh, h, db):
    """dh becomes dz; db = Σ dz."""
    db[:] = 0
    for i in range(lo, hi):
        for j in range(h.shape[1]):
            v = dh[i - lo, j] if h[i, j] > 0 else h[i, j]
            dh[i - lo, j] = v
            db[j] += v


@njit(cache=True, error_model="numpy", fastmath=CONTRACT)
def gelu_forward(lo, hi, z, b, h):
    """z += b, h = z Φ(z)."""
    one = z.dtype.type(1)
    half = z.dtype.type(0.5)
    for i in range(lo, hi):
        for j in range(z.shape[1]):
            v = z[i, j] + b[j]
            z[i, j] = v
            tail = _tail(v, exp(-half * v * v))
            h[i - lo, j] = v * (one - tail if v > 0 else tail)


@njit(cache=True, error_model="numpy", fastmath=CONTRACT)
def gelu_backward(lo, hi, dh, z, h, db):
    """dh becomes dz = dh (Φ(z) + z φ(z)); h = z Φ(z), db = Σ dz."""
    db[:] = 0
    one, half, scale = z.dtype.type(1), z.dtype.type(0.5), z.dtype.type(0.3989422804014327)
    for i in range(lo, hi):
        for j in range(z.shape[1]):
            v = z[i, j]
            density = exp(-half * v * v)
            tail = _tail(v, density)
            phi = one - tail if v > 0 else tail
            h[i - lo, j] = v * phi
            v = dh[i - lo, j] * (phi + v * (scale * density))
            dh[i - lo, j] = v
            db[j] += v


@njit(cache=True, error_model="numpy", fastmath=CONTRACT)
def swiglu_forward(lo, hi, a, b, h):
    """h = a σ(a) b."""
    one = a.dtype.type(1)
    for i in range(lo, hi):
        for j in range(a.shape[1]):
            v = a[i, j]
            h[i - lo, j] = v / (one + exp(-v)) * b[i, j]


@njit(cache=True, error_model="numpy", fastmath=CONTRACT)
def swiglu_backward(lo, hi, dh, a, b, h, db):
    """dh becomes da = dh b σ(a) (1 + a (1 − σ(a))); h = a σ(a) b, db = dh a σ(a)."""
    one = a.dtype.type(1)
    for i in range(lo, hi):
        for j in range(a.shape[1]):
            v, d = a[i, j], dh[i - lo, j]
            s = one / (one + exp(-v))
            dh[i - lo, j] = d * b[i, j] * (s * (one + v * (one - s)))
            h[i - lo, j] = v * s * b[i, j]
            db[i - lo, j] = d * v * s
