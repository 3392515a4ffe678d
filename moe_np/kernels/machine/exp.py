"""eˣ for compiled loops: three polynomials, each with its own bits.

Numba's own `exp` is one call per number, so a loop around it gets no vector instructions. All three
functions compute eˣ = 2ⁿ eʳ with n = x / ln 2 rounded and r = x − n ln 2, |r| ≤ ½ ln 2, where eʳ is
a Taylor series and 2ⁿ is written into the bits of the exponent.

    function            in                      range  precision          a·b + c
    exp                 activations, top_k      all x  float32, float64   one rounding (fused)
    exp_negative        jacobs1991, nowlan1991  x ≤ 0  float64, to 2e-15  two roundings
    exp_negative_fused  patch_cnn               x ≤ 0  float64, to 1e-15  one rounding (fused)

They stay apart because their bits differ, and stored results depend on the bits. A training run of
1991 ends at a stop rule after hundreds of epochs, so one other last bit can change its length:
`exp_negative` has the same bits on every processor, whether or not the processor fuses a·b + c. Its
terms stand in pairs (Estrin's scheme), because a chain of unfused operations would take longer. In
the runs of Chen et al. 2022 the last bits decide which expert gets a sample at a near tie:
`exp_negative_fused` keeps the bits with which the replay repeats the recorded runs. An activation
needs both signs, float32 too, and no last bit: `exp` is the shortest.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

from moe_np.kernels.machine.jit_options import INLINE, INNER, PART

FUSED = {"contract"}  # a·b + c may be fused; infinities and NaN keep their meaning

SERIES32 = tuple(np.float32(1 / f) for f in (1, 1, 2, 6, 24, 120, 720))
SERIES64 = tuple(
    1 / f for f in (1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600)
)


@njit(**INLINE, fastmath=FUSED)
def horner(coefficients, x):
    """Σ c_i xⁱ."""
    total = coefficients[-1]
    for i in range(len(coefficients) - 2, -1, -1):
        total = total * x + coefficients[i]
    return total


@njit(**INLINE, fastmath=FUSED)
def _exp32(x):
    x = min(max(x, np.float32(-87)), np.float32(88))
    big = np.float32(12582912)  # 1.5 · 2²³: adding it rounds to a whole number
    shifted = x * np.float32(1.44269504) + big
    n = shifted - big
    r = (x - n * np.float32(0.693145752)) - n * np.float32(1.42860677e-06)
    exponent = np.float32(shifted).view(np.int32) + np.int32(127)
    return horner(SERIES32, r) * np.int32(exponent << np.int32(23)).view(np.float32)


@njit(**INLINE, fastmath=FUSED)
def _exp64(x):
    x = min(max(x, -708.0), 709.0)
    big = 6755399441055744.0  # 1.5 · 2⁵²
    shifted = x * 1.4426950408889634 + big
    n = shifted - big
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    exponent = np.float64(shifted).view(np.int64) + 1023
    return horner(SERIES64, r) * np.int64(exponent << 52).view(np.float64)


def exp(x: np.floating) -> np.floating:
    """eˣ in the precision of x, which is limited to [−87, 88] or, in float64, to [−708, 709]. In
    compiled loops the overload below takes its place, so that only one of the two is compiled.
    """
    return _exp32(x) if isinstance(x, np.float32) else _exp64(x)


@overload(exp, jit_options={**INLINE, "fastmath": FUSED})
def _compiled_exp(x):
    if x == types.float32:
        return lambda x: _exp32(x)
    return lambda x: _exp64(x)


@njit(**PART)
def exp_negative(x):
    """eˣ for x ≤ 0, with the same bits on every processor. NaN stays NaN."""
    big = 1.5 * 2.0**52
    x = -700.0 if x < -700.0 else x
    shifted = x * 1.4426950408889634 + big
    n = shifted - big
    r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + r) + (1 / 2 + r * (1 / 6)) * r2
    middle = (1 / 24 + r * (1 / 120)) + (1 / 720 + r * (1 / 5040)) * r2
    highest = 1 / 3628800 + r * (1 / 39916800) + r2 * (1 / 479001600)
    high = (1 / 40320 + r * (1 / 362880)) + highest * r2
    exponent = np.float64(shifted).view(np.int64) + 1023
    two_to_n = np.int64(exponent << 52).view(np.float64)
    return (low + r4 * (middle + r4 * high)) * two_to_n


@njit(**INNER, fastmath=FUSED)
def exp_negative_fused(x):
    """eˣ for x ≤ 0."""
    x = max(x, -700.0)
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800))
    p = 1 / 40320 + r * (1 / 362880 + r * (1 / 3628800 + r * p))
    p = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * p))
    p = 1.0 + r * (1.0 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * p))))
    return p * np.int64((np.int64(n) + 1023) << 52).view(np.float64)
