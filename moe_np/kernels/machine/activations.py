"""ReLU, GELU and SwiGLU on blocks of rows, compiled; the equations are in `moe_np.layers.experts`.

Rows run from lo to hi in the arrays of the layer, and from 0 in the thread's own (h and the
gradients). The backward passes of GELU and SwiGLU compute h again, which takes less time than to
write it to memory and to read it back. Sums are fused (a·b + c with one rounding) and nothing else:
infinities and NaN keep their meaning.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

from moe_np.kernels.machine.exp import FUSED, exp, horner
from moe_np.kernels.machine.jit_options import INLINE, INNER

# erfc(x) exp(x²) / t as a polynomial in 2t − 1 with t = 2/(2 + x), x >= 0, interpolated at
# Chebyshev's points; largest relative errors 1e-8 and 5e-15
# fmt: off
ERFC32 = tuple(np.float32(c) for c in (
    0.510791353, 0.343580313, 0.139735946, 0.0182217491, -0.0107533109, -0.00324373307,
    0.00153384704, 0.000431040022, -0.000304719086, -3.67643616e-05, 4.42884147e-05,
))
ERFC64 = (
    0.5107913526210115, 0.34358034220690653, 0.13973604627802544, 0.018221115753306545,
    -0.010755330944543401, -0.0032395925298231458, 0.0015453060235237157, 0.00041864797455347011,
    -0.00033153666721072965, -1.7185277049606434e-05, 7.2234701530060388e-05,
    -1.7076546276097942e-05, -1.0844830478580392e-05, 8.0668689493588401e-06,
    -5.732747033044426e-07, -1.8346763716451885e-06, 1.0236717594975732e-06,
    1.5275601530786366e-08, -3.1904880762943956e-07, 1.5002373169874056e-07,
    3.1237899528464268e-08, -5.157901542661585e-08, 8.3313983029885356e-09,
    6.6185477376167176e-09, -2.2124653785049848e-09,
)
# fmt: on

ACTIVATION = {**INNER, "fastmath": FUSED}


@njit(**INLINE, fastmath=FUSED)
def _tail32(x, density):
    t = np.float32(2) / (np.float32(2) + abs(x) * np.float32(0.70710678))
    return np.float32(0.5) * t * density * horner(ERFC32, t + t - np.float32(1))


@njit(**INLINE, fastmath=FUSED)
def _tail64(x, density):
    t = 2.0 / (2.0 + abs(x) * 0.7071067811865476)
    u = t + t - 1.0
    even = horner(ERFC64[::2], u * u)
    odd = horner(ERFC64[1::2], u * u)
    return 0.5 * t * density * (even + u * odd)


def _tail(x, density):
    """½ erfc(|x|/√2), the normal distribution's tail beyond |x|, for density = exp(−x²/2)."""
    return (_tail32 if isinstance(x, np.float32) else _tail64)(x, density)


@overload(_tail, jit_options={**INLINE, "fastmath": FUSED})
def _compiled_tail(x, density):
    if x == types.float32:
        return lambda x, density: _tail32(x, density)
    return lambda x, density: _tail64(x, density)


@njit(**ACTIVATION)
def relu_forward(lo, hi, z, b):
    """z becomes h = max(z + b, 0): the backward pass needs only the signs of z."""
    zero = z.dtype.type(0)
    for i in range(lo, hi):
        for j in range(z.shape[1]):
            v = z[i, j] + b[j]
            z[i, j] = zero if v < zero else v


@njit(**ACTIVATION)
def relu_backward(lo, hi, dh, h, db):
    """dh becomes dz; db = Σ dz."""
    db[:] = 0
    for i in range(lo, hi):
        for j in range(h.shape[1]):
            v = dh[i - lo, j] if h[i, j] > 0 else h[i, j]
            dh[i - lo, j] = v
            db[j] += v


@njit(**ACTIVATION)
def gelu_forward(lo, hi, z, b, h):
    """z += b, h = z Φ(z)."""
    unit = z.dtype.type(1)
    half = z.dtype.type(0.5)
    for i in range(lo, hi):
        for j in range(z.shape[1]):
            v = z[i, j] + b[j]
            z[i, j] = v
            tail = _tail(v, exp(-half * v * v))
            h[i - lo, j] = v * (unit - tail if v > 0 else tail)


@njit(**ACTIVATION)
def gelu_backward(lo, hi, dh, z, h, db):
    """dh becomes dz = dh (Φ(z) + z φ(z)); h = z Φ(z), db = Σ dz."""
    db[:] = 0
    unit = z.dtype.type(1)
    half = z.dtype.type(0.5)
    root = z.dtype.type(0.3989422804014327)  # 1/√(2π)
    for i in range(lo, hi):
        for j in range(z.shape[1]):
            v = z[i, j]
            density = exp(-half * v * v)
            tail = _tail(v, density)
            phi = unit - tail if v > 0 else tail
            h[i - lo, j] = v * phi
            v = dh[i - lo, j] * (phi + v * (root * density))
            dh[i - lo, j] = v
            db[j] += v


@njit(**ACTIVATION)
def swiglu_forward(lo, hi, a, b, h):
    """h = a σ(a) b."""
    unit = a.dtype.type(1)
    for i in range(lo, hi):
        for j in range(a.shape[1]):
            v = a[i, j]
            h[i - lo, j] = v / (unit + exp(-v)) * b[i, j]


@njit(**ACTIVATION)
def swiglu_backward(lo, hi, dh, a, b, h, db):
    """dh becomes da = dh b σ(a) (1 + a (1 − σ(a))); h = a σ(a) b, db = dh a σ(a)."""
    unit = a.dtype.type(1)
    for i in range(lo, hi):
        for j in range(a.shape[1]):
            v = a[i, j]
            d = dh[i - lo, j]
            s = unit / (unit + exp(-v))
            dh[i - lo, j] = d * b[i, j] * (s * (unit + v * (unit - s)))
            h[i - lo, j] = v * s * b[i, j]
            db[i - lo, j] = d * v * s
