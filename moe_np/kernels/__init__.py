"""The inner loops, compiled by Numba: each module has the name of its NumPy twin.

The twin is the file that holds the equations, as `moe_np.routing.top_k` is of `kernels.top_k`; a
test holds both equal to rounding. What several compiled loops share (BLAS, threads, activations) is
in `kernels.machine`. Environment variables choose:

    MOE_NP_KERNELS=numpy    always the NumPy twins
    MOE_NP_KERNELS=numba    always the loops, also where NUMBA_DISABLE_JIT=1 switches the compiler
                            off: slow, for a debugger
    unset                   the loops where Numba can be imported and its compiler is on

    MOE_NP_BLAS=whole       matrix products never in pieces (`kernels.machine.blas` says why pieces)
    MOE_NP_BLAS=dot         matrix products by Numba's `np.dot`, on SciPy's BLAS
    unset                   NumPy's BLAS, in pieces where it is an OpenBLAS with AVX-512

A module of loops is imported when it is first used, as in `kernels.top_k.forward(...)`, so that
`import moe_np` never imports Numba.
"""

import functools
import importlib
import importlib.util
import os
import sys
from types import ModuleType

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import DType

TWINS = (
    *("sparse_layer", "top_k", "jacobs1991", "nowlan1991", "patch_cnn", "hme_online"),
    *("attention", "norms", "cross_entropy", "optim", "lstm", "products"),
    *("attention_step", "few_tokens", "decoder_step"),
)


def __getattr__(name: str) -> ModuleType:
    if name in TWINS:
        return importlib.import_module(f"moe_np.kernels.{name}")
    raise AttributeError(f"module 'moe_np.kernels' has no attribute {name!r}")


@functools.cache
def _fault_of_numba():
    """Why Numba cannot be used: an empty string where it can."""
    # None: a test that hides Numba
    if sys.modules.get("numba", ...) is None or importlib.util.find_spec("numba") is None:
        return "Numba is not installed"
    try:
        importlib.import_module("numba")
    except Exception as error:  # it refuses this NumPy, or a library of its own is missing
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"Numba cannot be imported ({reason})"
    return ""


@functools.cache
def notice(text: str) -> None:
    """Print a notice on standard error, the same text only once per process."""
    print(f"moe_np: {text}", file=sys.stderr)


def backend() -> str:
    """The kernels in use, "numpy" or "numba", by the environment and by what is installed. Raises
    InputError for another value of MOE_NP_KERNELS.
    """
    choice = os.environ.get("MOE_NP_KERNELS", "")
    if choice not in ("", "numpy", "numba"):
        raise InputError(f"MOE_NP_KERNELS: wanted numpy or numba, got {choice!r}")
    if choice == "numpy":
        return "numpy"
    fault = _fault_of_numba()
    if fault:
        notice(f"{fault}; using the NumPy kernels (same results, slower)")
        return "numpy"
    jit_off = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    return "numba" if choice == "numba" or not jit_off else "numpy"


def compiled(dtype: DType) -> bool:
    """Whether the compiled loops are used for arrays of this dtype: with Numba, for float32 and
    float64. Half precision and long double have no compiled loops; they run in NumPy.
    """
    return dtype in (np.float32, np.float64) and backend() == "numba"
