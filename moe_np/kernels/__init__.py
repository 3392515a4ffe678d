"""Which code does the inner loops: NumPy (reads like the equations) or Numba (the same, compiled).

    MOE_NP_KERNELS=numpy    always NumPy
    MOE_NP_KERNELS=numba    always the loops, also with the JIT switched off (NUMBA_DISABLE_JIT=1: slow, for a debugger)
    unset                   Numba where it is installed and its JIT is on, otherwise NumPy

Each module of loops here has the name of its NumPy twin, the file that holds the equations, and a
test that holds the two equal. What compiled loops share (BLAS, the thread pool, activations) lies
in `machine`. The modules are imported when they are first touched, as in
`kernels.top_k.forward(...)`, so that `import moe_np` never imports Numba.
"""

import functools
import importlib
import importlib.util
import os
import sys

import numpy as np

from moe_np.base.checks import InputError

TWINS = ("sparse_layer", "top_k", "jacobs1991", "nowlan1991", "patch_cnn", "hme_online")


def __getattr__(name):
    if name in TWINS:
        return importlib.import_module(f"moe_np.kernels.{name}")
    raise AttributeError(f"module 'moe_np.kernels' has no attribute {name!r}")


@functools.cache
def _has_numba():
    if sys.modules.get("numba", ...) is None:  # how a test says "not installed"
        return False
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _say(text):
    print(f"moe_np: {text}", file=sys.stderr)


def backend():
    """Return "numpy" or "numba", as the environment asks and the installation allows."""
    asked = os.environ.get("MOE_NP_KERNELS", "")
    if asked not in ("", "numpy", "numba"):
        raise InputError(f"MOE_NP_KERNELS: wanted numpy or numba, got {asked!r}")
    if asked == "numpy":
        return "numpy"
    if not _has_numba():
        _say("Numba is not installed; using the NumPy kernels (same results, slower)")
        return "numpy"
    jit_off = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    return "numba" if asked == "numba" or not jit_off else "numpy"


def compiled(dtype):
    """Whether the compiled loops are used for arrays of this dtype: with Numba, for float32 and
    float64. Half precision and long double have no compiled loops; they run in NumPy.
    """
    return dtype in (np.float32, np.float64) and backend() == "numba"
