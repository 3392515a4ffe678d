"""Matrix products for compiled loops, c = op(a) op(b) + βc, by the BLAS that NumPy itself uses.

Numba's `np.dot` takes SciPy's BLAS and always overwrites c. NumPy's wheels carry a newer OpenBLAS, whose aᵀb is a
fifth faster where the result is small; and with β = 1 a sum over blocks of rows needs no pass of its own. Where NumPy
has another BLAS (Accelerate, MKL, a distribution's own), `np.dot` does the work behind the same name.

Compiled code calls the routine by a name, "moe_np_sgemm" or "moe_np_dgemm", to which this module gives an address:
so what is compiled can be kept, whatever BLAS there is the next time.
"""

import ctypes

import llvmlite.binding
import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - what np.dot in compiled code calls
import threadpoolctl
from numba import carray, cfunc, njit, types
from numba.extending import overload

ROWS_FIRST, PLAIN, TRANSPOSED = 101, 111, 112  # as cblas.h numbers them


def fixed(a, dtype=None):
    """`a` contiguous and read-only: then every call has the same types, and nothing is compiled twice."""
    view = np.ascontiguousarray(a, dtype).view()
    view.flags.writeable = False
    return view


@njit(cache=True)
def finite(a):
    """Whether all numbers of an array with one axis are finite: np.isfinite(a).all(), in a third of the time."""
    infinity, found = a.dtype.type(np.inf), True
    for i in range(len(a)):
        found &= abs(a[i]) < infinity  # not so for NaN
    return found


def gemm(op_a, op_b, a, b, beta, c):
    """c = op(a) op(b) + βc for contiguous matrices, op PLAIN or TRANSPOSED, not both transposed, β 0 or 1."""
    product = np.dot(a.T if op_a == TRANSPOSED else a, b.T if op_b == TRANSPOSED else b)
    c[:] = product + c if beta else product


def _signature(real, pointer):
    op, size = types.int32, types.int64
    return types.void(op, op, op, size, size, size, real, pointer, size, pointer, size, real, pointer, size)


ROUTINE = {
    real: types.ExternalFunction(name, _signature(real, types.uintp))
    for real, name in ((types.float32, "moe_np_sgemm"), (types.float64, "moe_np_dgemm"))
}


@overload(gemm)
def _gemm(op_a, op_b, a, b, beta, c):
    routine, real = ROUTINE[c.dtype], c.dtype

    def call(op_a, op_b, a, b, beta, c):
        m, n, k = c.shape[0], c.shape[1], a.shape[0] if op_a == TRANSPOSED else a.shape[1]
        of_a, of_b, of_c = a.ctypes.data, b.ctypes.data, c.ctypes.data
        width_a, width_b = a.shape[1], b.shape[1]
        routine(ROWS_FIRST, op_a, op_b, m, n, k, real(1), of_a, width_a, of_b, width_b, real(beta), of_c, n)

    return call


def by_dot(real):
    """What `gemm` needs of cblas_?gemm, made of `np.dot`."""

    @cfunc(_signature(real, types.CPointer(real)), cache=True)
    def routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
        out = carray(c, (m, n))
        if op_a == TRANSPOSED:
            product = np.dot(carray(a, (k, m)).T, carray(b, (k, n)))
        elif op_b == TRANSPOSED:
            product = np.dot(carray(a, (m, k)), carray(b, (n, k)).T)
        else:
            product = np.dot(carray(a, (m, k)), carray(b, (k, n)))
        if beta == 0:
            out[:] = product
        else:
            out += product

    return routine


def numpys_library():
    """The OpenBLAS of NumPy's wheel, which takes whole numbers of 64 bits, or None."""
    for found in threadpoolctl.threadpool_info():
        if found["internal_api"] == "openblas":
            library = ctypes.CDLL(found["filepath"])
            if hasattr(library, "scipy_cblas_sgemm64_") and hasattr(library, "scipy_cblas_dgemm64_"):
                return library
    return None


_connected = {}  # keeps what has an address from being thrown away


def connect(library):
    """Give the two names their addresses, in that library or of `by_dot`: for all that is compiled or loaded later."""
    for real, letter in ((types.float32, "s"), (types.float64, "d")):
        if library is None:
            routine = by_dot(real)
            address = routine.address
        else:
            routine = getattr(library, f"scipy_cblas_{letter}gemm64_")
            address = ctypes.cast(routine, ctypes.c_void_p).value
        _connected[letter] = routine
        llvmlite.binding.add_symbol(f"moe_np_{letter}gemm", address)


connect(numpys_library())
