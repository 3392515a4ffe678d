"""What the tests of several compiled loops share."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

JIT = not numba.config.DISABLE_JIT
jit_only = pytest.mark.skipif(not JIT, reason="compiled code")
threads_only = pytest.mark.skipif(not JIT, reason="threads of compiled code")
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def close(a, b, dtype, loose=1):
    """Equal to rounding, `loose` times the usual tolerance."""
    tolerance = loose * (2e-6 if dtype == np.float32 else 2e-14)
    assert a.shape == b.shape and a.dtype == b.dtype == dtype
    assert np.abs(a - b).max(initial=0) <= tolerance * (1 + np.abs(b).max(initial=0))


def from_python(function):
    """A function that compiled loops call, as one that Python can call."""
    if not JIT:
        return function

    @numba.njit
    def call(*arguments):
        return function(*arguments)

    return call


def bits(arrays):
    """The bytes of several arrays, to compare runs."""
    return b"".join(a.tobytes() for a in arrays)
